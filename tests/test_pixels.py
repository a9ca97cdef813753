"""The one converter of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mattface.errors import InputError, MattfaceError, UsageError
from mattface.pixels import to_pixels, to_tensor


def every_level(dtype: type) -> np.ndarray:
    """(H, W, 3) holding every value of an integer type."""
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16)
    return np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_survives_the_round_trip(dtype: type) -> None:
    pixels = every_level(dtype)
    assert np.array_equal(to_pixels(to_tensor(pixels), dtype), pixels)


def test_float_survives_the_round_trip() -> None:
    pixels = np.random.default_rng(0).random((7, 5, 3), dtype=np.float32)
    np.testing.assert_allclose(to_pixels(to_tensor(pixels), np.float32), pixels, atol=1e-7)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_black_is_minus_one_and_white_one(dtype: type, white: int) -> None:
    pixels = np.array([[[0, white, 0]]], dtype=dtype)
    assert to_tensor(pixels).flatten().tolist() == [-1, 1, -1]


def test_formula_does_not_depend_on_the_image() -> None:
    """A dim picture stays dim: no stretching by its own range."""
    dim = np.full((4, 4, 3), 10, np.uint8)
    assert torch.equal(to_tensor(dim), torch.full((1, 3, 4, 4), 10 / 127.5 - 1))


def test_channels_and_rows_go_where_they_belong() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[1, 2] = 0, 127, 255
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2].tolist() == pytest.approx([-1, 127 / 127.5 - 1, 1])
    assert np.array_equal(to_pixels(tensor, np.uint8), pixels)


def test_exact_halves_go_to_the_even_neighbour_and_the_rest_to_the_nearest() -> None:
    levels = torch.tensor([0.5, 1.5, 2.5, 2.51, 2.49, 254.6])
    tensor = (levels.double() / 127.5 - 1).float()
    exact = torch.tensor([0.0, 0.5]).repeat(3).view(1, 1, 6)
    assert to_pixels(tensor.expand(3, 1, 6), np.uint8)[0, 3:, 0].tolist() == [3, 2, 255]
    assert to_pixels((exact * 2 / 255 - 1).expand(3, 1, 6), np.uint8)[0, :2, 0].tolist() == [0, 0]


def test_values_beyond_the_range_are_clipped() -> None:
    tensor = torch.tensor([-1.7, 1.7, 0.0]).view(3, 1, 1)
    assert to_pixels(tensor, np.uint8)[0, 0].tolist() == [0, 255, 128]
    assert to_pixels(tensor, np.float32)[0, 0].tolist() == [0, 1, 0.5]


def test_half_precision_networks_are_converted_in_float32() -> None:
    pixels = every_level(np.uint8)
    assert to_tensor(pixels, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert np.abs(to_pixels(to_tensor(pixels, dtype=torch.float16), np.uint8).astype(int) - pixels).max() <= 1


def test_alpha_is_left_out() -> None:
    assert to_tensor(np.zeros((2, 2, 4), np.uint8)).shape == (1, 3, 2, 2)


def test_nan_from_a_network_is_an_error() -> None:
    with pytest.raises(MattfaceError, match="NaN"):
        to_pixels(torch.full((3, 2, 2), float("nan")), np.uint8)


def test_wrong_calls_are_rejected() -> None:
    with pytest.raises(UsageError, match="uint8, uint16 or float32"):
        to_pixels(torch.zeros(3, 2, 2), np.int32)
    with pytest.raises(UsageError, match="one picture"):
        to_pixels(torch.zeros(2, 3, 2, 2), np.uint8)
    with pytest.raises(InputError, match="HxWx3"):
        to_tensor(np.zeros((4, 4), np.uint8))
