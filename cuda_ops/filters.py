"""FIR filters and the three common ways to apply them, all through upfirdn2d."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mattface.cuda_ops._arguments import check_filter, factors, number, paddings, shown
from mattface.cuda_ops._implementations import Impl
from mattface.cuda_ops._upfirdn2d import resample, taps_of


def setup_filter(
    f: torch.Tensor | Sequence[float] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> torch.Tensor:
    """Makes a float32 filter for `upfirdn2d`.

    Args:
        f: taps: a number, (K,) or (KH, KW); None is the single tap 1.
        device: where the filter lives.
        normalize: divide by the sum, so that a constant image stays as it is.
        flip_filter: turn the filter around.
        gain: factor of the two-dimensional filter (a separable one gets its square root).
        separable: keep (K,) one-dimensional; None keeps it from eight taps on.

    Returns:
        (K,) when separable, else (KH, KW); (1, 1) for a single tap.

    Raises:
        TypeError: taps or gain that are no numbers.
        ValueError: wrong rank, no taps, taps or a gain that are not finite, a gain below zero, taps that sum to zero,
            or a separable filter with two dimensions.
    """
    taps, gain = _real_taps(f), number("setup_filter", "gain", gain)
    if gain < 0:
        raise ValueError(f"setup_filter: gain must be at least 0; got {gain}. Negate the taps instead.")
    taps = taps[None] if taps.ndim == 0 else taps
    separable = taps.ndim == 1 and taps.numel() >= 8 if separable is None else separable
    if separable and taps.ndim == 2:
        raise ValueError("setup_filter: separable=True needs a (K,) filter; got two dimensions.")
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        total = taps.sum()
        if abs(total) <= 1e-6 * taps.abs().sum():
            raise ValueError("setup_filter: normalize=True needs taps with a sum; got a sum of 0.")
        taps = taps / total
    if flip_filter:
        taps = taps.flip(tuple(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device)


def _real_taps(f: torch.Tensor | Sequence[float] | float | None) -> torch.Tensor:
    """Finite float32 taps with one or two dimensions, or a single number."""
    complex_taps = isinstance(f, torch.Tensor) and f.is_complex()
    try:
        taps = torch.as_tensor(1.0 if f is None else f, dtype=None if complex_taps else torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # ragged rows, words
        complex_taps = True
    if complex_taps:
        raise TypeError(f"setup_filter: f must be real numbers in rows of one length; got {shown(f)}.")
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: f must be (K,) or (KH, KW) with taps; got shape {tuple(taps.shape)}.")
    if not taps.isfinite().all():
        raise ValueError("setup_filter: f must be finite; got taps that are not.")
    return taps


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Filters an image at its own size.

    Args:
        x: (B, C, H, W).
        f: filter from `setup_filter`.
        padding: extra samples on each side, as in `upfirdn2d`.
        flip_filter: False convolves, True correlates.
        gain: factor of the result.
        impl: see `upfirdn2d`.

    Returns:
        (B, C, H, W) plus the padding.
    """
    check_filter("filter2d", f)
    (left, right, top, bottom), (kh, kw) = paddings("filter2d", padding), taps_of(f)
    pads = [left + kw // 2, right + (kw - 1) // 2, top + kh // 2, bottom + (kh - 1) // 2]
    return resample("filter2d", x, f, [1, 1], [1, 1], pads, flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Enlarges an image by a whole factor, keeping its brightness.

    Args:
        x: (B, C, H, W).
        f: normalised filter from `setup_filter`.
        up: factor, or (x, y).
        padding: extra samples of the output on each side, as in `upfirdn2d`.
        flip_filter: False convolves, True correlates.
        gain: factor of the result.
        impl: see `upfirdn2d`.

    Returns:
        (B, C, H * up, W * up) plus the padding.
    """
    check_filter("upsample2d", f)
    ups, gain = factors("upsample2d", "up", up), number("upsample2d", "gain", gain)
    pads = upsampling_pads(f, ups, paddings("upsample2d", padding))
    return resample("upsample2d", x, f, ups, [1, 1], pads, flip_filter, gain * ups[0] * ups[1], impl)


def upsampling_pads(f: torch.Tensor | None, up: list[int], padding: list[int]) -> list[int]:
    """Padding of `upfirdn2d` that makes the result `up` times as large, plus `padding`."""
    (ux, uy), (left, right, top, bottom), (kh, kw) = up, padding, taps_of(f)
    return [left + (kw + ux - 1) // 2, right + (kw - ux) // 2, top + (kh + uy - 1) // 2, bottom + (kh - uy) // 2]


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Shrinks an image by a whole factor.

    Args:
        x: (B, C, H, W).
        f: normalised filter from `setup_filter`.
        down: factor, or (x, y).
        padding: extra samples of the input on each side, as in `upfirdn2d`.
        flip_filter: False convolves, True correlates.
        gain: factor of the result.
        impl: see `upfirdn2d`.

    Returns:
        (B, C, H / down, W / down), more with padding.
    """
    check_filter("downsample2d", f)
    downs, (left, right, top, bottom) = factors("downsample2d", "down", down), paddings("downsample2d", padding)
    (dx, dy), (kh, kw) = downs, taps_of(f)
    pads = [left + (kw - dx + 1) // 2, right + (kw - dx) // 2, top + (kh - dy + 1) // 2, bottom + (kh - dy) // 2]
    return resample("downsample2d", x, f, [1, 1], downs, pads, flip_filter, gain, impl)
