"""Two pictures and a matte -> one picture, blended in bands of its spatial frequencies."""

from __future__ import annotations

import cv2
import numpy as np

from mattface.geometry import box, widened


def multiband(source: np.ndarray, target: np.ndarray, matte: np.ndarray, smallest: int) -> np.ndarray:
    """Laplacian pyramid blend (Burt and Adelson 1983, "A multiresolution spline").

    Args:
        source, target: (H, W, 3) float32 in [0, 1].
        matte: (H, W) float32 in [0, 1], 1 takes the source.
        smallest: the pyramid ends before a side falls below this many pixels.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    soft = np.clip(cv2.GaussianBlur(matte, (0, 0), 2) * 2, 0, 1)
    # pyramids are linear: that of the difference blends like those of both pictures
    difference = (source - target) * (soft + matte * (1 - soft))[..., None]  # junk far from the matte stays out
    bands: list[np.ndarray] = []
    while min(matte.shape) // 2 >= smallest:
        size = (matte.shape[1], matte.shape[0])
        small = cv2.pyrDown(difference)
        bands.append((difference - cv2.pyrUp(small, dstsize=size)) * matte[..., None])
        difference, matte = small, cv2.pyrDown(matte)
    blended = difference * matte[..., None]
    for band in reversed(bands):
        blended = cv2.pyrUp(blended, dstsize=(band.shape[1], band.shape[0])) + band
    return np.clip(target + blended, 0, 1)


def reached_box(matte: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that a matte reaches, with room for the blur in `multiband`."""
    found = box(matte)
    if found is None:
        return slice(0, 0), slice(0, 0)
    left, top, right, bottom = widened(found, 9, matte.shape[::-1])
    return slice(top, bottom), slice(left, right)
