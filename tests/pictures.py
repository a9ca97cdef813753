"""Pictures that tests of reading and writing share: small ones with every extreme value in them."""

from __future__ import annotations

from typing import Any

import numpy as np


def noise(dtype: Any = np.uint8, channels: int = 3, size: tuple[int, int] = (13, 9)) -> np.ndarray:
    """(9, 13, C) random values, 0 and white among them."""
    values = np.random.default_rng(7).random((size[1], size[0], channels), dtype=np.float32)
    values[0, 0], values[0, 1] = 0, 1
    return values if dtype == np.float32 else np.rint(values * np.iinfo(dtype).max).astype(dtype)
