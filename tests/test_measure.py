"""Measures: known rotations, known shifts, known seams."""

from __future__ import annotations

import numpy as np
import pytest

from mattface import measure
from mattface.mesh import topology


def about(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix about an axis of x right, y down, z away."""
    a = np.deg2rad(degrees)
    c, s = np.cos(a), np.sin(a)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]),
    }[axis]


def posed(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The mean face in pixels: first leaned, then bowed, then turned."""
    turn = about("y", yaw) @ about("x", pitch) @ about("z", roll)
    return topology().mean @ turn.T * 140 + [300, 200, 50]


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 20, 0), (0, -15, 0), (0, 0, 25), (25, 10, -20), (-60, -10, 170)]
)
def test_pose_is_recovered(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(measure.pose(posed(*angles), topology().mean), angles, atol=1e-3)


def test_signs_of_the_pose_are_what_the_docstring_says() -> None:
    frontal = posed(0, 0, 0)
    right, down = posed(30, 0, 0), posed(0, 20, 0)
    assert right[1, 0] - right[:, 0].mean() > frontal[1, 0] - frontal[:, 0].mean() + 20  # nose tip moves right
    assert down[1, 1] - down[:, 1].mean() > frontal[1, 1] - frontal[:, 1].mean() + 20
    clockwise = posed(0, 0, 20)
    assert clockwise[263, 1] > clockwise[33, 1]  # the eye on the right is lower


def test_pose_difference_goes_the_shorter_way() -> None:
    assert measure.pose_difference(np.array([0, 0, 179.0]), np.array([0, 0, -179.0])) == pytest.approx(2)
    assert measure.pose_difference(np.array([3.0, 4.0, 0]), np.zeros(3)) == pytest.approx(5)


def test_landmark_shift_is_relative_to_the_eyes() -> None:
    target = posed(0, 0, 0)
    eyes = np.linalg.norm(target[33, :2] - target[263, :2])
    assert measure.landmark_shift(target + np.array([0.05 * eyes, 0, 99]), target) == pytest.approx(5)


def test_identity_and_retrieval() -> None:
    gallery = np.eye(4, 8)
    results = gallery[[0, 1, 2, 3]] * 3 + 0.1
    assert measure.retrieval(results, gallery, np.array([0, 1, 2, 3])) == 1
    assert measure.retrieval(results, gallery, np.array([0, 1, 3, 2])) == 0.5
    assert measure.identity_cosine(gallery[0] * 5, gallery[0]) == pytest.approx(1)
    np.testing.assert_allclose(measure.identity_cosine(gallery[:2], -gallery[1:3]), [0, 0])


def test_background_change_sees_one_wrong_value() -> None:
    target = np.zeros((8, 8, 3), np.uint8)
    matte = np.zeros((8, 8), np.float32)
    matte[2:5, 2:5] = 1
    result = target.copy()
    result[3, 3] = 200
    assert measure.background_change(result, target, matte) == 0
    result[7, 7, 1] = 3
    assert measure.background_change(result, target, matte) == 3


def test_seam_score_tells_a_hard_edge_from_a_soft_one() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(100, 140, (96, 96, 3)).astype(np.uint8)
    y, x = np.mgrid[0:96, 0:96]
    radius = np.hypot(y - 48, x - 48)
    hard, soft = (np.clip((30 - radius) / width, 0, 1).astype(np.float32) for width in (1, 15))
    scores = []
    for matte in (hard, soft):
        result = np.rint(target + 60 * matte[..., None]).astype(np.uint8)
        scores.append(measure.seam_score(result, target, matte))
    assert measure.seam_score(target, target, soft) == 0
    assert scores[0] > 1 and scores[1] < scores[0] / 3
