"""Least squares of the fit: coefficients that stay in [0, 1]."""

from __future__ import annotations

import numpy as np

SWEEPS = 12
"""Rounds of coordinate descent."""


def minimise_bounded(normal: np.ndarray, right: np.ndarray, free: int) -> np.ndarray:
    """Minimises x normal x / 2 - right x; the first `free` numbers are free, the others stay in [0, 1].

    Alternates: bounded ones by coordinate descent on the free ones' Schur complement, then the free ones exactly.
    """
    a, b, c = normal[:free, :free], normal[:free, free:], normal[free:, free:]
    both = np.linalg.solve(a, np.column_stack([b, right[:free]]))
    inner, wanted = c - b.T @ both[:, :-1], right[free:] - b.T @ both[:, -1]
    x = np.clip(np.linalg.solve(inner, wanted), 0, 1)
    for _ in range(SWEEPS):
        for k in range(len(x)):
            x[k] = min(max(x[k] + (wanted[k] - inner[k] @ x) / inner[k, k], 0.0), 1.0)
    return np.concatenate([both[:, -1] - both[:, :-1] @ x, x])
