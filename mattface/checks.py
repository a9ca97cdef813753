"""Checks of what callers hand in: one sentence each of what was expected, what came, what to do next."""

from __future__ import annotations

import numpy as np

from mattface.errors import InputError

MAX_PIXELS = 400_000_000
"""Pictures with more pixels than this are rejected before decoding unless the caller allows them."""

PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
"""The dtypes a picture may have."""


def check_size(width: int, height: int, allow_huge: bool, what: str = "picture") -> None:
    """Rejects empty and huge pictures by their header alone.

    Args:
        width, height: size in pixels as the header states it.
        allow_huge: True lets pictures over `MAX_PIXELS` through.
        what: name of the picture for the message.

    Raises:
        InputError: no pixels, or more than `MAX_PIXELS` without `allow_huge`.
    """
    if width < 1 or height < 1:
        raise InputError(f"{what}: expected at least one pixel; got {width}x{height}. Export the picture again.")
    if width * height > MAX_PIXELS and not allow_huge:
        raise InputError(
            f"{what}: expected at most {MAX_PIXELS // 1_000_000} megapixels; got {width}x{height} "
            f"({width * height / 1e6:.0f} megapixels). Scale it down, or allow it with --allow-huge (allow_huge=True)."
        )


def check_array(array: np.ndarray, what: str = "picture") -> np.ndarray:
    """Checks a pixel array and returns it in native byte order.

    Args:
        array: (H, W, 3) or (H, W, 4) RGB or RGBA; uint8, uint16, or float32 in [0, 1].
        what: name of the picture for the message.

    Raises:
        InputError: another shape, another dtype, NaN, infinity, or a float outside [0, 1].
    """
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2)):
        raise InputError(
            f"{what} must be HxWx3 or HxWx4; got {array.shape}. "
            "Convert grey images with Image.convert('RGB') or np.stack([grey] * 3, axis=-1)."
        )
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InputError(f"{what} must be HxWx3 or HxWx4; got {array.shape}. {_shape_advice(array)}")
    check_size(array.shape[1], array.shape[0], allow_huge=True, what=what)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype not in PIXEL_TYPES:
        raise InputError(
            f"{what} must be uint8, uint16 or float32 in [0, 1]; got {array.dtype}. {_type_advice(array.dtype)}"
        )
    if native.dtype == np.float32:
        check_float_range(native, what)
    return native


def check_float_range(array: np.ndarray, what: str) -> None:
    """Rejects NaN, infinity and values outside [0, 1].

    Raises:
        InputError: naming the count or the range found.
    """
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(array.size - np.isfinite(array).sum())
        raise InputError(
            f"{what}: expected finite values in [0, 1]; got {bad} NaN or infinite ones. "
            "Replace them first, for example with np.nan_to_num."
        )
    if low < 0 or high > 1:
        raise InputError(
            f"{what}: expected float values in [0, 1]; got {low:.4g} to {high:.4g}. "
            "Divide by the white level or clip first; nothing is rescaled by guess."
        )


def _shape_advice(array: np.ndarray) -> str:
    if array.ndim == 4:
        return "Pass one picture at a time."
    if array.ndim == 3 and array.shape[0] in (3, 4):
        return "The channels come first: use array.transpose(1, 2, 0)."
    return "Pass one RGB picture, height first."


def _type_advice(dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return "Use array.astype(np.float32)."
    if dtype.kind == "b":
        return "Use array.astype(np.uint8) * 255."
    return "Scale to 0..255 and use array.astype(np.uint8), or to 0..65535 and np.uint16."
