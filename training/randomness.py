"""Randomness that depends on a seed and a position alone: what a run draws does not depend on where it was resumed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

SALT = 0x5EED


def position_seed(seed: int, position: int) -> int:
    """One seed for a position of a run."""
    return seed * 1_000_003 + position


def torch_generator(seed: int, position: int) -> torch.Generator:
    """torch's generator for a position of a run."""
    return torch.Generator().manual_seed(position_seed(seed, position))


def numpy_generator(seed: int, *numbers: int) -> np.random.Generator:
    """numpy's generator for a seed and any further numbers."""
    return np.random.default_rng([SALT, seed, *numbers])


def shuffled_index(position: int, count: int, seed: int) -> int:
    """Index of the sample at a position of a run over `count` samples: every epoch is a permutation of its own."""
    epoch, place = divmod(position, count)
    return int(permutation(epoch, count, seed)[place])


@lru_cache(maxsize=2)
def permutation(epoch: int, count: int, seed: int) -> np.ndarray:
    """(count,) order of an epoch."""
    return numpy_generator(seed, epoch, 1).permutation(count)
