"""Light matching: known light is undone, hair is not skin, and white stays white."""

from __future__ import annotations

import numpy as np

from mattface import colour

SIDE = 128


def skin(colour_: tuple[float, float, float] = (0.75, 0.55, 0.45), seed: int = 0) -> np.ndarray:
    """A flat patch with fine grain."""
    rng = np.random.default_rng(seed)
    return np.clip(np.array(colour_) * (1 + 0.05 * rng.standard_normal((SIDE, SIDE, 1))), 0, 1).astype(np.float32)


def ones() -> np.ndarray:
    return np.ones((SIDE, SIDE), np.float32)


def test_matching_a_face_to_its_own_darker_copy_gives_that_copy() -> None:
    x = np.linspace(1.0, 0.55, SIDE, dtype=np.float32)[None, :, None]
    source, target = skin(), skin() * x
    lights = [colour.measure_light(p, ones(), 10.0) for p in (source, target)]
    wanted = colour.limited(lights[0].colour, lights[1].colour, ones(), 0.9)
    matched = colour.relight(source, lights[0].colour, wanted)
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(matched[inner] - target[inner]).mean() < 0.02
    assert np.abs(source[inner] - target[inner]).mean() > 0.1


def test_hair_is_an_outlier_and_does_not_darken_the_skin() -> None:
    covered = skin()
    covered[:, :30] *= 0.15
    light = colour.measure_light(covered, ones(), 12.0)
    assert np.median(light.outlier[:, :20]) > 2 * np.median(light.outlier[:, 60:])
    assert np.abs(light.colour[:, 60:] - [0.75, 0.55, 0.45]).max() < 0.05


def test_only_outliers_that_reach_the_border_count_as_covering() -> None:
    outlier, face = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    face[8:56, 8:56] = 1
    outlier[8:20, 8:56] = 3  # a fringe
    outlier[36:42, 26:36] = 3  # a brow or a mole
    found = colour.reached(outlier, face, 1.2, 2.0)
    assert found[14, 30] == 1 and found[39, 30] == 0


def test_black_and_white_stay_and_skin_becomes_the_other_skin() -> None:
    source = np.full((4, 4, 3), (0.3, 0.2, 0.15), np.float32)
    target = np.full((4, 4, 3), (0.85, 0.65, 0.55), np.float32)
    np.testing.assert_allclose(colour.relight(source, source, target), target, atol=0.01)
    black, white = np.zeros_like(source), np.ones_like(source)
    assert colour.relight(black, source, target, steepest=99.0).max() < 0.02
    assert colour.relight(white, source, target).min() > 0.95


def test_a_darker_target_does_not_invert_or_clip() -> None:
    source, target = np.full((1, 11, 3), 0.7, np.float32), np.full((1, 11, 3), 0.2, np.float32)
    ramp = np.linspace(0, 1, 11, dtype=np.float32)[None, :, None].repeat(3, -1)
    result = colour.relight(ramp, source, target)[0, :, 0]
    assert (np.diff(result) >= 0).all() and result[0] < 0.02 and result[7] < 0.25


def test_the_local_difference_is_bounded_around_the_overall_one() -> None:
    source, target = np.full((8, 8, 3), 0.5), np.full((8, 8, 3), 0.5)
    target[0, 0] = 0.01
    wanted = colour.limited(source, target, np.ones((8, 8)), 0.5)
    assert 0.5 * np.exp(-0.6) < wanted[0, 0, 0] < 0.5 * np.exp(-0.4)
