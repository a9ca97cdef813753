"""Crop templates, and the similarity that moves points onto one."""

from __future__ import annotations

import numpy as np

from mattface.errors import UsageError

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose tip and mouth corners belong in a 112 px ArcFace crop (centre of the first pixel at 0)."""
HALF = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
"""From pixel centres at whole numbers (OpenCV, ArcFace) to pixel centres at +0.5."""


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares scale, rotation and shift from one point set to another, never mirrored.

    In the plane this has a closed form, the same as Umeyama's (1991) where no reflection is wanted.

    Args:
        source, target: (N, 2) with N >= 2.

    Returns:
        (3, 3) matrix.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    spread = float((a * a).sum())
    if spread <= 0:
        raise UsageError("expected at least two different points; all of them are in one place.")
    along = float((a * b).sum()) / spread
    turned = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    matrix = np.array([[along, -turned, 0.0], [turned, along, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = target.mean(0) - matrix[:2, :2] @ source.mean(0)
    return matrix


def arcface_template(size: int) -> np.ndarray:
    """(5, 2) ArcFace points for a crop of `size`: sizes divisible by 112 scale the 112 px points; else sizes divisible
    by 128 scale them by size / 128 and shift x by 8 such units. Centre of the first pixel at 0, as published.

    Raises:
        UsageError: a size divisible by neither.
    """
    if size % 112 == 0:
        return ARCFACE_112 * (size / 112)
    if size % 128 == 0:
        return (ARCFACE_112 + np.array([8.0, 0.0])) * (size / 128)
    raise UsageError(f"expected an ArcFace crop size divisible by 112 or 128; got {size}.")
