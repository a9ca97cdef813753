"""The rasteriser on the CPU, compiled by numba. `raster_torch` draws the same pictures by the same arithmetic.

Corners are rounded to 1/256 of a sample; whether a sample is covered is decided in whole numbers (top-left rule), so
that two implementations cannot differ there. Of several triangles the nearest wins, at equal depth the one with the
smaller number. A picture has `grid` x `grid` samples per pixel.
"""

from __future__ import annotations

import numpy as np

from mattface.errors import UsageError

try:
    from numba import njit
except ImportError as error:
    raise UsageError(f"the studio needs numba ({error}). Type: pip install 'mattface[train]'") from error

SUB = 256
"""Steps per sample that corners are rounded to."""


def snap_corners(screen: np.ndarray, grid: int) -> np.ndarray:
    """(N, 2) int64 corners in 1/256 samples out of (N, 3) pixels; what lies far outside is kept within reach."""
    return np.clip(np.rint(screen[:, :2] * (grid * SUB)), -(2**24), 2**24).astype(np.int64)


@njit(cache=True, nogil=True)
def cover(xy: np.ndarray, depth: np.ndarray, triangles: np.ndarray, height: int, width: int) -> tuple:
    """Which triangle every sample sees.

    Args:
        xy: (N, 2) int64 corners in 1/256 samples.
        depth: (N,) float64, smaller is nearer.
        triangles: (T, 3) corners; drawn where they run counter-clockwise in a picture (y up), else they face away.
        height, width: in samples.

    Returns:
        (height, width) int32 triangle, -1 for none, and (height, width) float64 depth, infinite there.
    """
    ids = np.full((height, width), -1, np.int32)
    nearest = np.full((height, width), np.inf)
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ax, ay, bx, by, cx, cy = xy[a, 0], xy[a, 1], xy[c, 0], xy[c, 1], xy[b, 0], xy[b, 1]  # y down: turned round
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area <= 0:
            continue
        left = max((min(ax, bx, cx) - 128 + 255) // 256, 0)
        right = min((max(ax, bx, cx) - 128) // 256, width - 1)
        top = max((min(ay, by, cy) - 128 + 255) // 256, 0)
        bottom = min((max(ay, by, cy) - 128) // 256, height - 1)
        ua = 0 if (by == cy and cx > bx) or cy < by else 1
        ub = 0 if (cy == ay and ax > cx) or ay < cy else 1
        uc = 0 if (ay == by and bx > ax) or by < ay else 1
        for row in range(top, bottom + 1):
            py = row * 256 + 128
            for column in range(left, right + 1):
                px = column * 256 + 128
                wa = (cx - bx) * (py - by) - (cy - by) * (px - bx)
                wb = (ax - cx) * (py - cy) - (ay - cy) * (px - cx)
                wc = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
                if wa < ua or wb < ub or wc < uc:
                    continue
                z = (wa * depth[a] + wb * depth[c] + wc * depth[b]) / area
                if z < nearest[row, column]:
                    nearest[row, column] = z
                    ids[row, column] = t
    return ids, nearest


@njit(cache=True, nogil=True)
def weights_at(xy: np.ndarray, corners: np.ndarray, px: float, py: float) -> tuple:
    """Barycentric coordinates (in the order of the corners) of a point in 1/256 samples."""
    ax, ay = xy[corners[0], 0], xy[corners[0], 1]
    bx, by = xy[corners[1], 0] - ax, xy[corners[1], 1] - ay
    cx, cy = xy[corners[2], 0] - ax, xy[corners[2], 1] - ay
    area = bx * cy - by * cx
    wb = ((px - ax) * cy - (py - ay) * cx) / area
    wc = (bx * (py - ay) - by * (px - ax)) / area
    return 1.0 - wb - wc, wb, wc


@njit(cache=True, nogil=True)
def shade(
    ids: np.ndarray,
    xy: np.ndarray,
    triangles: np.ndarray,
    values: np.ndarray,
    uv: np.ndarray,
    layer: np.ndarray,
    texture: np.ndarray,
    grid: int,
) -> np.ndarray:
    """Means over the samples of every pixel.

    Args:
        ids: (S grid, S grid) triangle of every sample.
        xy: (N, 2) int64 corners in 1/256 samples.
        triangles: (T, 3).
        values: (N, 3 + C) float32 at the corners: colour, then what else is to be averaged.
        uv: (T, 3, 2) float32 texture coordinates in [0, 1].
        layer: (T,) int64 layer of the texture that multiplies the colour, -1 for none.
        texture: (L, U, U, 3) float32.
        grid: samples per pixel and side.

    Returns:
        (S, S, 4 + C) float32: values summed over covered samples and divided by grid^2, and the covered fraction last.
    """
    height, width = ids.shape[0] // grid, ids.shape[1] // grid
    channels, side = values.shape[1], texture.shape[1]
    out = np.zeros((height, width, channels + 1), np.float32)
    share = np.float32(1.0 / (grid * grid))
    for row in range(height * grid):
        for column in range(width * grid):
            t = ids[row, column]
            if t < 0:
                continue
            a, b, c = triangles[t]
            wa, wb, wc = weights_at(xy, triangles[t], column * 256.0 + 128.0, row * 256.0 + 128.0)
            pixel = out[row // grid, column // grid]
            first = 0
            if layer[t] >= 0:
                first = 3
                u = (wa * uv[t, 0, 0] + wb * uv[t, 1, 0] + wc * uv[t, 2, 0]) * side - 0.5
                v = (wa * uv[t, 0, 1] + wb * uv[t, 1, 1] + wc * uv[t, 2, 1]) * side - 0.5
                u, v = min(max(u, 0.0), side - 1.001), min(max(v, 0.0), side - 1.001)
                i, j = int(v), int(u)
                down, over = v - i, u - j
                part = texture[layer[t]]
                for k in range(3):
                    above = part[i, j, k] * (1 - over) + part[i, j + 1, k] * over
                    below = part[i + 1, j, k] * (1 - over) + part[i + 1, j + 1, k] * over
                    lit = wa * values[a, k] + wb * values[b, k] + wc * values[c, k]
                    pixel[k] += np.float32(lit * (above * (1 - down) + below * down)) * share
            for k in range(first, channels):
                pixel[k] += np.float32(wa * values[a, k] + wb * values[b, k] + wc * values[c, k]) * share
            pixel[channels] += share
    return out


@njit(cache=True, nogil=True)
def surface(
    ids: np.ndarray, nearest: np.ndarray, xy: np.ndarray, triangles: np.ndarray, values: np.ndarray, grid: int
) -> tuple:
    """Values of the nearest surface under every pixel's centre.

    Args:
        ids, nearest: from `cover`.
        xy: (N, 2) int64 corners in 1/256 samples.
        triangles: (T, 3).
        values: (N, C) float64 at the corners.
        grid: samples per pixel and side.

    Returns:
        (S, S, C) float32 values, 0 where nothing is, and (S, S) int32 triangle of the pixel's nearest sample.
    """
    height, width = ids.shape[0] // grid, ids.shape[1] // grid
    out = np.zeros((height, width, values.shape[1]), np.float32)
    seen = np.full((height, width), -1, np.int32)
    for row in range(height):
        for column in range(width):
            best, t = np.inf, -1
            for y in range(row * grid, row * grid + grid):
                for x in range(column * grid, column * grid + grid):
                    if nearest[y, x] < best:
                        best, t = nearest[y, x], ids[y, x]
            if t < 0:
                continue
            seen[row, column] = t
            middle = 128.0 * grid
            wa, wb, wc = weights_at(xy, triangles[t], column * 256.0 * grid + middle, row * 256.0 * grid + middle)
            wa, wb, wc = max(wa, -1.0), max(wb, -1.0), max(wc, -1.0)  # at a grazing triangle the centre lies far off
            whole = wa + wb + wc
            a, b, c = triangles[t]
            for k in range(values.shape[1]):
                out[row, column, k] = (wa * values[a, k] + wb * values[b, k] + wc * values[c, k]) / whole
    return out, seen


@njit(cache=True, nogil=True)
def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N, 3) float32 unit normals: area-weighted means over the triangles around every vertex."""
    out = np.zeros(vertices.shape, np.float32)
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ux, uy, uz = vertices[b] - vertices[a]
        vx, vy, vz = vertices[c] - vertices[a]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in triangles[t]:
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for k in range(len(out)):
        length = np.sqrt(out[k, 0] ** 2 + out[k, 1] ** 2 + out[k, 2] ** 2)
        if length > 0:
            out[k] /= length
    return out
