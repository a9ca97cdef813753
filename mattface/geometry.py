"""Plane geometry: matrices between pictures and crops, warps that do not alias, boxes of masks, fits of point sets.

Matrices take (x, y, 1) columns and carry their direction in their names. The centre of the first pixel is (0.5, 0.5);
OpenCV puts it at (0, 0), and this file alone converts.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from mattface.errors import UsageError
from mattface.vocabulary import Box

HALF = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
"""From pixel centres at whole numbers (OpenCV, ArcFace) to pixel centres at +0.5."""


def to_opencv(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) of a (2, 3) or (3, 3) matrix, for pixel centres at whole numbers on both sides."""
    whole = np.vstack([matrix[:2], [0.0, 0.0, 1.0]])
    moved: np.ndarray = (np.linalg.inv(HALF) @ whole @ HALF)[:2]
    return moved


def shift(x: float, y: float) -> np.ndarray:
    """(3, 3) that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) points moved by an affine (3, 3) matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares scale, rotation and shift from one point set to another, never mirrored.

    In the plane this has a closed form, the same as Umeyama's (1991) where no reflection is wanted.

    Args:
        source, target: (N, 2) with N >= 2.

    Returns:
        (3, 3) matrix.

    Raises:
        UsageError: all source points are in one place.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    variance = float((a * a).sum())
    if variance <= 0:
        raise UsageError("expected at least two different points; all of them are in one place.")
    along = float((a * b).sum()) / variance
    turned = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / variance
    matrix = np.array([[along, -turned, 0.0], [turned, along, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = target.mean(0) - matrix[:2, :2] @ source.mean(0)
    return matrix


def procrustes(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Rotation and scale that take one centred point set to another best, never mirrored (Umeyama 1991).

    Args:
        source, target: (N, 3); their means are not counted.

    Returns:
        (3, 3) rotation and the scale: target = scale rotation source.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return u * flip @ vt, float((s * flip).sum() / max((a * a).sum(), 1e-12))


def extent(crop_to_image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """((2,) low, (2,) high) corner in the picture of what a crop of `size` shows."""
    corners = apply(crop_to_image, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    return corners.min(0), corners.max(0)


def box(mask: np.ndarray) -> Box | None:
    """Left, top, right, bottom of what an (H, W) mask has other than 0; None when that is nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def widened(found: Box, margin: int, size: tuple[int, int]) -> Box:
    """A box with a margin on every side, within a picture of (width, height)."""
    left, top, right, bottom = found
    return max(0, left - margin), max(0, top - margin), min(size[0], right + margin), min(size[1], bottom + margin)


def warp(
    pixels: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    interpolation: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_CONSTANT,
    value: float = 0.0,
) -> np.ndarray:
    """Samples a picture on another grid; what shrinks must have been made smaller before (`block_means`, `area_means`).

    Args:
        pixels: (H, W) or (H, W, C).
        matrix: (2 or 3, 3) from these pixels to the new ones; with cv2.WARP_INVERSE_MAP in `interpolation`, back.
        size: (width, height) of the result.
        interpolation, border: cv2 flags.
        value: beyond the border, where that is constant.
    """
    return cv2.warpAffine(pixels, to_opencv(matrix), size, flags=interpolation, borderMode=border, borderValue=value)


def block_means(pixels: np.ndarray, matrix: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture made smaller by exact means of side x side blocks, a rest at right and bottom left out.

    Args:
        pixels: (H, W[, C]).
        matrix: (3, 3) from its pixels to something.
        side: 1 changes nothing.

    Returns:
        The smaller picture, and the matrix from its pixels.
    """
    if side <= 1:
        return pixels, matrix
    height, width = (n // side * side for n in pixels.shape[:2])
    small = cv2.resize(pixels[:height, :width], (width // side, height // side), interpolation=cv2.INTER_AREA)
    return small, matrix @ np.diag([side, side, 1.0])


def area_means(pixels: np.ndarray, matrix: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture made smaller by any factor with means over areas.

    Args:
        pixels: (H, W[, C]).
        matrix: (2 or 3, 3) from its pixels to something.
        scale: at least 1 changes nothing.

    Returns:
        The smaller picture, and the matrix from its pixels.
    """
    if scale >= 1:
        return pixels, matrix
    height, width = (max(1, round(n * scale)) for n in pixels.shape[:2])
    exact = np.diag([pixels.shape[1] / width, pixels.shape[0] / height, 1.0])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), matrix @ exact


def sample(pixels: torch.Tensor, matrix: np.ndarray | torch.Tensor, size: int) -> torch.Tensor:
    """Cuts squares by matrices, differentiably; shrinking averages whole pixels first, so that nothing aliases.

    Args:
        pixels: (B, 3, H, W) float.
        matrix: (3, 3) or (B, 3, 3) similarity from these pixels to the square's.
        size: side of the square.

    Returns:
        (B, 3, size, size); beyond the border the nearest pixel.
    """
    move = torch.as_tensor(matrix, dtype=torch.float64, device="cpu").expand(len(pixels), 3, 3)
    inverse = torch.linalg.inv(move)[:, :2]
    shrink = int(inverse[:, :, 0].norm(dim=1).min().clamp(1, min(pixels.shape[-2:])))
    if shrink > 1:
        pixels = functional.avg_pool2d(pixels, shrink)
    height, width = pixels.shape[-2:]
    extent = torch.tensor([width, height], dtype=torch.float64) * shrink
    # affine_grid speaks of [-1, 1] on both sides: square = (unit + 1) * size / 2, unit' = 2 * picture / extent - 1
    to_picture = inverse[:, :, :2] * (size / 2)
    shift = inverse[:, :, 2] + inverse[:, :, :2].sum(-1) * (size / 2)
    theta = torch.cat([to_picture * 2 / extent[:, None], (shift * 2 / extent - 1)[:, :, None]], dim=2)
    grid = functional.affine_grid(theta.to(pixels), [len(pixels), 3, size, size], align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
