"""Inner-face mask of the mesh, and the parsing network against its golden output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_input, seeded_state

from mattface import parse, perception
from mattface.errors import UsageError, WeightsError
from mattface.parse import Parser, inner_face, visible
from mattface.parse.bisenet import CLASSES, INNER, BiSeNet, inner_of, read_bisenet
from mattface.vocabulary import Crop
from mattface.weights import layouts
from mattface.weights.adopt import adopt
from mattface.weights.layouts.estimators import bisenet_shapes

GOLDEN = Path(__file__).parent / "golden"


def disc(size: int, radius: float = 0.3, x: float = 0.5, y: float = 0.5) -> np.ndarray:
    """(468, 3) mesh whose outline is a circle, in fractions of the crop."""
    angle = np.linspace(0, 2 * np.pi, 468, endpoint=False)
    r = np.where(np.arange(468) % 3 == 0, radius, radius * 0.4)
    return np.stack([x + r * np.cos(angle), y + r * np.sin(angle), 0 * angle], -1) * size


def bisenet_file() -> dict[str, torch.Tensor]:
    """A state dict as the public file holds it."""
    return seeded_state(bisenet_shapes(), False)


def bisenet_state() -> dict[str, torch.Tensor]:
    return layouts.bisenet(bisenet_file())


def distance_from_edge(size: int, radius: float) -> np.ndarray:
    """Distance of every pixel centre inside the disc from its circle, in pixels; negative outside."""
    v, u = np.mgrid[0:size, 0:size] + 0.5
    return radius * size - np.hypot(u - size / 2, v - size / 2)


@pytest.mark.parametrize("size", [256, 512, 1024, 1600])
def test_mask_of_a_disc(size: int) -> None:
    mask = inner_face(disc(size), size, feather=0.1)
    assert mask.shape == (1, 1, size, size) and mask.dtype == torch.float32
    inwards = distance_from_edge(size, 0.3)
    width = 0.1 * np.sqrt(np.pi) * 0.3 * size
    values = mask[0, 0].numpy()
    step = max(1.0, size / parse.WORK)
    assert values[inwards < -step].max() == 0
    assert values[inwards > width + 3 * step].min() == 1
    middle = values[np.abs(inwards - width / 2) < 1]
    assert 0.3 < middle.mean() < 0.7
    np.testing.assert_allclose(values, values[::-1], atol=0.08)


def test_frame_is_no_edge_of_the_face() -> None:
    """A face that the crop cuts off keeps full strength at the frame."""
    values = inner_face(disc(256, x=0.0), 256)[0, 0].numpy()
    assert values[128, 0] == 1
    assert values[:, 200:].max() == 0


def test_mesh_outside_the_crop() -> None:
    assert inner_face(disc(256, x=9.0), 256).max() == 0


def test_real_face(faces: dict) -> None:
    from mattface.align import cut
    from mattface.data import topology

    for rgb, face in faces.values():
        crop = cut(rgb, face, size=512)
        mask = perception.load("parser", "mesh")(crop)[0, 0].numpy()
        inner = [*topology.LEFT_EYE, *topology.RIGHT_EYE, *topology.LIPS_OUTER, *topology.NOSE_BRIDGE]
        x, y = crop.mesh[inner, :2].astype(int).T
        assert mask[y, x].min() > 0.9
        assert mask[0].max() == mask[:, 0].max() == mask[:, -1].max() == 0
        assert 0.1 < mask.mean() < 0.5


def test_bisenet_golden() -> None:
    expected = np.load(GOLDEN / "face_parsing_bisenet.npz")["logits"]
    with torch.no_grad():
        got = read_bisenet(bisenet_state())(seeded_input("bisenet_img", (1, 3, 256, 256))).numpy()[:, :, ::8, ::8]
    error = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"BiSeNet: {error:.1e}")
    assert error < 1e-4


def test_other_checkpoints_are_rejected() -> None:
    state = bisenet_state()
    with pytest.raises(WeightsError, match=r"conv_out\.conv_out\.weight.*\(19, 256, 1, 1\)"):
        read_bisenet(state | {"conv_out.conv_out.weight": torch.zeros(11, 256, 1, 1)})
    state.pop("ffm.conv1.weight")
    with pytest.raises(WeightsError, match=r"ffm\.conv1\.weight"):
        read_bisenet(state)


def test_network_narrows_the_mask() -> None:
    """Where the network sees skin the mask stays, where it sees hair it goes."""

    class Halves(BiSeNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(1, len(CLASSES), *x.shape[2:])
            scores[:, CLASSES.index("skin"), :, : x.shape[3] // 2] = 50
            scores[:, CLASSES.index("hair"), :, x.shape[3] // 2 :] = 50
            return scores

    mesh = disc(256)
    crop = Crop(torch.zeros(1, 3, 256, 256), np.eye(3), mesh, np.zeros((5, 2)))
    mask = Parser("bisenet", lambda crop, _: inner_of(Halves(), crop.pixels))(crop)
    plain = inner_face(mesh, 256)
    assert (mask[..., :120] - plain[..., :120]).abs().max() < 1e-4
    assert mask[..., 136:].max() < 1e-4


def test_a_source_has_a_rule_of_its_own() -> None:
    crop = Crop(torch.zeros(1, 3, 64, 64), np.eye(3), disc(64), np.zeros((5, 2)))
    strict, generous = torch.zeros(1, 1, 5, 5), torch.full((1, 1, 5, 5), 0.7)
    parser = Parser("some", lambda crop, _: strict, source=lambda crop, _: generous)
    assert parser(crop).max() == 0 and torch.equal(parser.seen(crop), generous)
    assert torch.equal(Parser("some", lambda crop, _: strict).seen(crop), strict)
    assert Parser("mesh").seen(crop).min() == 1


def test_in_doubt_a_source_is_shown_and_a_target_kept() -> None:
    assert visible.SURE[1] <= visible.DOUBT[0], "what is surely hidden in a source is hidden in a target too"


def test_glasses_and_hair_are_not_inner_face() -> None:
    assert {"glasses", "hair", "hat", "left ear", "neck", "background"}.isdisjoint(INNER)
    assert set(INNER) <= set(CLASSES) and len(CLASSES) == 19


def test_crop_without_mesh() -> None:
    crop = Crop(torch.zeros(1, 3, 256, 256), np.eye(3), None, np.zeros((5, 2)))
    with pytest.raises(UsageError, match="landmark stage"):
        perception.load("parser", "mesh")(crop)


def test_missing_or_unknown_parser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    assert perception.load("parser").name == "visible"
    with pytest.raises(WeightsError, match="79999_iter"):
        perception.load("parser", "bisenet")
    with pytest.raises(UsageError, match="bisenet, visible, mesh"):
        perception.load("parser", "u-net")
    torch.save(bisenet_file(), tmp_path / "x.pth")
    assert adopt(tmp_path / "x.pth").name == "bisenet"
    assert perception.load("parser").name == "bisenet"
    assert parse.available()[0][:3] == ("bisenet", True, "")
