"""Pasting: every pixel type, exactness outside the matte, no shift, no aliasing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mattface import align, paste
from mattface.errors import UsageError
from mattface.vocabulary import Crop, Face, Picture, Swap

POINTS = np.array([[70.0, 80.0], [120.0, 84.0], [94.0, 110.0], [74.0, 135.0], [112.0, 138.0]])


def pasted(picture: Picture, swap: Swap, matrix: np.ndarray) -> tuple[Picture, np.ndarray]:
    """The new picture, and the matte in all of its pixels."""
    done = paste.paste_part(picture, swap, matrix)
    return done.picture, done.whole_matte()


def smooth(height: int = 220, width: int = 200, dtype: type = np.uint8) -> np.ndarray:
    """A picture of slow waves with a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.35 * np.sin(x / a + c) * np.cos(y / b) for a, b, c in ((9, 13, 0), (11, 7, 1), (15, 10, 2))]
    image = np.stack(waves, -1) + np.random.default_rng(0).normal(0, 0.01, (height, width, 3))
    white = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.clip(image, 0, 1) * white
    return values.astype(dtype) if dtype == np.float32 else np.rint(values).astype(dtype)


def cut(pixels: np.ndarray, size: int | None = None) -> Crop:
    return align.cut(pixels, Face(np.array([60.0, 60.0, 130.0, 150.0]), 1.0, POINTS), "ffhq", size)


def disc(size: int) -> torch.Tensor:
    """(1, 1, size, size): 1 in the middle, soft edge, 0 at the rim."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    radius = torch.hypot(*torch.meshgrid(axis, axis, indexing="ij"))
    return ((0.4 - radius) / 0.1).clamp(0, 1)[None, None]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_outside_the_matte_nothing_changes_and_inside_it_does(dtype: type) -> None:
    pixels = smooth(dtype=dtype)
    crop = cut(pixels)
    alpha = np.arange(220 * 200).reshape(220, 200).astype(dtype)
    result, matte = pasted(
        Picture(pixels, alpha, metadata={"dpi": (300, 300)}),
        Swap(-crop.pixels, disc(crop.size)),
        crop.image_to_crop,
    )
    assert result.pixels.dtype == dtype and result.pixels.shape == pixels.shape
    assert result.alpha is alpha and result.metadata == {"dpi": (300, 300)}
    assert matte.dtype == np.float32 and matte.max() > 0.99 and (matte == 0).mean() > 0.3
    np.testing.assert_array_equal(result.pixels[matte == 0], pixels[matte == 0])
    white = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    core = matte > 0.999
    difference = np.abs(result.pixels[core] / white + pixels[core] / white - 1)  # the negative, in its place
    assert difference.mean() < 0.03


@pytest.mark.parametrize("factor", [1, 2, 3.3])
def test_an_unchanged_crop_leaves_the_picture_as_it_was(factor: float) -> None:
    pixels = smooth()
    crop = cut(pixels, round(cut(pixels).size * factor))
    result, matte = pasted(Picture(pixels), Swap(crop.pixels, disc(crop.size)), crop.image_to_crop)
    error = (result.pixels.astype(float) - pixels)[matte > 0.5]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38


def test_a_finer_crop_is_shrunk_without_aliasing() -> None:
    pixels = np.full((220, 200, 3), 128, np.uint8)
    crop = cut(pixels, 1536)
    stripes = torch.where(torch.arange(1536) % 2 == 0, 1.0, -1.0).expand(1, 3, 1536, 1536)
    result, matte = pasted(Picture(pixels), Swap(stripes, disc(1536)), crop.image_to_crop)
    assert np.abs(result.pixels[matte > 0.9].astype(int) - 127).max() < 12


def test_a_crop_beyond_the_frame_is_pasted_where_it_overlaps() -> None:
    pixels = smooth()
    points = POINTS - [85.0, 90.0]
    crop = align.cut(pixels, Face(np.array([-30.0, -30.0, 45.0, 60.0]), 1.0, points), "ffhq", 256)
    result, matte = pasted(Picture(pixels), Swap(-crop.pixels, disc(256)), crop.image_to_crop)
    assert matte[0, 0] > 0.9 and matte[-1, -1] == 0
    assert (result.pixels[matte > 0.5] != pixels[matte > 0.5]).any()


def test_an_empty_matte_returns_the_picture_itself() -> None:
    picture = Picture(smooth())
    crop = cut(picture.pixels)
    result, matte = pasted(picture, Swap(crop.pixels, torch.zeros(1, 1, crop.size, crop.size)), crop.image_to_crop)
    assert result is picture and matte.max() == 0


def test_errors() -> None:
    crop = cut(smooth())
    swap = Swap(crop.pixels, disc(crop.size))
    with pytest.raises(UsageError, match="got int32"):
        pasted(Picture(smooth().astype(np.int32)), swap, crop.image_to_crop)
    with pytest.raises(UsageError, match="invertible"):
        pasted(Picture(smooth()), swap, np.zeros((3, 3)))
    twice = Swap(crop.pixels.repeat(2, 1, 1, 1), disc(crop.size).repeat(2, 1, 1, 1))
    with pytest.raises(UsageError, match="one by one"):
        pasted(Picture(smooth()), twice, crop.image_to_crop)
