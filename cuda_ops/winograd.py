"""3x3 convolutions with 4x fewer multiplications: Winograd's F(4x4, 3x3), for CPUs in single precision.

Every tile of 4x4 outputs is Y = A^T [(G w G^T) * (B^T d B)] A (Lavin and Gray, 2016, arXiv 1509.09308, eq. 8), d being
6x6 inputs. The products over channels are 36 matrix products; the transforms are one matrix product each. With the
points 0, 1, -1, 1/2, -2 and infinity the rounding error is about that of the direct sum.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from mattface.cuda_ops._pool import empty

TILE, KERNEL = 4, 3
SIDE = TILE + KERNEL - 1
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
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


@cache
def _both_axes() -> tuple[torch.Tensor, torch.Tensor]:
    """The transforms of a tile's 36 inputs (36, 36) and of its 36 products (16, 36), float32."""
    output, _, data = (torch.from_numpy(m) for m in transforms())
    with torch.inference_mode(False):
        return torch.kron(data, data).float(), torch.kron(output, output).float()


def transformed(weight: torch.Tensor) -> torch.Tensor:
    """(O, C, 3, 3) weights to the (36, C, O) float32 that `convolve_tiles` takes, by way of float64."""
    kernel = torch.from_numpy(transforms()[1])
    products = torch.einsum("ia,jb,ocab->ijco", kernel, kernel, weight.detach().double().cpu())
    return products.flatten(0, 1).float()


def convolve_tiles(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, padding: int = 1
) -> torch.Tensor:
    """3x3 convolution of stride 1, without gradients.

    Args:
        x: (B, C, H, W) float32 on the CPU; channels-last is fastest.
        weight: (36, C, O) from `transformed`.
        bias: (O,), or None.
        padding: zeros on every side.

    Returns:
        (B, O, H + 2 padding - 2, W + 2 padding - 2), channels-last.
    """
    height, width = x.shape[2] + 2 * padding - 2, x.shape[3] + 2 * padding - 2
    rows, columns = -(-height // TILE), -(-width // TILE)
    far = padding + TILE * columns - width, padding + TILE * rows - height
    pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, far[0], padding, far[1])).contiguous()  # (B, H'', W'', C)
    shape = (x.shape[0], weight.shape[2], rows * TILE, columns * TILE)
    whole = empty(shape, x.dtype, torch.channels_last, x.device)
    result = whole.permute(0, 2, 3, 1).unflatten(1, (rows, TILE)).unflatten(3, (columns, TILE))
    portion = min(rows, _portion(columns, weight))
    work = [x.new_empty(SIDE * SIDE * portion * columns * n) for n in weight.shape[1:]]  # memory used again
    for image, into in zip(pixels, result, strict=True):
        for row in range(0, rows, portion):
            _convolve_rows(image[row * TILE :], into[row : row + portion], weight, bias, work)
    return whole[:, :, :height, :width]


def _portion(columns: int, weight: torch.Tensor) -> int:
    """Rows of tiles at a time: the transformed input stays near the caches, yet the weights are read seldom."""
    numbers = max(PORTION, weight.numel() // 4)
    return max(1, numbers // (SIDE * SIDE * columns * weight.shape[1]))


def _convolve_rows(
    image: torch.Tensor, into: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, work: list[torch.Tensor]
) -> None:
    """Some rows of tiles of (H, W, C), written into (rows, 4, columns, 4, O)."""
    rows, columns, outputs = into.shape[0], into.shape[2], into.shape[-1]
    down, right, _ = image.stride()
    inputs, points, count = image.shape[-1], SIDE * SIDE, rows * columns
    shape = (SIDE, SIDE, rows, columns, inputs)
    tiles = image.as_strided(shape, (down, right, TILE * down, TILE * right, 1), image.storage_offset())
    of_data, of_output = _both_axes()
    data = work[0][: points * count * inputs].view(points, -1)
    torch.mm(of_data, tiles.reshape(points, -1), out=data)  # B^T d B
    products = work[1][: points * count * outputs].view(points, count, outputs)
    torch.bmm(data.view(points, count, inputs), weight, out=products)
    if bias is not None:
        products[SIDE + 1] += bias  # the point (1, 1) reaches all outputs with factor 1
    done = of_output @ products.view(points, -1)  # A^T m A
    into.copy_(done.view(TILE, TILE, rows, columns, -1).permute(2, 0, 3, 1, 4))
