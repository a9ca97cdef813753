"""What modulated_conv2d keeps of constant weights: their energy, and copies in the layouts that convolutions want."""

from __future__ import annotations

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from mattface.cuda_ops._arguments import exact_type

SMALLEST = 1e-8
"""Keeps norms away from zero (eq. 3)."""


class Packed:
    """Weights of one convolution in one type. Each copy is made when it is first asked for.

    Args:
        weight: (O, C, K, K).
        dtype: the type the convolution runs in.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        if dtype == torch.float16:
            weight = weight / weight.abs().amax((1, 2, 3), keepdim=True) / math.sqrt(weight[0].numel())
        self.weight = weight.to(dtype)  # (O, C, K, K)
        self.energy = weight.to(exact_type(dtype)).square().sum((2, 3))  # (O, C)

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
    def _blocked(self) -> dict[torch.Size, torch.Tensor]:
        return {}

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Same-size convolution of (B, C, H, W); on a CPU with weights in the blocked layout of oneDNN."""
        side = self.weight.shape[-1] // 2
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or not _has_onednn() or not len(x):
            return F.conv2d(x, self.weight, padding=side)
        where = ([side, side], [1, 1], [1, 1], 1)
        if x.shape not in self._blocked:
            blocked = torch.ops.mkldnn._reorder_convolution_weight(self.weight.contiguous(), *where, list(x.shape))
            self._blocked[x.shape] = blocked
        return torch.ops.mkldnn._convolution_pointwise(x, self._blocked[x.shape], None, *where, "none", [], "")


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled  # type: ignore[attr-defined]


_KEPT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Weights -> (their version, {type: Packed})."""


def packed(weight: torch.Tensor, dtype: torch.dtype) -> Packed:
    """What was kept of `weight`, made now if it is new or was changed in place."""
    version = (0 if weight.is_inference() else weight._version, weight.data_ptr())
    kept = _KEPT.get(weight)
    if kept is None or kept[0] != version:
        kept = _KEPT[weight] = (version, {})
    if dtype not in kept[1]:
        with torch.inference_mode(False), torch.no_grad():
            kept[1][dtype] = Packed(weight.detach(), dtype)
    return kept[1][dtype]
