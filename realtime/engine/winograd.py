"""Networks with their wide 3x3 convolutions by Winograd's method (see mattface.cuda_ops.winograd)."""

from __future__ import annotations

import copy
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from mattface.cuda_ops.winograd import convolve_tiles, transformed

NARROWEST = 32
"""Convolutions with fewer channels on either side stay as they are: their transforms would cost more than they save."""


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 with its weights transformed once.

    Args:
        conv: what it replaces; its padding, zeros or mirrored, is kept.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().float().cpu()
        self.register_buffer("weight", transformed(conv.weight))  # (36, C, O)
        self.register_buffer("bias", bias.clone())
        self.padding, self.mirrored = int(conv.padding[0]), conv.padding_mode == "reflect"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) float32 to (B, outputs, H', W') as the convolution, channels-last."""
        pad = self.padding
        if self.mirrored and pad:
            x, pad = F.pad(x, (pad, pad, pad, pad), mode="reflect"), 0
        return convolve_tiles(x, self.weight, self.bias, pad)


def eligible(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that gains from this."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding in ((0, 0), (1, 1))
        and module.padding_mode in ("zeros", "reflect")
        and min(module.in_channels, module.out_channels) >= NARROWEST
    )


def packed(network: nn.Module) -> nn.Module:
    """A copy of a network with every eligible convolution replaced; parameters of the others are shared.

    Args:
        network: in float32 on the CPU, for inference.
    """
    known: dict[int, object] = {id(p): p for p in network.parameters()}
    twin = copy.deepcopy(network, known)  # parameters are looked up instead of copied
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if eligible(child):
                setattr(parent, name, WinogradConv2d(child))
    return twin.eval()
