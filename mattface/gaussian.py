"""Gaussian blur of maps, wide ones at a lower resolution."""

from __future__ import annotations

import cv2
import numpy as np


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with zeros outside; wide ones are made at a lower resolution.

    Args:
        values: (H, W) or (H, W, C) float32.
        sigma: in pixels; below 0.3 nothing is done.

    Returns:
        An array of the same shape.
    """
    if sigma < 0.3:
        return values
    step = max(1, int(sigma / 3))
    height, width = values.shape[:2]
    small = (max(1, round(width / step)), max(1, round(height / step)))
    shrunk = cv2.resize(values, small, interpolation=cv2.INTER_AREA) if step > 1 else values
    shrunk = cv2.GaussianBlur(shrunk, (0, 0), sigma / step, borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC) if step > 1 else shrunk
