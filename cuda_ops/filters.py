"""FIR filters and the three common ways to apply them, all through upfirdn2d."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mattface.cuda_ops._implementations import Impl
from mattface.cuda_ops._upfirdn2d import _four, _pair, _taps, upfirdn2d


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
        ValueError: wrong rank, no taps, taps that sum to zero, or a separable filter with two dimensions.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32, device="cpu")
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: f must be (K,) or (KH, KW) with taps; got shape {tuple(taps.shape)}.")
    taps = taps[None] if taps.ndim == 0 else taps
    separable = taps.ndim == 1 and taps.numel() >= 8 if separable is None else separable
    if separable and taps.ndim == 2:
        raise ValueError("setup_filter: separable=True needs a (K,) filter; got two dimensions.")
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        total = taps.sum()
        if total == 0:
            raise ValueError("setup_filter: normalize=True needs taps with a sum; got a sum of 0.")
        taps = taps / total
    if flip_filter:
        taps = taps.flip(tuple(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device)


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
    (left, right, top, bottom), (kh, kw) = _four(padding), _taps(f)
    pads = [left + kw // 2, right + (kw - 1) // 2, top + kh // 2, bottom + (kh - 1) // 2]
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


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
    (ux, uy), (left, right, top, bottom), (kh, kw) = _pair(up, "up"), _four(padding), _taps(f)
    pads = [left + (kw + ux - 1) // 2, right + (kw - ux) // 2, top + (kh + uy - 1) // 2, bottom + (kh - uy) // 2]
    return upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=gain * ux * uy, impl=impl)


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
    (dx, dy), (left, right, top, bottom), (kh, kw) = _pair(down, "down"), _four(padding), _taps(f)
    pads = [left + (kw - dx + 1) // 2, right + (kw - dx) // 2, top + (kh - dy + 1) // 2, bottom + (kh - dy) // 2]
    return upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)
