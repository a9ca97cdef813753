"""Up-convolution on a CPU: a matrix product per strip of rows, folded, filtered and finished while in the cache."""

from __future__ import annotations

import threading

import torch

from mattface.cuda_ops._implementations import native
from mattface.cuda_ops._pool import empty
from mattface.cuda_ops.fused import Epilogue
from mattface.cuda_ops.precision import exact_type, without_autocast

KERNEL = 3
TAPS = 4
STRIP_BYTES = 8 << 20
"""Columns of one strip: enough rows for a fast product, few enough to stay in a cache."""


def upconv(x: torch.Tensor, columns: torch.Tensor, f: torch.Tensor, after: Epilogue) -> torch.Tensor:
    """Transposed 3x3 convolution of stride 2, filter with gain 4, and the epilogue of `noise_bias_act`.

    Args:
        x: (B, C, H, W) with the channels of a pixel next to each other; may be a part of a larger map.
        columns: (C, 9 O) weights, kernel rows first.
        f: (4,) separable filter.
        after: the epilogue; its scale may be of any floating point type.

    Returns:
        (B, O, 2 H, 2 W), channels-last.
    """
    samples, _, height, width = x.shape
    outputs = columns.shape[1] // KERNEL**2
    shape = (samples, outputs, 2 * height, 2 * width)
    y = empty(shape, x.dtype, torch.channels_last, x.device)
    if after.scale is not None:
        after = after._replace(scale=after.scale.to(exact_type(x.dtype)))
    finish = (f.contiguous(), 4.0, *after.operands(x.dtype), *after.numbers())
    rows = min(height, max(2, STRIP_BYTES // (width * columns.shape[1] * x.element_size())))
    strips = _strips(rows * width, columns)
    pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    with without_autocast(x.device):
        for sample in range(samples):
            before = None
            for index, first in enumerate(range(0, height, rows)):
                part = pixels[sample, first : first + rows].reshape(-1, x.shape[1])
                strip = torch.mm(part, columns, out=strips[index % 2][: len(part)])
                native(x).upconv_rows_(y, before, strip, sample, first, *finish)
                before = strip
    return y


_KEPT = threading.local()
"""The strips of a thread's last call: fresh memory costs more than the product that fills it."""


def _strips(pixels: int, columns: torch.Tensor) -> list[torch.Tensor]:
    """Memory for two strips of columns."""
    size = pixels * columns.shape[1] * columns.element_size()
    kept = getattr(_KEPT, "strips", None)
    if kept is None or kept.shape[1] < size:
        with torch.inference_mode(False):
            kept = _KEPT.strips = torch.empty(2, max(size, STRIP_BYTES), dtype=torch.uint8)
    return [part[:size].view(columns.dtype).view(pixels, -1) for part in kept]


def forget() -> None:
    """Drops this thread's strips."""
    _KEPT.__dict__.clear()
