"""Dense landmarks: names of points, the network's square, rotation, tracking, sparse heat maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mattface import landmarks, perception
from mattface.data import topology
from mattface.detect import turn
from mattface.errors import UsageError
from mattface.landmarks import Landmarker, decode_heatmaps, five_points, sample, square
from mattface.vocabulary import Face

RINGS = ("LEFT_EYE", "RIGHT_EYE", "LEFT_BROW", "RIGHT_BROW", "LIPS_OUTER", "LIPS_INNER", "FACE_OVAL")


@pytest.mark.parametrize("name", [*RINGS, "SIXTY_EIGHT", "NOSE_BRIDGE", "NOSE_BASE"])
def test_lists_of_points(name: str) -> None:
    points = getattr(topology, name)
    assert len(set(points)) == len(points)
    assert 0 <= min(points) <= max(points) < 468
    if name == "SIXTY_EIGHT":
        assert len(points) == 68


def test_square_and_back() -> None:
    matrix = square(np.array([100.0, 50.0]), 80.0, np.pi / 6)
    middle = matrix @ [100, 50, 1]
    np.testing.assert_allclose(middle[:2], landmarks.SIDE / 2)
    along = matrix @ [100 + 40 * np.cos(np.pi / 6), 50 + 40 * np.sin(np.pi / 6), 1]
    np.testing.assert_allclose(along[:2], [landmarks.SIDE, landmarks.SIDE / 2])


@pytest.mark.parametrize("side", [90.0, 192.0, 700.0])
def test_sample_is_sub_pixel_right(side: float) -> None:
    """On a picture whose colour is its own coordinate, the square's colour is the coordinate it came from."""
    y, x = np.mgrid[0:1000, 0:1000]
    ramp = np.stack([x / 4, y / 4, 0 * x], -1).astype(np.uint8)
    matrix = square(np.array([480.3, 520.8]), side, 0.4)
    out = sample(ramp, matrix)[..., :2] * 255 * 4
    v, u = np.mgrid[0 : landmarks.SIDE, 0 : landmarks.SIDE] + 0.5
    back = np.stack([u - matrix[0, 2], v - matrix[1, 2]], -1) @ np.linalg.inv(matrix[:2, :2]).T
    error = out - (back - 0.5 - 1.5)  # rounding down to multiples of four loses 1.5 on average
    assert np.abs(error.mean((0, 1))).max() < 0.6
    assert np.abs(error).max() < 4.5


def test_heat_map_peaks() -> None:
    heat = np.zeros((2, 8, 8))
    heat[0, 3, 5], heat[0, 3, 6] = 1, 0.5
    heat[1, 0, 7] = 1
    np.testing.assert_allclose(decode_heatmaps(heat), [[5.75, 3.5], [7.5, 0.5]], atol=0.26)
    np.testing.assert_allclose(decode_heatmaps(heat)[0], [5.75, 3.5])


def test_sparse_points_take_over() -> None:
    """With a sparse network the five points come from its 68 landmarks, mapped back to the picture."""
    mesh = np.random.default_rng(1).uniform(0, 1, (468, 3)) * [60, 80, 20] + [200, 150, 0]
    known = np.random.default_rng(2).uniform(60, 190, (68, 2))
    part = Landmarker("fan", lambda image: (mesh * 0 + 96, 40.0), lambda image: known)
    points = part._points(np.zeros((400, 500, 3), np.uint8), mesh)
    matrix = landmarks.fan_square(mesh)
    np.testing.assert_allclose(points[2] @ matrix[:2, :2].T + matrix[:2, 2], known[30])
    np.testing.assert_allclose(points[0] @ matrix[:2, :2].T + matrix[:2, 2], known[36:42].mean(0))


def test_unknown_landmarker() -> None:
    with pytest.raises(UsageError, match="face-mesh"):
        perception.load("landmarks", "dlib")


# with the real network


@pytest.fixture(scope="module")
def measure(need: Callable[..., None]) -> Landmarker:
    need("centerface", "face-mesh")
    return perception.load("landmarks", "face-mesh")


def eye_distance(face: Face) -> float:
    return float(np.hypot(*(face.points[1] - face.points[0])))


PUPILS = {"astronaut": [[203.0, 101.0], [246.0, 104.0]], "hopper": [[219.0, 192.0], [306.0, 187.0]]}
"""Read off the photographs by eye."""


def test_photographs(faces: dict[str, tuple[np.ndarray, Face]]) -> None:
    for name, (_, face) in faces.items():
        assert np.abs(face.points[:2] - PUPILS[name]).max() < 0.06 * eye_distance(face)
        assert face.mesh is not None and face.mesh.shape == (468, 3)
        assert face.presence is not None and face.presence > 0.99
        np.testing.assert_allclose(face.points, five_points(face.mesh))
        brow, chin = face.mesh[list(topology.LEFT_BROW), 1].mean(), face.mesh[topology.CHIN, 1]
        assert brow < face.points[0, 1] < face.points[2, 1] < face.points[3, 1] < chin
        assert face.mesh[1, 2] < face.mesh[list(topology.FACE_OVAL), 2].mean(), "the nose is nearer than the rim"


@pytest.mark.parametrize("degrees", [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330])
def test_turned_pictures(measure: Landmarker, faces: dict, degrees: float) -> None:
    """Detection and landmarks together: the mesh turns with the picture."""
    import cv2

    find = perception.load("detector", "centerface")
    for rgb, upright in faces.values():
        matrix, shape = turn(rgb.shape[:2], degrees)
        turned = cv2.warpAffine(rgb, matrix[:2], shape[::-1])
        face = measure(turned, find(turned)[0])
        expected = upright.mesh[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
        error = np.hypot(*(face.mesh[:, :2] - expected).T).mean() / eye_distance(upright)
        assert error < 0.05, f"{error:.3f} of the eye distance"


@pytest.mark.parametrize("shift", [0, 45, 90, 135, 180, 225, 270, 315])
def test_wrong_start_is_corrected(measure: Landmarker, faces: dict, shift: float) -> None:
    """Five points that claim another rotation: the surest of eight squares is followed."""
    for rgb, face in faces.values():
        angle = np.deg2rad(shift)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = face.points.mean(0)
        wrong = replace(face, mesh=None, presence=None, points=(face.points - middle) @ rotation + middle)
        again = measure(rgb, wrong)
        error = np.hypot(*(again.mesh - face.mesh)[:, :2].T).mean() / eye_distance(face)
        assert error < 0.05, f"{error:.3f} of the eye distance"


def test_tracking_needs_one_look(measure: Landmarker, faces: dict) -> None:
    rgb, face = faces["astronaut"]
    calls = []

    def counted(image: np.ndarray) -> tuple[np.ndarray, float]:
        calls.append(1)
        return measure.network(image)

    again = Landmarker("face-mesh", counted)(rgb, face, passes=1)
    assert len(calls) == 1
    assert np.hypot(*(again.mesh - face.mesh)[:, :2].T).mean() < 0.04 * eye_distance(face)


def test_no_face_has_no_presence(measure: Landmarker) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    points = np.array([[120.0, 120], [180, 120], [150, 150], [125, 180], [175, 180]])
    assert measure(noise, Face(np.array([90.0, 80, 210, 220]), 0.9, points)).presence < 0.5


def test_face_at_the_very_edge(measure: Landmarker, faces: dict) -> None:
    """A square that leaves the picture, and one wholly outside, give finite numbers."""
    rgb, face = faces["astronaut"]
    half = np.ascontiguousarray(rgb[:, int(face.points[:2, 0].mean()) :])
    shifted = replace(face, mesh=None, points=face.points - [face.points[:2, 0].mean(), 0])
    for moved in (shifted, replace(shifted, box=shifted.box - 4000, points=shifted.points - 4000)):
        assert np.isfinite(measure(half, moved).mesh).all()


def test_agrees_with_68_landmarks_of_portraits(measure: Landmarker, shared) -> None:
    """The list of 68 stands for the right points: mean distance on six portraits, in outer-eye distances."""
    import cv2

    golden = np.load(shared / "goldens" / "ffhq_alignment.npz")
    find = perception.load("detector", "centerface")
    errors = []
    for name, expected in list(zip(golden["portraits"], golden["landmarks"], strict=True))[::5]:
        rgb = np.ascontiguousarray(cv2.imread(str(shared / "data" / "portraits" / str(name)))[:, :, ::-1])
        mesh = measure(rgb, find(rgb)[0]).mesh
        distance = np.hypot(*(mesh[list(topology.SIXTY_EIGHT), :2] - 0.5 - expected).T)
        errors.append(distance / np.hypot(*(expected[36] - expected[45])))
    mean = np.mean(errors, axis=0)
    assert mean[17:].max() < 0.1
    assert mean[:17].max() < 0.2
