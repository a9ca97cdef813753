"""What modulated_conv2d keeps of constant weights: their energy, and copies in the layouts that convolutions want."""

from __future__ import annotations

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from mattface.cuda_ops._pool import POOLED_FROM, empty
from mattface.cuda_ops.precision import exact_type, multiplies_bf16
from mattface.cuda_ops.winograd import KERNEL, convolve_tiles, transformed

FEWEST_CHANNELS = 256
FEWEST_PIXELS = 64 * 64
SMALLEST = 1e-8
"""Keeps norms away from zero (eq. 3)."""


class Packed:
    """Weights of one convolution in one type. Each copy is made when it is first asked for.

    Args:
        weight: (O, C, K, K).
        dtype: the type the convolution runs in.
        demodulate: whether the result is normalised; half precision then takes scaled weights, which cancel.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype, demodulate: bool) -> None:
        if dtype == torch.float16 and demodulate:
            weight = weight / weight.abs().amax((1, 2, 3), keepdim=True) / math.sqrt(weight[0].numel())
        self.weight = weight.to(dtype)  # (O, C, K, K)
        if weight.is_cuda:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        self.energy = weight.to(exact_type(dtype)).square().sum((2, 3))  # (O, C)
        self._blocked: torch.Tensor | None = None

    @cached_property
    def columns(self) -> torch.Tensor:
        """(C, K K O): the product of an input pixel with it is what the pixel adds to its K x K neighbours."""
        return self.weight.permute(1, 2, 3, 0).flatten(1).contiguous()

    def modulated_columns(self, style: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
        """`columns` for one sample's (1, C) style and (1, O) norm."""
        columns = self.columns * style[0, :, None].to(self.columns.dtype)
        if norm is None:
            return columns
        return (columns.unflatten(1, (-1, norm.shape[1])) * norm.to(columns.dtype)).flatten(1)

    @cached_property
    def _tiled(self) -> torch.Tensor:
        return transformed(self.weight)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Same-size convolution of (B, C, H, W); on a CPU with weights kept in the layout that is fastest."""
        if tiles_pay(x, self.weight):
            return convolve_tiles(x, self._tiled)
        if not _runs_onednn(x):
            return same(x, self.weight)
        if self._blocked is None:  # of the first size seen; oneDNN takes it for the others too
            where, size = _where(self.weight), list(x.shape)
            self._blocked = torch.ops.mkldnn._reorder_convolution_weight(self.weight.contiguous(), *where, size)
        return _convolve(x, self._blocked, self.weight)


def tiles_pay(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether Winograd's method is fastest: many channels, and pixels enough for the larger weights to be worth it."""
    wide = min(weight.shape[:2]) >= FEWEST_CHANNELS and weight.shape[-1] == KERNEL
    return wide and x.device.type == "cpu" and x.dtype == torch.float32 and x[:, 0].numel() >= FEWEST_PIXELS


def same(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Same-size convolution, differentiable."""
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Same-size convolution without gradients; a large result on a CPU uses memory again."""
    return _convolve(x, weight, weight) if _runs_onednn(x) else same(x, weight)


def _convolve(x: torch.Tensor, blocked: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """oneDNN's convolution, which adds to what the result's memory holds."""
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    if math.prod(shape) * x.element_size() < POOLED_FROM or x.stride(1) != 1:
        return torch.ops.mkldnn._convolution_pointwise(x, blocked, None, *_where(weight), "none", [], "")
    y = empty(shape, x.dtype, torch.channels_last, x.device).zero_()
    convolve_into = torch.ops.mkldnn._convolution_pointwise_.binary
    return convolve_into(y, x, blocked, None, *_where(weight), "add", 1.0, None, [], None)


def _where(weight: torch.Tensor) -> tuple[list[int], list[int], list[int], int]:
    """Padding, stride, dilation and groups of a same-size convolution."""
    side = weight.shape[-1] // 2
    return [side, side], [1, 1], [1, 1], 1


def _runs_onednn(x: torch.Tensor) -> bool:
    """Whether oneDNN computes this; it is part of torch where it can. Without it torch's own convolution runs."""
    here = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)  # type: ignore[attr-defined]
    kind = x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and multiplies_bf16())
    return here and x.device.type == "cpu" and kind and x.numel() > 0


_KEPT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Weights -> (their version, {(type, demodulate): Packed})."""


def packed(weight: torch.Tensor, dtype: torch.dtype, demodulate: bool) -> Packed:
    """What was kept of `weight`, made now if it is new or was changed in place."""
    version = (0 if weight.is_inference() else weight._version, weight.data_ptr())
    kept = _KEPT.get(weight)
    if kept is None or kept[0] != version:
        kept = _KEPT[weight] = (version, {})
    kind = (dtype, demodulate)
    if kind not in kept[1]:
        with torch.inference_mode(False), torch.no_grad():
            kept[1][kind] = Packed(weight.detach(), *kind)
    return kept[1][kind]


def forget() -> None:
    """Drops everything that was kept."""
    _KEPT.clear()
