"""3x3 convolutions with 4x fewer multiplications: Winograd's F(4x4, 3x3), for CPUs in single precision.

Every tile of 4x4 outputs is Y = A^T [(G w G^T) * (B^T d B)] A (Lavin and Gray, 2016, arXiv 1509.09308, eq. 8), d being
6x6 inputs. The products over channels are 36 matrix products; the transforms are one matrix product each. With the
points 0, 1, -1, 1/2, -2 and infinity the rounding error is about that of the direct sum.
"""

from __future__ import annotations

import copy
from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

TILE, KERNEL = 4, 3
SIDE = TILE + KERNEL - 1
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
NARROWEST = 32
"""Convolutions with fewer channels on either side stay as they are: their transforms would cost more than they save."""
PORTION = 2**20
"""Transformed inputs are made in portions of about this many numbers, more for large weights (see `_portion`)."""


def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T (4, 6), G (6, 3) and B^T (6, 6) of Toom and Cook's method at `POINTS` and infinity, float64."""
    output, kernel, data = np.zeros((TILE, SIDE)), np.zeros((SIDE, KERNEL)), np.zeros((SIDE, SIDE))
    for j, point in enumerate(POINTS):
        others = [p for p in POINTS if p != point]
        output[:, j] = [point**i for i in range(TILE)]
        kernel[j] = [point**i / np.prod([point - p for p in others]) for i in range(KERNEL)]
        data[j, :-1] = np.poly(others)[::-1]
    output[-1, -1] = kernel[-1, -1] = 1
    data[-1] = np.poly(POINTS)[::-1]
    return output, kernel, data


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 with its weights transformed once.

    Args:
        conv: what it replaces; its padding, zeros or mirrored, is kept.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    data: torch.Tensor
    output: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        output, kernel, data = (torch.from_numpy(m) for m in transforms())
        weight = torch.einsum("ia,jb,ocab->ijco", kernel, kernel, conv.weight.detach().double().cpu())
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().float().cpu()
        self.register_buffer("weight", weight.reshape(SIDE * SIDE, conv.in_channels, conv.out_channels).float())
        self.register_buffer("bias", bias.clone())
        self.register_buffer("data", torch.kron(data, data).float())
        self.register_buffer("output", torch.kron(output, output).float())
        self.padding, self.mirrored = int(conv.padding[0]), conv.padding_mode == "reflect"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) float32 to (B, outputs, H', W') as the convolution, channels-last."""
        b, height, width = x.shape[0], *x.shape[2:]
        pad = self.padding
        height, width = height + 2 * pad - 2, width + 2 * pad - 2
        rows, columns = -(-height // TILE), -(-width // TILE)
        if self.mirrored and pad:
            x = F.pad(x, (pad, pad, pad, pad), mode="reflect")
            pad = 0
        far = pad + TILE * columns - width, pad + TILE * rows - height
        x = F.pad(x, (pad, far[0], pad, far[1])).permute(0, 2, 3, 1).contiguous()  # (B, H'', W'', C)
        result = x.new_empty(b, rows, TILE, columns, TILE, self.weight.shape[2])
        portion = min(rows, self._portion(columns))
        work = [x.new_empty(SIDE * SIDE * portion * columns * n) for n in self.weight.shape[1:]]  # memory used again
        for image, into in zip(x, result, strict=True):
            for row in range(0, rows, portion):
                self._rows(image[row * TILE :], into[row : row + portion], work)
        whole = result.view(b, rows * TILE, columns * TILE, -1).permute(0, 3, 1, 2)
        return whole[:, :, :height, :width]

    def _portion(self, columns: int) -> int:
        """Rows of tiles at a time: the transformed input stays near the caches, yet the weights are read seldom."""
        numbers = max(PORTION, self.weight.numel() // 4)
        return max(1, numbers // (SIDE * SIDE * columns * self.weight.shape[1]))

    def _rows(self, image: torch.Tensor, into: torch.Tensor, work: list[torch.Tensor]) -> None:
        """Some rows of tiles of (H, W, C), written into (rows, 4, columns, 4, outputs)."""
        rows, columns, outputs = into.shape[0], into.shape[2], into.shape[-1]
        down, right, _ = image.stride()
        inputs, points, places = image.shape[-1], SIDE * SIDE, rows * columns
        shape = (SIDE, SIDE, rows, columns, inputs)
        tiles = image.as_strided(shape, (down, right, TILE * down, TILE * right, 1), image.storage_offset())
        data = work[0][: points * places * inputs].view(points, -1)
        torch.mm(self.data, tiles.reshape(points, -1), out=data)  # B^T d B
        products = work[1][: points * places * outputs].view(points, places, outputs)
        torch.bmm(data.view(points, places, inputs), self.weight, out=products)
        products[SIDE + 1] += self.bias  # the point (1, 1) reaches all outputs with factor 1
        done = self.output @ products.view(points, -1)  # A^T m A
        into.copy_(done.view(TILE, TILE, rows, columns, -1).permute(2, 0, 3, 1, 4))


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
