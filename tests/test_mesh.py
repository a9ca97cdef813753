"""Correspondence between meshes: exact where it can be known, soft where the source cannot be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mattface import mesh
from mattface.data.topology import LEFT_EYE, RIGHT_EYE
from mattface.mesh.openings import mouth_fit
from mattface.methods.mesh import MATTE, Config, MeshMethod
from mattface.parse import Parser
from mattface.realtime.smooth import TemporalMatteFilter
from mattface.vocabulary import Crop

SIZE = 256


def face(yaw: float = 0.0, scale: float = 70.0, centre: tuple[float, float] = (128.0, 128.0)) -> np.ndarray:
    """The mean face in pixels, turned about the vertical axis by `yaw` degrees."""
    a = np.deg2rad(yaw)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    points = mesh.topology().mean @ turn.T * scale
    points[:, :2] += centre
    return points


def grid(size: int) -> np.ndarray:
    """(size, size, 2) pixel centres."""
    axis = np.arange(size) + 0.5
    return np.stack(np.meshgrid(axis, axis), -1)


def test_topology_is_a_disc_that_faces_the_camera() -> None:
    shape = mesh.topology()
    edges = np.sort(shape.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, used = np.unique(edges, axis=0, return_counts=True)
    assert len(np.unique(shape.triangles)) == 468
    assert 468 - len(unique) + len(shape.triangles) == 1  # Euler: no holes, no handles
    assert (used <= 2).all()
    assert {tuple(e) for e in unique[used == 1]} == {
        tuple(sorted(e)) for e in zip(shape.oval, np.roll(shape.oval, -1), strict=True)
    }
    assert (mesh.signed_areas(shape.mean[:, :2]) > 0).mean() > 0.9


def test_mirror_and_regions_match_the_point_names() -> None:
    shape = mesh.topology()
    assert (shape.mirror[shape.mirror] == np.arange(468)).all()
    np.testing.assert_allclose(shape.mean[shape.mirror], shape.mean * [-1, 1, 1], atol=1e-6)
    for label, ring in ((mesh.LEFT_EYE, LEFT_EYE), (mesh.RIGHT_EYE, RIGHT_EYE)):
        assert set(np.unique(shape.triangles[shape.region == label])) == set(ring)
    assert set(np.unique(shape.triangles[shape.region == mesh.MOUTH])) == set(shape.lip_rings[-1].tolist())


def test_flow_to_itself_is_the_identity() -> None:
    flow, visibility = mesh.flow(face(), face(), SIZE)
    inside = visibility > 0
    error = np.abs(flow - grid(SIZE)).max(-1)
    assert inside.mean() > 0.2
    assert np.percentile(error, 99) < 0.02 and error.max() < 0.25  # slivers are not exact; outside it continues
    assert np.median(visibility[inside]) > 0.99


def test_flow_follows_a_similarity_to_a_source_of_another_size() -> None:
    target = face()
    angle = 0.4
    linear = 2.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = np.column_stack([target[:, :2] @ linear.T + [40, -10], target[:, 2] * 2.5])
    flow, _ = mesh.flow(source, target, SIZE)
    error = np.abs(flow - (grid(SIZE) @ linear.T + [40, -10])).max(-1)
    assert np.percentile(error, 99) < 0.05 and error.max() < 2.5 * 0.25


def test_flow_takes_points_to_points_under_an_expression() -> None:
    target, source = face(), face()
    chin = target[:, 1] > 128 + 50
    source[chin, 1] += 6 * (target[chin, 1] - 178) / 50
    flow, _ = mesh.flow(source, target, SIZE)
    for point in (1, 168, 152, 33, 61):
        x, y = target[point, :2]
        found = flow[min(int(y - 1), SIZE - 1), int(x)]
        assert np.linalg.norm(found - (source[point, :2] + [int(x) + 0.5 - x, int(y - 1) + 0.5 - y])) < 1.5


def test_the_side_that_the_source_turns_away_is_left_to_the_target() -> None:
    target = face()
    _, seen = mesh.flow(face(yaw=50.0), target, SIZE)
    _, mirrored = mesh.flow(face(yaw=-50.0), target, SIZE)
    left, right = seen[:, :110].sum(), seen[:, 146:].sum()
    assert max(left, right) > 2 * min(left, right)
    np.testing.assert_allclose(mirrored[:, ::-1].sum(), seen.sum(), rtol=0.05)
    steps = np.abs(np.diff(seen, axis=1))[:, 60:196]
    assert steps[100:150].max() < 0.35  # the falloff inside the face is soft


def test_a_profile_target_draws_no_back_faces() -> None:
    ids = mesh.triangle_ids(face(yaw=70.0), SIZE)
    drawn = np.unique(ids[ids >= 0])
    assert (mesh.signed_areas(face(yaw=70.0)[:, :2])[drawn] > 0).all()
    assert len(drawn) < len(mesh.topology().triangles)


def test_the_visible_triangle_is_the_nearest() -> None:
    turned = face(yaw=45.0)
    ids = mesh.triangle_ids(turned, SIZE)
    x, y = turned[1, :2]
    around = ids[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
    nearest = [1 in mesh.topology().triangles[k] for k in np.unique(around[around >= 0])]
    assert any(nearest)


def test_nothing_in_the_frame_gives_no_visibility() -> None:
    flow, visibility = mesh.flow(face(), face(centre=(2000.0, 2000.0)), 64)
    assert visibility.max() == 0 and np.isfinite(flow).all()


@pytest.mark.parametrize("bad", [np.zeros((68, 3)), np.full((468, 3), np.nan), np.zeros((468, 2))])
def test_flow_rejects_other_meshes(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="source_mesh must be a finite"):
        mesh.flow(bad, face(), SIZE)


def test_flow_rejects_an_empty_size() -> None:
    with pytest.raises(ValueError, match="size must be"):
        mesh.flow(face(), face(), 0)


def test_the_methods_maps_stay_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    crops = [
        Crop(torch.from_numpy(rng.uniform(-1, 1, (1, 3, SIZE, SIZE))).float(), np.eye(3), points, points[:5, :2])
        for points in (face(), face(yaw=15.0))
    ]
    method = MeshMethod(Config(), Parser("mesh"), torch.device("cpu"))
    swap = method.swap(method.encode(crops[0]), crops[1])
    assert swap.pixels.shape == (1, 3, SIZE, SIZE) and swap.matte.shape == (1, 1, SIZE, SIZE)
    assert swap.extras["flow"].shape == (1, 2, SIZE, SIZE)
    for values, low in ((swap.pixels, -1), (swap.matte, 0), (swap.extras["visibility"], 0)):
        assert float(values.min()) >= low and float(values.max()) <= 1


@pytest.mark.parametrize("size", [256, 352])
def test_a_coarser_drawing_changes_little(size: int) -> None:
    """What video uses for speed: the same swap, drawn at half the resolution, light measured at 96 pixels."""
    rng = np.random.default_rng(0)
    small = cv2.GaussianBlur(rng.uniform(0.2, 0.8, (size, size, 3)).astype(np.float32), (0, 0), 6)
    pixels = torch.from_numpy(small * 2 - 1).permute(2, 0, 1)[None]
    meshes = [face(yaw, 0.27 * size, (size / 2, size / 2)) for yaw in (0.0, 12.0)]
    crops = [Crop(pixels, np.eye(3), points, points[:5, :2]) for points in meshes]
    swaps = []
    for config in (Config(), Config(coarse=2, light_side=96)):
        method = MeshMethod(config, Parser("mesh"), torch.device("cpu"))
        swaps.append(method.swap(method.encode(crops[0]), crops[1]))
        assert float(swaps[-1].matte.min()) >= 0 and float(swaps[-1].matte.max()) <= 1
    inside = swaps[0].matte[0, 0] > 0.9
    assert inside.float().mean() > 0.1
    assert float((swaps[0].matte - swaps[1].matte).abs().mean()) < 0.01
    assert float((swaps[0].pixels - swaps[1].pixels).abs()[0][:, inside].mean()) < 0.02


def test_the_matte_is_filtered_in_the_crop_s_own_pixels() -> None:
    pixels = torch.zeros(1, 3, 256, 256)
    points = face(0.0, 45.0, (90.0, 110.0))
    method = MeshMethod(Config(), Parser("mesh"), torch.device("cpu"))
    crop = Crop(pixels, np.eye(3), points, points[:5, :2])
    seen = []

    class Halving(TemporalMatteFilter):
        def __call__(self, matte: np.ndarray) -> np.ndarray:
            seen.append(matte)
            return matte * 0.5

    plain, calm = method.swap(method.encode(crop), crop), method.swap(method.encode(crop), crop, matte_filter=Halving())
    assert seen[0].shape == (256, 256)
    np.testing.assert_allclose(seen[0], plain.matte[0, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(calm.matte.numpy(), 0.5 * plain.matte.numpy(), atol=1e-6)


def test_a_smile_keeps_its_teeth_when_the_source_is_closed() -> None:
    closed, smiling = face(), face()
    lower = [14, 87, 317, 178, 402, 88, 318]
    smiling[lower, 1] += 15
    closed[lower, 1] = closed[[13, 82, 312, 81, 311, 80, 310], 1] + 0.2
    assert mouth_fit(closed, smiling, 0.115) == 0
    assert mouth_fit(smiling, smiling, 0.115) == 1
    assert mouth_fit(smiling, closed, 0.115) == 1


def test_what_hides_the_source_leaves_the_target_alone() -> None:
    size = 256
    pixels = torch.zeros(1, 3, size, size)
    crop = Crop(pixels, np.eye(3), face(), np.zeros((5, 2)))
    seen = torch.ones(1, 1, size, size)
    seen[..., 128:, :] = 0  # something lies over the lower half
    parser = Parser("mesh")
    plain = MeshMethod(Config(), parser, torch.device("cpu"))
    whole = plain.swap(plain.encode(crop), crop).matte[0, 0]
    parser.seen = lambda crop: seen  # type: ignore[method-assign]
    half = plain.swap(plain.encode(crop), crop).matte[0, 0]
    assert (half[:100] - whole[:100]).abs().mean() < 0.01 and half[:100].max() > 0.9 and whole[150:].max() > 0.9
    assert half[150:, 96:160].max() < 0.05 < 0.9 < whole[150:, 96:160].max(), "but for the sides, where hair lies"


def test_the_face_fades_towards_what_lies_before_it() -> None:
    size = 256
    crop = Crop(torch.zeros(1, 3, size, size), np.eye(3), face(), np.zeros((5, 2)))

    class Half(Parser):
        """Something with an edge as sharp as a picture can show lies over the right half."""

        def __call__(self, crop: Crop, *how: Any, **reuse: Any) -> torch.Tensor:
            return super().__call__(crop) * (torch.arange(size) < 128)

    configs = [Config(matte=replace(MATTE, hidden=h)) for h in (0.0, MATTE.hidden)]
    methods = [MeshMethod(config, Half("mesh"), torch.device("cpu")) for config in configs]
    sharp, soft = (m.swap(m.encode(crop), crop).matte[0, 0] for m in methods)
    row = 150
    assert sharp[row, 128:].max() == soft[row, 128:].max() == 0, "nothing of what lies there changes"
    assert sharp[row, 127] > 0.9 and soft[row, 127] < 0.6 and soft[row, 110] > 0.9
    assert (soft <= sharp + 1e-6).all()
