"""Crop templates."""

from __future__ import annotations

import numpy as np

from mattface.errors import UsageError

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose tip and mouth corners belong in a 112 px ArcFace crop (centre of the first pixel at 0)."""


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
