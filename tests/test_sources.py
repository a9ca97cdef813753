"""Several pictures of one person: the one that looks where the target looks is taken, and the others fill it up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_swappers import method as tiny_method

from mattface.landmarks import five_points
from mattface.mesh import Drawing, topology
from mattface.mesh.pose import by_pose
from mattface.methods.mesh import Config, MeshMethod, fill
from mattface.parse import Parser
from mattface.pipeline import Swapper
from mattface.vocabulary import Face, Identity

SIZE = 320
CPU = torch.device("cpu")
TURNED = (-50, 50)
"""Degrees to the left and to the right."""


def posed(yaw: float) -> np.ndarray:
    """(468, 3) the mean face in a picture, turned to the right by degrees."""
    a = np.deg2rad(yaw)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    points = topology().mean @ turn.T * 75
    points[:, :2] += SIZE / 2
    return points


def drawn(yaw: float, person: int) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: a person is a skin colour with a left and a right cheek of their own."""
    mean, points = topology().mean, posed(yaw)
    skin = np.array([[0.75, 0.55, 0.45], [0.55, 0.4, 0.33]])[person]
    cheeks = np.array([[0.12, -0.05, 0.0], [-0.05, 0.1, 0.0]])[:: 1 - 2 * person]
    left, right = (np.exp(-((mean[:, 0] - x) ** 2 + (mean[:, 1] - 0.2) ** 2) / 0.1)[:, None] for x in (-0.6, 0.6))
    colours = skin + left * cheeks[0] + right * cheeks[1]
    drawing = Drawing.of(points, SIZE)
    picture = np.where(drawing.covered[..., None], drawing.interpolate(colours), 0.3)
    picture = np.rint(picture * 255).astype(np.uint8)
    picture[0, 0] = 128 + yaw  # tells `Told` which way it looks
    return picture


class Told:
    """Detector and landmarks that know how the pictures were drawn."""

    name, device = "told", CPU

    def __call__(self, rgb: np.ndarray, face: Face | None = None, passes: int = 2) -> Any:
        points = posed(float(rgb[0, 0, 0]) - 128)
        found = Face(np.r_[points[:, :2].min(0), points[:, :2].max(0)], 1.0, five_points(points), points, 1.0)
        return [found] if face is None else found


class Same:
    """Everybody is one person."""

    name = "same"

    def __call__(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        return np.array([1.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def swapper() -> Swapper:
    told: Any = Told()
    return Swapper(MeshMethod(Config(), Parser("mesh"), CPU), told, told, Same(), CPU, grain=0)  # type: ignore[arg-type]


def identity_of(swapper: Swapper, *yaws: int) -> Identity:
    return swapper.prepare([drawn(yaw, 0) for yaw in yaws])


@pytest.mark.parametrize("looks", TURNED)
def test_the_picture_that_looks_where_the_target_looks_is_taken(swapper: Swapper, looks: int) -> None:
    both, target = identity_of(swapper, *TURNED), drawn(looks, 1)
    alone = {yaw: swapper.swap(identity_of(swapper, yaw), target).image.astype(int) for yaw in TURNED}
    fused = swapper.swap(both, target).image.astype(int)
    off = {yaw: np.abs(fused - image).mean() for yaw, image in alone.items()}
    assert off[looks] < 0.3 * off[-looks], off
    assert np.abs(alone[looks] - alone[-looks]).max() > 10, "the other picture alone would give another result"


def test_the_order_of_the_pictures_does_not_matter(swapper: Swapper) -> None:
    target = drawn(-40, 1)
    images = [swapper.swap(identity_of(swapper, *yaws), target).image for yaws in (TURNED, TURNED[::-1])]
    np.testing.assert_array_equal(*images)


def test_what_one_picture_does_not_show_comes_from_the_other(swapper: Swapper) -> None:
    """A target that looks straight ahead shows both cheeks; each turned source shows one of them."""
    target = drawn(0, 1)
    alone, both = (swapper.swap(identity_of(swapper, *yaws), target) for yaws in ((-50,), TURNED))
    truth = swapper.swap(identity_of(swapper, 0), target)
    inside = truth.matte > 0.5
    assert (both.matte > 0.5)[inside].mean() > (alone.matte > 0.5)[inside].mean() + 0.1
    error = [np.abs(r.image.astype(int) - truth.image)[inside].mean() for r in (alone, both)]
    assert error[1] < 0.6 * error[0], error


def test_filling_changes_nothing_where_the_first_shows_all() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)
    whole, none = np.ones((32, 32), np.float32), np.zeros((32, 32), np.float32)
    pixels, seen = fill(first, whole, other, whole, 1.0)
    np.testing.assert_array_equal(pixels, first)
    assert seen.min() == 1
    pixels, seen = fill(first, none, other, whole, 0.0)
    assert seen.min() == 1 and np.abs(pixels - first).max() > 0.1


def test_codes_are_averaged() -> None:
    method = tiny_method("facechanger")
    codes = [F.normalize(torch.randn(1, 16), dim=1) for _ in range(3)]
    mean = method.merge(codes)
    assert float(mean.norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(mean, F.normalize(sum(codes), dim=1))  # type: ignore[arg-type]


def test_the_nearest_pose_is_first() -> None:
    assert by_pose([posed(-40), posed(0), posed(30)], posed(25)) == [2, 1, 0]
    assert by_pose([posed(0), posed(-40)], posed(-28)) == [1, 0]
