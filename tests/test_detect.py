"""Detection: decoding, suppression, rotated copies, bad input, and real faces where the weights are present."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mattface import detect, perception
from mattface.detect import Candidates, Detector, decode_centerface, decode_scrfd, plausible, suppress
from mattface.errors import UsageError
from mattface.vocabulary import Face

BOX = np.array([40.0, 30.0, 100.0, 110.0])
POINTS = np.array([[55.0, 60.0], [85.0, 60.0], [70.0, 75.0], [58.0, 92.0], [82.0, 92.0]])


def test_decode_centerface() -> None:
    heat, size, offset = np.zeros((1, 1, 40, 50), np.float32), np.zeros((1, 2, 40, 50)), np.zeros((1, 2, 40, 50))
    points = np.zeros((1, 10, 40, 50))
    centre = (BOX[:2] + BOX[2:]) / 2  # (70, 70): cell 17, 2 px into it, its middle
    heat[0, 0, 17, 17] = 0.8
    heat[0, 0, 3, 3] = 0.3
    size[0, :, 17, 17] = np.log((BOX[2:] - BOX[:2])[::-1] / 4)
    offset[0, :, 17, 17] = centre / 4 - 17.5
    points[0, :, 17, 17] = ((POINTS - BOX[:2]) / (BOX[2:] - BOX[:2]))[:, ::-1].ravel()
    found = decode_centerface(heat, size, offset, points)
    np.testing.assert_allclose(found.boxes, [BOX], atol=1e-9)
    np.testing.assert_allclose(found.points, [POINTS], atol=1e-9)
    np.testing.assert_allclose(found.scores, [0.8])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_decode_scrfd(level: int) -> None:
    height, width = 96, 160
    cells = [(height // s) * (width // s) * 2 for s in (8, 16, 32)]
    scores, sides, offsets = ([np.zeros((n, k), np.float32) for n in cells] for k in (1, 4, 10))
    stride = (8, 16, 32)[level]
    row, column = 64 // stride, 64 // stride
    index = (row * (width // stride) + column) * 2 + 1
    scores[level][index] = 0.9
    sides[level][index] = np.concatenate([64 - BOX[:2], BOX[2:] - 64]) / stride
    offsets[level][index] = ((POINTS - 64) / stride).ravel()
    found = decode_scrfd([*scores, *sides, *offsets], (height, width))
    np.testing.assert_allclose(found.boxes, [BOX], atol=1e-4)
    np.testing.assert_allclose(found.points, [POINTS], atol=1e-4)


def test_suppress_keeps_the_best_of_each_place() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40.0]])
    found = suppress(Candidates(boxes, np.array([0.6, 0.9, 0.7]), np.zeros((3, 5, 2))))
    assert found.scores.tolist() == [0.9, 0.7]


def test_plausible() -> None:
    assert plausible(POINTS)
    assert not plausible(POINTS * [-1, 1]), "mirrored"
    assert plausible(-POINTS), "upside down is plausible: the face is turned, not mirrored"
    assert not plausible(np.ones((5, 2)))


@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 225, 270])
def test_turn_keeps_every_corner(degrees: float) -> None:
    matrix, (height, width) = detect.turn((60, 100), degrees)
    corners = np.array([[0, 0], [100, 0], [0, 60], [100, 60]]) @ matrix[:2, :2].T + matrix[:2, 2]
    assert corners.min() > -1e-6
    assert (corners <= np.array([width, height]) + 1e-6).all()
    assert np.isclose(np.linalg.det(matrix), 1)


def test_turned_copies_map_back() -> None:
    """A network that sees a face only when a red dot is left of a green one, in a picture where it is below."""

    def network(rgb: np.ndarray) -> Candidates:
        where = [
            np.argwhere(rgb[..., k] > 128).mean(0)[::-1] + 0.5 if (rgb[..., k] > 128).any() else None for k in (0, 1)
        ]
        if where[0] is None or where[1] is None:
            return Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        across = where[1] - where[0]
        if across[0] < 0.95 * np.hypot(*across):
            return Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        down = np.array([-across[1], across[0]])
        middle = (where[0] + where[1]) / 2 + down / 2
        points = np.stack([where[0], where[1], middle, where[0] + down, where[1] + down])
        return Candidates(np.array([[*points.min(0), *points.max(0)]]), np.array([0.9]), points[None])

    rgb = np.zeros((200, 240, 3), np.uint8)
    rgb[148:153, 58:63, 0] = 255  # red below green: the face lies on its side
    rgb[88:93, 58:63, 1] = 255
    (face,) = Detector("test", network)(rgb)
    np.testing.assert_allclose(face.points[:2], [[60.5, 150.5], [60.5, 90.5]], atol=0.6)
    np.testing.assert_allclose(face.points[3:], [[120.5, 150.5], [120.5, 90.5]], atol=1.5)
    np.testing.assert_allclose(face.box, [60.5, 90.5, 120.5, 150.5], atol=2)


def test_faces_that_fill_the_picture_are_found_in_a_smaller_copy() -> None:
    def network(rgb: np.ndarray) -> Candidates:
        if max(rgb.shape) > 352:
            return Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        return Candidates(BOX[None], np.array([0.9]), POINTS[None])

    picture = np.zeros((480, 640, 3), np.uint8)
    (face,) = Detector("smaller", network)(picture)
    np.testing.assert_allclose(face.box, BOX * 2)
    np.testing.assert_allclose(face.points, POINTS * 2)
    assert Detector("smaller", network)(picture, thorough=False) == []


def test_quick_look_is_one_look() -> None:
    shapes = []

    def network(rgb: np.ndarray) -> Candidates:
        shapes.append(rgb.shape)
        return Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))

    picture = np.zeros((480, 1000, 3), np.uint8)
    assert Detector("test", network)(picture, thorough=False) == []
    assert shapes == [(320, 640, 3)], "640 wide, sides padded to multiples of 32"
    assert Detector("test", network)(picture) == []
    assert len(shapes) == 1 + len(detect.SIDES) + 7


@pytest.mark.parametrize(
    "bad",
    [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
    ids=["grey", "rgba", "float"],
)
def test_wrong_arrays_are_rejected(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="HxWx3 uint8"):
        Detector("test", lambda rgb: pytest.fail("must not run"))(bad)


def test_unknown_detector() -> None:
    with pytest.raises(UsageError, match="centerface"):
        perception.load("detector", "viola-jones")


def test_available_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    states = {one.part: (one.usable, one.note) for one in detect.available()}
    assert list(states) == ["face-analysis", "scrfd", "centerface"]
    assert not states["centerface"][0]
    assert "mattface weights pull centerface" in states["centerface"][1]


# with the real network


@pytest.fixture(scope="module")
def find(need: Callable[..., None]) -> Detector:
    need("centerface")
    return perception.load("detector", "centerface")


def eyes_of(face: Face) -> np.ndarray:
    return face.points[:2]


ASTRONAUT_EYES = np.array([[203.0, 101.0], [246.0, 104.0]])
HOPPER_EYES = np.array([[219.0, 192.0], [306.0, 187.0]])
"""Pupils, read off the photographs by eye."""


def test_photographs(find: Detector, astronaut: np.ndarray, hopper: np.ndarray) -> None:
    for rgb, eyes in ((astronaut, ASTRONAUT_EYES), (hopper, HOPPER_EYES)):
        (face,) = find(rgb)
        assert face.score > 0.6
        assert np.abs(eyes_of(face) - eyes).max() < 0.15 * (eyes[1] - eyes[0])[0], "coarse; the mesh refines it"
        assert plausible(face.points)


@pytest.mark.parametrize("degrees", [45, 90, 135, 180, 270])
def test_turned_pictures(find: Detector, astronaut: np.ndarray, degrees: float) -> None:
    import cv2

    matrix, shape = detect.turn(astronaut.shape[:2], degrees)
    faces = find(cv2.warpAffine(astronaut, matrix[:2], shape[::-1]))
    assert len(faces) == 1
    middle = ASTRONAUT_EYES.mean(0) @ matrix[:2, :2].T + matrix[:2, 2]
    inside = (faces[0].box[:2] < middle) & (middle < faces[0].box[2:])
    assert inside.all()


@pytest.mark.parametrize("width", [20, 28, 60])
def test_small_faces(find: Detector, astronaut: np.ndarray, width: int) -> None:
    import cv2

    factor = width / 90  # the face is about 90 px wide
    small = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    (face,) = find(small)
    assert np.abs(eyes_of(face) - ASTRONAUT_EYES * factor).max() < 0.15 * width
    field = np.full((700, 1400, 3), 90, np.uint8)
    field[200 : 200 + small.shape[0], 900 : 900 + small.shape[1]] = small
    (face,) = find(field)
    assert np.abs(eyes_of(face) - ASTRONAUT_EYES * factor - [900, 200]).max() < 0.2 * width


def test_largest_first(find: Detector, astronaut: np.ndarray) -> None:
    small = astronaut[::2, ::2]
    both = np.zeros((512, 800, 3), np.uint8)
    both[:256, :256], both[:, 288:] = small, astronaut
    faces = find(both)
    assert len(faces) == 2
    assert eyes_of(faces[0])[0, 0] > 288 > eyes_of(faces[1])[0, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (480, 640)])
def test_nothing_to_find(find: Detector, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert find(noise) == []
    assert find(np.zeros((*shape, 3), np.uint8)) == []
