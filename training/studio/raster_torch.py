"""The rasteriser in plain torch, for GPUs: the pictures of `raster` by the same arithmetic.

Triangles are sorted into groups of like size; a group tests all samples of its bounding boxes at once. The nearest
depth per sample is found by one scattered minimum, the triangle by a second.
"""

from __future__ import annotations

import torch

from mattface.training.studio.raster import SUB

CHUNK = 1 << 22
"""Samples tested at once."""


def cover(
    xy: torch.Tensor, depth: torch.Tensor, triangles: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `raster.cover`, on tensors: (height, width) int64 triangle or -1, and (height, width) float64 depth."""
    order = triangles[:, [0, 2, 1]].long()  # y down: turned round
    corners = xy[order]  # (T, 3, 2)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    low = torch.div(corners.amin(1) + 127, SUB, rounding_mode="floor").clamp(min=0)
    high = torch.div(corners.amax(1) - 128, SUB, rounding_mode="floor")
    high = torch.minimum(high, torch.tensor([width - 1, height - 1], device=xy.device))
    extent = (high - low + 1).clamp(min=0)
    drawn = (area > 0) & (extent > 0).all(1)
    nearest = torch.full((height * width,), torch.inf, dtype=torch.float64, device=xy.device)
    none = len(triangles)
    ids = torch.full((height * width,), none, dtype=torch.int64, device=xy.device)
    found = []
    side, below = 2, 0
    while below < max(height, width):
        largest = extent.amax(1)
        group = torch.nonzero(drawn & (largest > below) & (largest <= side))[:, 0]
        for part in group.split(max(1, CHUNK // side**2)):
            found.append(_hits(part, corners[part], depth[order[part]], area[part], low[part], high[part], side, width))
            nearest.scatter_reduce_(0, found[-1][0], found[-1][1], "amin")
        side, below = side * 2, side
    for place, z, triangle in found:
        front = z == nearest[place]
        ids.scatter_reduce_(0, place[front], triangle[front], "amin")
    ids[ids == none] = -1
    return ids.view(height, width), nearest.view(height, width)


def _hits(
    numbers: torch.Tensor,
    corners: torch.Tensor,
    depth: torch.Tensor,
    area: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    side: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Covered samples of triangles of at most `side` samples: place, depth and triangle of each."""
    step = torch.arange(side, device=corners.device)
    row, column = low[:, 1, None, None] + step[:, None], low[:, 0, None, None] + step
    row, column = torch.broadcast_tensors(row, column)
    inside = (row <= high[:, 1, None, None]) & (column <= high[:, 0, None, None])
    px, py = column * SUB + SUB // 2, row * SUB + SUB // 2
    weights = []
    for k in range(3):
        bx, by = corners[:, (k + 1) % 3, 0, None, None], corners[:, (k + 1) % 3, 1, None, None]
        cx, cy = corners[:, (k + 2) % 3, 0, None, None], corners[:, (k + 2) % 3, 1, None, None]
        weight = (cx - bx) * (py - by) - (cy - by) * (px - bx)
        least = 1 - (((by == cy) & (cx > bx)) | (cy < by)).long()
        inside = inside & (weight >= least)
        weights.append(weight)
    chosen = inside.nonzero(as_tuple=True)
    own = depth[chosen[0]]
    total = torch.zeros(len(own), dtype=torch.float64, device=own.device)
    for k in (0, 1, 2):
        total = total + weights[k][chosen] * own[:, k]
    place = row[chosen] * width + column[chosen]
    return place, total / area[chosen[0]], numbers[chosen[0]]


def weights_at(corners: torch.Tensor, px: torch.Tensor, py: torch.Tensor) -> torch.Tensor:
    """(K, 3) barycentric coordinates of points in 1/256 samples in triangles with (K, 3, 2) corners."""
    a = corners[:, 0]
    b, c = corners[:, 1] - a, corners[:, 2] - a
    area = (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]).double()
    x, y = px - a[:, 0], py - a[:, 1]
    wb, wc = (x * c[:, 1] - y * c[:, 0]).double() / area, (b[:, 0] * y - b[:, 1] * x).double() / area
    return torch.stack([1.0 - wb - wc, wb, wc], 1)


def shade(
    ids: torch.Tensor,
    xy: torch.Tensor,
    triangles: torch.Tensor,
    values: torch.Tensor,
    uv: torch.Tensor,
    layer: torch.Tensor,
    texture: torch.Tensor,
    grid: int,
) -> torch.Tensor:
    """As `raster.shade`, on tensors."""
    height, width = ids.shape
    row, column = (ids >= 0).nonzero(as_tuple=True)
    t = ids[row, column]
    corners = triangles[t].long()
    weights = weights_at(xy[corners], column * SUB + SUB // 2, row * SUB + SUB // 2)
    own = (weights[:, :, None] * values[corners]).sum(1)
    place = (weights[:, :, None] * uv[t]).sum(1)
    own[:, :3] *= sample_texture(texture, layer[t], place)
    full = torch.zeros(height, width, values.shape[1] + 1, dtype=torch.float64, device=ids.device)
    full[row, column] = torch.cat([own, torch.ones_like(own[:, :1])], 1)
    return full.view(height // grid, grid, width // grid, grid, -1).mean((1, 3)).float()


def sample_texture(texture: torch.Tensor, layer: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """(K, 3) texture of layer (K,) at (K, 2) coordinates, linear; 1 where the layer is -1."""
    side = texture.shape[1]
    at = (place * side - 0.5).clamp(0.0, side - 1.001)
    j, i = at.long().unbind(1)
    over, down = (at - at.floor()).split(1, 1)
    k = layer.clamp(min=0)
    above = texture[k, i, j] * (1 - over) + texture[k, i, j + 1] * over
    below = texture[k, i + 1, j] * (1 - over) + texture[k, i + 1, j + 1] * over
    return torch.where((layer >= 0)[:, None], above * (1 - down) + below * down, torch.ones_like(above))
