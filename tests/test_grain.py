"""Matching of sharpness and grain: towards the picture's own, bounded, and nothing outside the matte."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pytest
import torch

from mattface import grain, paste
from mattface.cli.swap import _share
from mattface.errors import UsageError
from mattface.measure.pictures import octave_energy
from mattface.pipeline import Swapper
from mattface.vocabulary import Picture, Swap

SIDE = 256


def scene(noise: float, seed: int = 0, blur: float = 0.0) -> np.ndarray:
    """(SIDE, SIDE, 3) float32: a slow gradient with dark strokes as eyes and mouth, out of focus, and noise on it."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    grey = (0.45 + 0.2 * np.sin(x / 90) * np.cos(y / 70)).astype(np.float32)
    image = np.stack([1.1 * grey, 0.9 * grey, 0.75 * grey], -1)
    for centre in ((90, 100), (166, 100), (128, 180)):
        cv2.ellipse(image, centre, (22, 7), 0, 0, 360, (0.12, 0.1, 0.1), -1, cv2.LINE_AA)
        for k in range(-3, 4):
            cv2.line(image, (centre[0] + 6 * k, centre[1] - 10), (centre[0] + 7 * k, centre[1] - 16), (0.15,) * 3, 1)
    image = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    wave = np.random.default_rng(seed).normal(0, noise, (SIDE, SIDE, 1))
    return np.clip(image + wave, 0, 1).astype(np.float32)


def disc(radius: float = 100.0, soft: float = 8.0) -> np.ndarray:
    """(SIDE, SIDE) float32 matte, 1 in the middle."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / soft, 0, 1).astype(np.float32)


def laid(swapped: np.ndarray, target: np.ndarray, matte: np.ndarray) -> np.ndarray:
    return target + matte[..., None] * (swapped - target)


def finest(image: np.ndarray, target: np.ndarray) -> float:
    return next(iter(octave_energy(image, target, (disc() > 0.9).astype(np.float32)).values()))


@pytest.mark.parametrize(("swapped", "target"), [((0.01, 1.0), (0.02, 0.0)), ((0.02, 0.0), (0.004, 1.2))])
def test_detail_moves_towards_the_pictures(swapped: tuple[float, float], target: tuple[float, float]) -> None:
    own = scene(target[0], 1, target[1])
    face = laid(scene(swapped[0], 2, swapped[1]), own, disc())
    before, after = (finest(image, own) for image in (face, grain.match(face, own, disc())))
    assert abs(np.log(after)) < 0.4 * abs(np.log(before))


def test_a_face_that_fits_is_left_alone() -> None:
    own = scene(0.01, 1)
    face = laid(scene(0.01, 2), own, disc())
    assert np.abs(grain.match(face, own, disc()) - face).max() < 0.02
    np.testing.assert_allclose(grain.match(own, own, disc()), own, atol=1e-6)


def test_skin_and_eyes_are_judged_apart() -> None:
    """A picture with smoothed skin and crisp eyes: the face loses its grain and keeps its eyes."""
    own, matte = scene(0.002, 1), disc()
    face = laid(scene(0.03, 2), own, matte)
    change = grain.match(face, own, matte) - scene(0.0)
    eyes, skin = (slice(80, 108), slice(70, 110)), (slice(120, 160), slice(100, 160))
    assert change[skin].std() < 0.5 * (face - scene(0.0))[skin].std()
    level = [float(np.abs(cv2.Laplacian(image[eyes].mean(-1), cv2.CV_32F)).max()) for image in (scene(0.0), face)]
    after = float(np.abs(cv2.Laplacian(grain.match(face, own, matte)[eyes].mean(-1), cv2.CV_32F)).max())
    assert after > 0.7 * min(level)


def enlarged(times: int) -> np.ndarray:
    """The scene from a small JPEG."""
    small = cv2.resize(scene(0.01, 2), (SIDE // times,) * 2, interpolation=cv2.INTER_AREA)
    code = cv2.imencode(".jpg", np.rint(small * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    read = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert read is not None
    return cv2.resize(read.astype(np.float32) / 255, (SIDE, SIDE))


def test_an_enlarged_source_gets_the_pictures_grain_and_its_blocks_are_not_amplified() -> None:
    own, matte = scene(0.02, 1), disc()
    face = laid(enlarged(6), own, matte)
    result = grain.match(face, own, matte)
    skin = slice(120, 160), slice(100, 156)
    before, after, wanted = (float(grain.split(i.mean(-1))[0][skin].std()) for i in (face, result, own))
    assert before < 0.2 * wanted and 0.6 * wanted < after < 1.2 * wanted
    coarse = [grain.split(cv2.pyrDown(cv2.pyrDown(i.mean(-1))))[0][26:44, 16:48] for i in (face, result)]
    assert coarse[1].std() < 1.1 * coarse[0].std()


def test_no_feature_of_the_picture_shows_through() -> None:
    own, matte = scene(0.01, 1), disc()
    own[60, 100:150] = 0.9  # a bright line below the face
    face = laid(cv2.GaussianBlur(enlarged(6), (0, 0), 3), own, matte)
    change = np.abs(grain.match(face, own, matte) - face)
    assert change[58:63, 100:150].max() < 1.2 * change[120:160, 100:156].max()


def test_gains_are_bounded() -> None:
    most = grain.Levels(100.0, 100.0, -9.0, -5.0, -4.0, -2.0)
    least = grain.Levels(0.01, 0.01, -4.0, -2.0, -9.0, -5.0)
    for octave, (low, _) in enumerate(grain.CALM_GAINS):
        assert grain.gains(most, octave, 1.0) == (1.0, grain.BUSY_GAINS[octave][1])
        assert grain.gains(most, octave, 0.0) == (1.0, 1.0)
        assert grain.gains(least, octave, 0.0) == (low, grain.BUSY_GAINS[octave][0])


def test_no_ring_at_the_mattes_edge() -> None:
    """A face much brighter than the picture around it, with a hard matte: its edge stays as it was laid in."""
    own, matte = scene(0.01, 1), disc(soft=2.0)
    face = laid(np.clip(scene(0.005, 2, 0.5) * 1.4, 0, 1), own, matte)
    rim = (disc(104, 1) > 0.5) & (disc(92, 1) < 0.5)
    change = (grain.match(face, own, matte) - face)[rim]
    assert np.abs(change).max() < 0.06 and abs(float(change.mean())) < 0.002


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_outside_the_matte_nothing_changes(dtype: type) -> None:
    white = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    own: np.ndarray = (scene(0.02, 1) * white).astype(dtype)
    crop = torch.from_numpy(scene(0.002, 2, 1.0).transpose(2, 0, 1).copy())[None] * 2 - 1
    swap = Swap(crop, torch.from_numpy(disc())[None, None])
    plain, matched = (paste.paste_part(Picture(own), swap, np.eye(3), f) for f in (None, grain.match))
    matte = matched.whole_matte()
    mixed = laid(scene(0.002, 2, 1.0), scene(0.02, 1), matte)
    np.testing.assert_array_equal(grain.match(mixed, scene(0.02, 1), matte)[matte == 0], mixed[matte == 0])
    assert matched.picture.pixels.dtype == dtype and (matte == 0).any()
    np.testing.assert_array_equal(matched.picture.pixels[matte == 0], own[matte == 0])
    assert (matched.picture.pixels != plain.picture.pixels)[matte == 1].mean() > 0.3
    assert finest(matched.picture.pixels / white, own / white) > 1.5 * finest(plain.picture.pixels / white, own / white)


def test_equal_calls_give_equal_bits_and_strength_is_a_share() -> None:
    own, matte = scene(0.02, 1), disc()
    face = laid(scene(0.005, 2, 1.0), own, matte)
    whole, again, half, none = (grain.match(face, own, matte, s) for s in (1.0, 1.0, 0.5, 0.0))
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(none, face)
    np.testing.assert_allclose(half - face, (whole - face) / 2, atol=1e-6)


def test_flat_pictures_and_mattes_too_small_to_tell() -> None:
    face, matte = scene(0.02, 2), disc()
    flat = np.full_like(face, 0.5)
    softened = grain.match(laid(face, flat, matte), flat, matte)
    assert np.isfinite(softened).all()
    np.testing.assert_array_equal(grain.match(flat, flat, matte), flat)
    assert np.isfinite(grain.match(flat, laid(face, flat, matte), matte)).all()
    for small in (np.zeros_like(matte), disc(6, 2), 0.5 * matte):
        assert grain.match(face, flat, small) is face
    for side in (1, 3, 9):
        tiny = face[:side, : side + 1].copy()
        assert grain.match(tiny, tiny, np.ones(tiny.shape[:2], np.float32)) is tiny


def test_the_option_is_checked() -> None:
    assert _share("0.25") == 0.25
    for wrong in ("1.5", "-0.1", "nan", "much"):
        with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
            _share(wrong)
    with pytest.raises(UsageError, match="grain must be between 0"):
        Swapper(None, None, None, None, torch.device("cpu"), grain=2.0)  # type: ignore[arg-type]
