"""The studio's parts: face model, cameras, light, fit, texture, rasterisers. Needs numba, no reference data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed: pip install mattface[train]")

from studio_head import mean_face, synthetic_model

from mattface.errors import InputError, WeightsError
from mattface.training.studio import face_model, fit, least_squares, light, raster, texture
from mattface.training.studio.anatomy import Anatomy
from mattface.training.studio.camera import Camera, frame_as_ffhq, rotation
from mattface.training.studio.face_model import FaceModel, load_model
from mattface.training.studio.refine import Refiner
from mattface.training.studio.render import Head, Renderer, flow, over

SIZE = 96


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return synthetic_model()


def head_of(model: FaceModel, identity=(0, 0, 0), expression=(0, 0, 0, 0, 0), seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.1, 0.8, (3, 16, 16, 3)).astype(np.float32)
    paint = np.kron(coarse, np.ones((1, 8, 8, 1), np.float32))
    vertices = model.vertices(np.array(identity, np.float32), np.array(expression, np.float32))
    return Head(vertices, paint, np.ones(len(vertices), np.float32))


def camera(yaw: float = 20, distance: float = 80) -> Camera:
    return Camera(rotation(yaw, -10, 5), 3.2, np.array([50.0, 46.0]), distance)


def test_a_model_survives_its_file(model, tmp_path):
    face_model.save_model(model, tmp_path / "m.npz")
    again = load_model(tmp_path / "m.npz")
    assert np.array_equal(again.quads, model.quads) and again.expression_names == model.expression_names
    assert np.allclose(again.identity_deltas, model.identity_deltas, atol=1e-3)


def test_a_file_without_the_arrays_is_rejected(model, tmp_path):
    np.savez(tmp_path / "m.npz", neutral=model.neutral)
    with pytest.raises(InputError, match=r"landmarks.*mattface studio convert"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize("read", [load_model, face_model.read_packed])
def test_a_damaged_file_is_rejected_in_one_line(model, tmp_path, read):
    face_model.save_model(model, tmp_path / "m.npz")
    whole = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "m.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"expected NumPy arrays in .*m\.npz; it holds none"):
        read(tmp_path / "m.npz")


@pytest.mark.parametrize("key", ["identity_deltas", "part", "landmarks"])
def test_arrays_that_do_not_fit_are_named(model, key):
    with pytest.raises(InputError, match=key):
        face_model.check_model(replace(model, **{key: getattr(model, key)[..., :-1]}), "broken")


def test_without_a_file_the_card_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="mattface studio convert"):
        load_model()


def test_wavefront_files_are_read(tmp_path):
    lines = ["v 0 0 0", "v 1 0 0", "v 1 1 0.5", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "f 1/1/1 2/2/1 3/3/1 4/4/1", "f 1/1 2/2 3/3"]))
    vertices, uv, quads, corners = face_model.read_object(tmp_path / "a.obj")
    assert vertices[2].tolist() == [1, 1, 0.5] and uv[3].tolist() == [0, 1]
    assert quads.tolist() == [[0, 1, 2, 3], [0, 1, 2, -1]] and corners.tolist() == quads.tolist()


def test_the_real_model_is_converted(shared):
    found = face_model.convert(shared / "data" / "ict_face_model.npz")
    assert len(found.neutral) == 26719 and len(found.expression_names) == 57
    marks = found.neutral[found.landmarks]
    assert marks[8, 1] < marks[57, 1] < marks[33, 1] < marks[27, 1]  # chin, lip, nose, root
    normals = raster.normals(found.neutral, found.triangles)
    assert normals[found.landmarks[30], 2] > 0.5  # the nose's tip looks ahead


@pytest.mark.parametrize("distance", [60.0, np.inf])
def test_a_camera_moved_by_a_similarity_sees_the_moved_picture(distance):
    points = np.random.default_rng(0).normal(0, 5, (20, 3))
    start = replace(camera(), distance=distance)
    move = np.array([[0.8, -0.3, 7.0], [0.3, 0.8, -2.0], [0, 0, 1]])
    wanted = start.project(points)[:, :2] @ move[:2, :2].T + move[:2, 2]
    assert np.allclose(start.moved(move).project(points)[:, :2], wanted)


@pytest.mark.parametrize("angles", [(0, 0, 0), (70, 5, -8), (-35, 20, 12)])
def test_angles_are_those_of_the_rotation(angles):
    assert np.allclose(Camera(rotation(*angles), 1, np.zeros(2)).angles(), angles, atol=1e-6)


def test_positive_yaw_looks_to_the_right_of_the_picture():
    ahead = Camera(rotation(30, 0, 0), 1, np.zeros(2)).project(np.array([[0.0, 0, 10]]))
    up = Camera(rotation(0, 30, 0), 1, np.zeros(2)).project(np.array([[0.0, 0, 10]]))
    assert ahead[0, 0] > 4 and up[0, 1] < -4


def test_framing_is_that_of_the_ffhq_crop(model):
    marks = model.neutral[model.landmarks]
    seen = frame_as_ffhq(rotation(0, 0, 0), marks, 512, 80).project(marks)[:, :2]
    eyes = (seen[36:42].mean(0) + seen[42:48].mean(0)) / 2
    assert abs(eyes[0] - 256) < 6 and 200 < eyes[1] < 260


def test_a_lamp_lights_what_faces_it():
    lamp = light.from_lamp(np.array([1.0, 0, 0]), 1.0)[:, None] * np.ones(3)
    normals = np.eye(3)[[0, 1]] * np.array([[1], [1]])
    lit, away = light.irradiance(lamp, normals)[0], light.irradiance(lamp, -normals)[0]
    assert lit[0] > 3.5 and away[0] < 0.3
    around = np.random.default_rng(0).normal(size=(4000, 3))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    exact = np.maximum(around[:, 0], 0) * 4
    assert np.abs(light.basis(around) @ lamp[:, 0] - exact).mean() < 0.13


def test_fitted_light_is_the_light_that_was_there():
    rng = np.random.default_rng(1)
    normals = rng.normal(size=(3000, 3)) * [1, 1, 0.5] + [0, 0, 1.2]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    truth = light.GREY * 0.7 + light.from_lamp(np.array([0.6, 0.4, 1.0]), 0.2)[:, None]
    colours = light.irradiance(truth, normals) * np.array([0.5, 0.3, 0.2])
    colours[:200] *= 0.1  # brows
    found = light.irradiance(light.fit_light(normals, colours, np.ones(3000)), normals)
    wanted = light.irradiance(truth, normals)
    ratio = found[200:] / wanted[200:]
    assert np.std(ratio / ratio.mean()) < 0.05 < 0.2 < np.std(wanted) / wanted.mean()


def test_srgb_goes_both_ways():
    levels = np.arange(256) / 255
    assert np.abs(light.to_srgb(light.to_linear(levels)) - levels).max() < 1e-5


@pytest.mark.parametrize("yaw", [-35, 0, 25])
def test_a_fit_finds_the_pose_and_the_shape(model, yaw):
    fitter = fit.Fitter(model, dense=False)
    truth = np.array([1.0, -0.8, 0.5]), np.array([0.7, 0.0, 0.4, 0.0, 0.0])
    seen = Camera(rotation(yaw, 5, -4), 20.0, np.array([500.0, 520.0]), 80.0)
    screen = seen.project(model.vertices(*truth).astype(np.float64))
    mesh = np.zeros((468, 3))
    mesh[fitter.mesh_points] = screen[model.landmarks]
    found = fitter(mesh)
    assert np.abs(found.camera.angles() - [yaw, 5, -4]).max() < 4
    assert np.median(found.errors) < 4
    assert found.expression[0] > 0.3 and found.expression.min() >= 0 and found.expression.max() <= 1


def test_a_fit_rejects_other_landmarks(model):
    with pytest.raises(InputError, match="468"):
        fit.Fitter(model, dense=False)(np.zeros((68, 2)))


def test_dense_points_lie_on_the_face(model):
    fitter = fit.Fitter(model)
    assert len(fitter.vertices) > 150
    assert (model.part[fitter.vertices] == face_model.FACE).all()
    moved = np.hypot(*(mean_face()[fitter.mesh_points] - model.neutral[fitter.vertices])[:, :2].T)
    assert np.median(moved) < 1.0


def test_expressions_stay_in_bounds_at_the_constrained_minimum():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 8))
    normal, right = a.T @ a + 0.1 * np.eye(8), a.T @ rng.normal(size=30) * 3
    found = least_squares.minimise_bounded(normal, right, 3)
    slope = normal @ found - right
    low, high = found[3:] <= 1e-9, found[3:] >= 1 - 1e-9
    assert np.abs(slope[:3]).max() < 1e-6 and (found[3:] >= 0).all() and (found[3:] <= 1).all()
    assert np.abs(slope[3:][~low & ~high]).max(initial=0) < 1e-3
    assert (slope[3:][low] > -1e-6).all() and (slope[3:][high] < 1e-6).all() and (low | high).any()


def test_unwrapping_a_rendered_head_gives_its_texture_back(model):
    atlas, head = texture.Atlas(model, 128), head_of(model)
    seen = Camera(rotation(0, 0, 0), 18.0, np.array([256.0, 256.0]), 80.0)
    image = light.to_srgb(over(Renderer(model)(head, seen, light.GREY, 512), np.zeros((512, 512, 3), np.float32)))
    found = fit.Fit(np.zeros(3), np.zeros(5), seen, light.GREY, np.zeros(68))
    got = texture.unwrap(atlas, found, np.rint(image * 255).astype(np.uint8))
    inside = got.weight[0] > 0.9
    assert inside.mean() > 0.15
    assert np.median(np.abs(got.albedo[0] - head.texture[0])[inside]) < 0.02


def test_hidden_parts_come_from_the_other_side(model):
    atlas = texture.Atlas(model, 64)
    albedo = np.full((2, 64, 64, 3), 0.3, np.float32)
    albedo[:, 20:24, 10:14] = 0.6
    weight = np.zeros((2, 64, 64), np.float32)
    weight[:, :, :32] = 1
    full = texture.complete_albedo(atlas, texture.Unwrapped(albedo, weight), None)
    assert np.allclose(full[0, 20:24, 50:54], 0.6, atol=0.02) and np.allclose(full[0, 40, 40:], 0.3, atol=0.02)


def test_filling_continues_smoothly():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None].repeat(64, 0)
    weight = np.ones((64, 64), np.float32)
    weight[24:40, 24:40] = 0
    found = texture.fill_gaps(ramp * weight[..., None], weight)
    assert np.abs(found - ramp).max() < 0.12


@pytest.mark.parametrize("yaw", [0, 60, -90])
def test_both_renderers_give_one_picture(model, yaw):
    head, seen = head_of(model, (0.5, -1, 1), (0.6, 0, 1, 0, 0)), camera(yaw)
    shine = light.draw_light(np.random.default_rng(3))
    one, other = (Renderer(model, backend)(head, seen, shine, SIZE) for backend in ("cpu", "torch"))
    back = np.full((SIZE, SIZE, 3), 0.2, np.float32)
    levels = [np.rint(light.to_srgb(over(d, back)) * 255) for d in (one, other)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert np.array_equal(one.ids, other.ids) and np.abs(one.coverage - other.coverage).max() < 1e-6
    assert 0.2 < one.coverage.mean() < 0.8


def test_triangles_that_share_an_edge_neither_overlap_nor_leave_gaps():
    rng = np.random.default_rng(0)
    inner = rng.uniform(2, 30, (1, 2))
    points = np.concatenate([np.array([[0, 0], [32, 0], [32, 32], [0, 32]]), inner])
    triangles = np.array([[1, 0, 4], [2, 1, 4], [3, 2, 4], [0, 3, 4]], np.int32)  # counter-clockwise with y up
    counts = np.zeros((32, 32), int)
    for triangle in triangles:
        counts += raster.cover(raster.snap_corners(points, 1), np.zeros(5), triangle[None], 32, 32)[0] >= 0
    assert (counts == 1).all()


def test_edges_are_anti_aliased(model):
    cover = Renderer(model)(head_of(model), camera(), light.GREY, SIZE).coverage
    assert {0.25, 0.5, 0.75} <= set(np.unique(cover).tolist())


def test_flow_finds_the_same_point(model):
    """Every visible pixel of the target points at the source pixel whose surface is the same place of the head."""
    heads = head_of(model), head_of(model, (1, 1, 0), (0.5, 0, 0, 0, 0))
    source, target = (Renderer(model)(h, camera(y), light.GREY, SIZE) for h, y in zip(heads, (25, -10), strict=True))
    found, visible = flow(model, source, target)
    positions = []
    for drawing in (source, target):
        xy = raster.snap_corners(drawing.screen, 2)
        at = model.neutral.astype(np.float64)
        positions.append(raster.surface(drawing.ids, drawing.nearest, xy, model.triangles, at, 2)[0])
    carried = texture.sample_image(positions[0], found)
    apart = np.linalg.norm(carried - positions[1], axis=-1)[visible > 0]
    assert visible.mean() > 0.15
    assert np.median(apart) < 0.02 and np.percentile(apart, 95) < 0.6


def test_flow_marks_what_the_source_hides(model):
    source, target = (Renderer(model)(head_of(model), camera(y), light.GREY, SIZE) for y in (80, -80))
    _, visible = flow(model, source, target)
    assert visible.sum() < 0.25 * (target.coverage > 0).sum()


def test_pixels_improve_a_fit_by_inexact_landmarks(model):
    atlas, head = texture.Atlas(model, 128), head_of(model, (1.0, -0.8, 0.5), seed=4)
    seen = Camera(rotation(8, 0, 0), 18.0, np.array([256.0, 256.0]), 80.0)
    image = light.to_srgb(over(Renderer(model)(head, seen, light.GREY, 512), np.full((512, 512, 3), 0.2)))
    fitter = fit.Fitter(model, dense=False)
    mesh = np.zeros((468, 3))
    noise = np.random.default_rng(0).normal(0, 5, (68, 2))
    mesh[fitter.mesh_points, :2] = seen.project(head.vertices)[model.landmarks, :2] + noise
    rgb = np.rint(image * 255).astype(np.uint8)
    start = replace(fitter(mesh, rgb), camera=seen)
    refiner = Refiner(fitter, Anatomy(atlas), head.texture[:2])
    errors = []
    for found in (start, refiner(start, mesh, rgb)):
        off = model.vertices(found.identity, found.expression) - head.vertices
        errors.append(float(np.abs(off[refiner.chosen, :2]).mean()))
    assert errors[1] < 0.8 * errors[0]
