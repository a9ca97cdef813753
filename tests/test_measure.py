"""Measures: known rotations, shifts, seams, blurs, lights, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Callable

import cv2
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


def textured(side: int = 128) -> np.ndarray:
    """(side, side, 3) uint8 noise with detail at every size."""
    rng = np.random.default_rng(3)
    layers = [cv2.resize(rng.normal(0, 20, (side // k, side // k, 3)), (side, side)) for k in (1, 2, 4, 8, 16)]
    return np.clip(128 + sum(layers), 0, 255).astype(np.uint8)


def disc(side: int = 128, radius: float = 40) -> np.ndarray:
    """(side, side) float32 matte: 1 within a circle, 0 outside."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    return (np.hypot(x - side / 2, y - side / 2) < radius).astype(np.float32)


def test_octaves_see_a_blur_where_it_is() -> None:
    target, matte = textured(), disc()
    blurred = cv2.GaussianBlur(target, (0, 0), 1.0)
    same, less = (measure.octave_energy(r, target, matte) for r in (target, blurred))
    assert list(same) == ["64-128", "32-64", "16-32", "8-16"]
    np.testing.assert_allclose(list(same.values()), 1)
    assert less["64-128"] < 0.2 and 0.95 < less["8-16"] < 1.02
    outside = np.where(matte[..., None] > 0, target, blurred)
    assert measure.octave_energy(outside, target, disc(radius=30))["64-128"] == pytest.approx(1, abs=0.02)


def test_clipped_skin_counts_both_ends() -> None:
    picture, skin = np.full((10, 10, 3), 120, np.uint8), np.ones((10, 10), np.float32)
    assert measure.clipped_share(picture, skin) == 0
    picture[0, :5] = (255, 200, 190)  # one blown channel is enough
    picture[1, :3] = (25, 10, 3)  # crushed: all of them
    picture[2, :4] = (120, 10, 3)  # dark skin is not
    assert measure.clipped_share(picture, skin) == pytest.approx(8)
    skin[0] = 0
    assert measure.clipped_share(picture, skin) == pytest.approx(100 * 3 / 90)
    assert measure.clipped_share(picture, np.zeros_like(skin)) == 0


def test_psnr_is_that_of_the_definition_inside_the_matte_alone() -> None:
    truth, matte = np.full((8, 8, 3), 100, np.uint8), np.zeros((8, 8), np.float32)
    matte[:4] = 1
    result = truth.copy()
    result[4:] = 0
    assert measure.psnr(result, truth, matte) == 99
    result[:4] = 110
    assert measure.psnr(result, truth, matte) == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)


def test_light_error_sees_light_and_not_detail() -> None:
    truth, matte = np.full((128, 128, 3), 120, np.uint8), disc()
    brighter = np.where(matte[..., None] > 0, truth + 12, 0).astype(np.uint8)
    assert measure.light_error(brighter, truth, matte, 6) == pytest.approx(12, rel=0.01)
    grain = np.clip(truth + np.random.default_rng(0).normal(0, 12, truth.shape), 0, 255).astype(np.uint8)
    assert measure.light_error(grain, truth, matte, 6) < 1.5


def test_structure_loss_grows_with_blur() -> None:
    truth, matte = textured(), disc()
    losses = [measure.structure_loss(cv2.GaussianBlur(truth, (0, 0), s), truth, matte) for s in (0.6, 1.2, 3.0)]
    assert measure.structure_loss(truth, truth, matte) == pytest.approx(0, abs=1e-6)
    assert 0.01 < losses[0] < losses[1] < losses[2] < 1


def test_feature_distance_grows_with_blur_and_ignores_what_is_outside(need: Callable[..., None]) -> None:
    need("centerface")
    pytest.importorskip("onnx", reason="onnx is not installed")
    truth, matte = textured(), disc()
    distances = [measure.feature_distance(cv2.GaussianBlur(truth, (0, 0), s), truth, matte) for s in (0.6, 1.2, 3.0)]
    assert measure.feature_distance(truth, truth, matte) == 0
    assert 0 < distances[0] < distances[1] < distances[2] < 4
    far = truth.copy()
    far[:8, :8] = 0
    assert measure.feature_distance(far, truth, disc(radius=20)) < distances[0] / 10


def test_kept_share_needs_both_a_thin_matte_and_the_target() -> None:
    target, matte = np.full((10, 10, 3), 90, np.uint8), np.zeros((10, 10), np.float32)
    occluder = np.zeros((10, 10), np.float32)
    occluder[:5] = 1
    result = target.copy()
    matte[0], result[0] = 0.9, 180  # painted over
    matte[1], result[1] = 0.3, 120  # half seen through
    matte[2], result[2] = 0.3, 95  # hardly changed
    assert measure.kept_share(result, target, matte, occluder) == {"outside": 80.0, "kept": 60.0}
    assert measure.kept_share(result, target, matte, np.zeros_like(occluder)) == {"outside": 100.0, "kept": 100.0}


def test_expression_difference_is_a_distance() -> None:
    a, b = np.zeros(53), np.zeros(53)
    b[[3, 7]] = 0.3, 0.4
    assert measure.expression_difference(a, b) == pytest.approx(0.5)


def test_intervals_hold_the_mean_and_shrink_with_more_values() -> None:
    rng = np.random.default_rng(1)
    few, many = (measure.summary(rng.normal(5, 1, n).tolist()) for n in (20, 2000))
    assert few["low"] < few["mean"] < few["high"] and many["low"] < 5.05 and many["high"] > 4.95
    assert 0.07 < many["high"] - many["low"] < 0.11  # 2 x 1.96 / sqrt(2000)
    assert few["high"] - few["low"] > 5 * (many["high"] - many["low"])


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    found = [measure.summary(rng.normal(0, 1, 60).tolist()) for _ in range(150)]
    share = np.mean([one["low"] < 0 < one["high"] for one in found])
    assert 0.88 < share < 0.99


def test_summaries_count_what_is_missing_and_average_ratios_geometrically() -> None:
    one = measure.summary([1.0, float("nan"), 4.0], geometric=True)
    assert one["mean"] == pytest.approx(2) and one["count"] == 2 and one["missing"] == 1
    assert measure.summary([float("nan")])["mean"] is None
    assert measure.paired([2.0, 6.0], [1.0, 12.0], geometric=True)["mean"] == pytest.approx(1)


def test_paired_differences_are_surer_than_their_parts() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(0, 1, 100)
    better = base + 0.05 + rng.normal(0, 0.02, 100)
    found = measure.paired(better.tolist(), base.tolist())
    assert 0.03 < found["low"] < found["high"] < 0.07
    alone = measure.summary(better.tolist())
    assert alone["high"] - alone["low"] > 0.3
