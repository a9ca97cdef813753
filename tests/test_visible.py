"""What of a face is seen: the network's framing, and that its output lands where it belongs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mattface.mesh import topology
from mattface.parse import _inner, visible
from mattface.realtime.smooth import TemporalMatteFilter
from mattface.vocabulary import Crop


def face(size: int, angle: float = 0.0, scale: float = 0.28, centre: tuple[float, float] = (0.5, 0.52)) -> np.ndarray:
    """(468, 3) the mean face in a picture of this size, turned by degrees on the screen."""
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return (topology().mean @ matrix.T) * scale * size + np.array([*centre, 0]) * size


class Reddish(nn.Module):
    """Says that a face is seen where the picture is not red."""

    def __init__(self) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(-50.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sign * (x[:, :1] - x[:, 1:2] - 0.5)


@pytest.mark.parametrize("angle", [0.0, 40.0, -120.0])
def test_square_is_upright_and_holds_the_face(angle):
    mesh = face(400, angle)
    matrix = visible.square(mesh)
    points = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    down = points[visible.CHIN] - points[visible.TOP]
    assert abs(down[0]) < 1e-6 * abs(down[1]) + 1e-6 and down[1] > 0
    assert points.min() > 0 and points.max() < visible.SIDE
    extent = (points.max(0) - points.min(0)).max()
    assert extent == pytest.approx(visible.SIDE / visible.ROOM)


def test_expected_maps_lie_on_the_mesh():
    mesh = face(300, 25)
    matrix = visible.square(mesh)
    covered, features = visible.expected(mesh, matrix)
    points = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = points * 0.9 + 0.1 * points.mean(0)
    columns, rows = inside.astype(int).T
    assert covered[rows, columns].all() and not covered[0].any()
    eyes = np.array([points[ids].mean(0) for ids in topology().eyes]).astype(int)
    assert features[eyes[:, 1], eyes[:, 0]].all()
    assert 0 < (features > 0).mean() < 0.3 * (covered > 0).mean()


@pytest.mark.parametrize(("size", "angle"), [(512, 0.0), (512, 33.0), (200, -70.0), (1024, 10.0)])
def test_answer_lands_where_the_thing_is(size, angle):
    """A red bar over the cheek is found where it lies, at every scale and turn; beyond the square all is seen."""
    mesh = face(size, angle)
    pixels = np.full((size, size, 3), 0.2, np.float32)
    middle = mesh[[50, 205]].mean(0)[:2]
    bar = np.zeros((size, size), np.uint8)
    cv2.circle(bar, tuple(int(v) for v in middle), size // 12, 1, -1)
    pixels[bar > 0] = (0.9, -0.8, -0.8)
    crop = Crop(torch.from_numpy(pixels).permute(2, 0, 1)[None], np.eye(3), mesh, mesh[:5, :2])
    shown = visible.Visibility(Reddish())(crop, size)
    room = np.ones((size // 24, size // 24))  # the square has fewer pixels than the picture
    core, rim = cv2.erode(bar, room), cv2.dilate(bar, room)
    assert shown.shape == (size, size) and shown[core > 0].max() < 0.1
    assert shown[rim == 0].min() > 0.9 and shown[0, 0] == 1
    half = visible.Visibility(Reddish())(crop, size // 2)
    assert half[cv2.resize(core, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) > 0].max() < 0.2


def test_network_keeps_size_and_needs_multiples_of_sixteen():
    network = visible.VisibleFace((8, 8, 8, 8))
    assert network(torch.zeros(2, 5, 64, 64)).shape == (2, 1, 64, 64)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 5, 41, 41))


def test_folded_network_says_the_same():
    torch.manual_seed(0)
    network = visible.VisibleFace((8, 8, 8, 8))
    x = torch.randn(2, 5, 64, 64)
    network(x)  # moves the statistics away from their start
    with torch.no_grad():
        before = network.eval()(x)
        assert torch.allclose(visible.fuse_norms(network)(x), before, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_degenerate_mesh_still_gives_a_square():
    assert np.isfinite(visible.square(np.zeros((468, 3)))).all()


def frame(shade: float) -> Crop:
    """A crop in one colour with a face in its middle."""
    mesh = face(128)
    return Crop(torch.full((1, 3, 128, 128), shade), np.eye(3), mesh, mesh[:5, :2])


class Counted(Reddish):
    """Counts its looks."""

    looks = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.looks += 1
        return super().forward(x)


def test_a_followed_face_is_looked_at_now_and_then():
    """By its own filter's count: what another face's filter remembers is not touched."""
    network = Counted()
    find = _inner(visible.Visibility(network))
    first, second = TemporalMatteFilter(), TemporalMatteFilter()
    for _ in range(9):
        find(frame(0.1), partial(first.visible, 3))
    assert network.looks == 3
    find(frame(0.1), partial(second.visible, 3))
    assert network.looks == 4, "another face"
    for _ in range(4):
        find(frame(0.1), None)
    assert network.looks == 8, "stills are always looked at"


def test_what_was_seen_moves_with_the_face():
    visibility, memory = visible.Visibility(Reddish()), TemporalMatteFilter()
    red = frame(-0.8)
    red.pixels[:, 0, 60:80, 56:72] = 0.9
    moved = frame(-0.8)  # nothing red any more, and the face a little to the right of the crop
    moved = replace(moved, mesh=moved.mesh + np.array([6.0, 0, 0]))
    first, second, third = (
        visibility.paint(memory.visible(2, lambda crop=crop: visibility.predict(crop)), crop, 128)
        for crop in (red, moved, moved)
    )
    assert first[70, 64] < 0.05 and second[70, 70] < 0.05 < 0.95 < second[70, 52]
    assert third.min() > 0.95, "looked at anew"


def test_after_a_gap_nothing_old_is_shown():
    memory = TemporalMatteFilter()
    memory.observe(topology().mean, 1 / 30)
    assert memory.visible(9, lambda: np.zeros((4, 4), np.float32)).max() == 0
    memory.observe(topology().mean, 1 / 30)
    assert memory.visible(9, lambda: np.ones((4, 4), np.float32)).max() == 0
    memory.observe(topology().mean, 60.0)
    assert memory.visible(9, lambda: np.ones((4, 4), np.float32)).min() == 1
