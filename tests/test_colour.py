"""Light matching: known light is undone, hair is not skin, and white stays white."""

from __future__ import annotations

import cv2
import numpy as np

from mattface import light as lighting
from mattface.gaussian import blur

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
    lights = [lighting.measure_light(p, ones(), 10.0) for p in (source, target)]
    wanted = lighting.limit_change(lights[0].colour, lights[1].colour, ones(), 0.9)
    matched = lighting.relight_skin(source, lights[0].colour, wanted)
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(matched[inner] - target[inner]).mean() < 0.02
    assert np.abs(source[inner] - target[inner]).mean() > 0.1


def test_hair_is_an_outlier_and_does_not_darken_the_skin() -> None:
    covered = skin()
    covered[:, :30] *= 0.15
    light = lighting.measure_light(covered, ones(), 12.0)
    assert np.median(light.outlier[:, :20]) > 2 * np.median(light.outlier[:, 60:])
    assert np.abs(light.colour[:, 60:] - [0.75, 0.55, 0.45]).max() < 0.05


def test_only_outliers_that_reach_the_border_count_as_covering() -> None:
    outlier, face = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    face[8:56, 8:56] = 1
    outlier[8:20, 8:56] = 3  # a fringe
    outlier[36:42, 26:36] = 3  # a brow or a mole
    found = lighting.reach_from_outside(outlier, face, 1.2, 2.0)
    assert found[14, 30] == 1 and found[39, 30] == 0


def test_black_and_white_stay_and_skin_becomes_the_other_skin() -> None:
    source = np.full((4, 4, 3), (0.3, 0.2, 0.15), np.float32)
    target = np.full((4, 4, 3), (0.85, 0.65, 0.55), np.float32)
    np.testing.assert_allclose(lighting.relight_skin(source, source, target), target, atol=0.01)
    black, white = np.zeros_like(source), np.ones_like(source)
    assert lighting.relight_skin(black, source, target, steepest=99.0).max() < 0.02
    assert lighting.relight_skin(white, source, target).min() > 0.95


def test_a_darker_target_does_not_invert_or_clip() -> None:
    source, target = np.full((1, 11, 3), 0.7, np.float32), np.full((1, 11, 3), 0.2, np.float32)
    ramp = np.linspace(0, 1, 11, dtype=np.float32)[None, :, None].repeat(3, -1)
    result = lighting.relight_skin(ramp, source, target)[0, :, 0]
    assert (np.diff(result) >= 0).all() and result[0] < 0.02 and result[7] < 0.25


def test_the_local_difference_is_bounded_around_the_overall_one() -> None:
    source, target = np.full((8, 8, 3), 0.5), np.full((8, 8, 3), 0.5)
    target[0, 0] = 0.01
    wanted = lighting.limit_change(source, target, np.ones((8, 8)), 0.5)
    assert 0.5 * np.exp(-0.6) < wanted[0, 0, 0] < 0.5 * np.exp(-0.4)


def test_stains_of_hue_in_dark_skin_do_not_stain_the_change_of_light() -> None:
    source, target = skin((0.25, 0.16, 0.12)), skin((0.85, 0.68, 0.58))
    source[40:70, 90:110] = (0.10, 0.14, 0.06)  # a dark corner that went green
    lights = [lighting.measure_light(p, ones(), 10.0) for p in (source, target)]
    wanted = lighting.limit_change(lights[0].colour, lights[1].colour, ones(), 0.9)
    change = np.log(wanted / lights[0].colour)
    hue = change - change.mean(-1, keepdims=True)
    assert np.ptp(hue, axis=(0, 1)).max() < 0.05


def test_a_tilt_of_hue_is_found_and_bounded() -> None:
    x = np.linspace(-1, 1, SIDE)[None, :, None]
    for tilt, lowest, highest in ((0.05, 0.07, 0.1), (1.0, 0.15, 2 * lighting.HUE_TILT)):
        log = np.tile(tilt * x * np.array([1.0, 0.0, -1.0]), (SIDE, 1, 1))
        red = lighting.hue_plane(log, ones())[..., 0]
        assert lowest < red[:, -1].mean() - red[:, 0].mean() <= highest
        assert np.abs(red[0] - red[-1]).max() < 1e-5


def test_lightened_skin_keeps_gentle_detail_and_dark_hair() -> None:
    light = np.linspace(0, 1, 201)[None]
    skin_, wanted = np.full_like(light, 0.25), np.full_like(light, 0.75)
    curve = lighting.tone(light, skin_, wanted, 1.3)[0]
    assert (np.diff(curve) >= 0).all() and curve[0] < 0.01 and curve[-1] > 0.99
    assert np.interp(0.25, light[0], curve) - np.interp(0.22, light[0], curve) < 0.06  # a plain factor gives 0.09
    assert np.interp(0.05, light[0], curve) < 0.35


def test_sheen_on_lightened_skin_takes_the_skins_colour() -> None:
    share = np.array([0.0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(lighting.blush(share, np.full(4, 3.0)), [0, 0.75, 1, 1 + 0.5 / 3], atol=1e-6)
    np.testing.assert_allclose(lighting.blush(share, np.ones(4)), share, atol=1e-6)


def test_a_wide_blur_at_low_resolution_is_the_same_blur() -> None:
    values = np.random.default_rng(0).random((128, 96)).astype(np.float32)
    for sigma in (0.1, 1.0, 7.0, 25.0):
        exact = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) if sigma > 0.3 else values
        off = np.abs(blur(values, sigma) - exact)
        assert off.max() < 0.03 and off.mean() < 0.004  # most of it at the corners
