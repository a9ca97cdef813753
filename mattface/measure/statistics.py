"""Means with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 2000
SEED = 20261121


def summary(values: Sequence[float], geometric: bool = False) -> dict[str, Any]:
    """Mean, median and a 95 % confidence interval of the mean by the bootstrap (Efron 1979), percentiles, seeded.

    Args:
        values: one number per pair; NaN where nothing could be measured, which is left out and counted.
        geometric: for ratios: the mean is the geometric one.

    Returns:
        "mean", "median", "low", "high", "count" of values, "missing"; the first four are None without any value.
    """
    given = np.asarray(values, np.float64)
    known = given[np.isfinite(given)]
    counts = {"count": len(known), "missing": len(given) - len(known)}
    if not len(known):
        return {"mean": None, "median": None, "low": None, "high": None, **counts}
    scaled = np.log(np.maximum(known, 1e-12)) if geometric else known
    drawn = np.random.default_rng(SEED).integers(0, len(scaled), (DRAWS, len(scaled)))
    low, high = np.percentile(scaled[drawn].mean(1), [2.5, 97.5])
    three = np.array([scaled.mean(), low, high])
    mean, low, high = np.exp(three) if geometric else three
    return {"mean": float(mean), "median": float(np.median(known)), "low": float(low), "high": float(high), **counts}


def paired(values: Sequence[float], others: Sequence[float], geometric: bool = False) -> dict[str, Any]:
    """`summary` of the differences `values` - `others` of the same pairs; of their ratios if `geometric`."""
    a, b = np.asarray(values, np.float64), np.asarray(others, np.float64)
    return summary((a / np.maximum(b, 1e-12) if geometric else a - b).tolist(), geometric)
