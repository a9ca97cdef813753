"""Weights and inputs that follow from names and shapes alone, so that golden files hold outputs only.

A value is drawn from NumPy's legacy generator (`RandomState`), seeded with the CRC-32 of the tensor's name; its stream
is the same on every machine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

CONSTANTS = ("resample_filter", ".kernel")
"""Parts of names of buffers that a network computes itself."""


def draws(name: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 numbers that belong to `name`."""
    state = np.random.RandomState(zlib.crc32(name.encode()))
    return np.asarray(state.standard_normal(tuple(shape)), np.float32)


def seeded_input(tag: str, shape: Sequence[int]) -> torch.Tensor:
    """Network input that belongs to `tag`."""
    return torch.from_numpy(draws(f"input:{tag}", shape))


def seeded_tensor(name: str, shape: Sequence[int], equalized: bool) -> torch.Tensor:
    """Weight that belongs to `name`.

    Args:
        name: key in the original network's state dict; its ending tells what kind of number is wanted.
        shape: its shape.
        equalized: True for networks that scale unit-variance weights themselves.
    """
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape))
    normal = draws(name, shape)
    if name.endswith("running_var"):
        value = np.exp(0.1 * normal)
    elif name.endswith("running_mean"):
        value = 0.1 * normal
    elif len(shape) >= 2:
        value = normal if equalized else normal / math.sqrt(math.prod(shape[1:]))
    else:
        value = 0.1 * normal + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(np.asarray(value, np.float32))


def seeded_state(shapes: Mapping[str, Sequence[int]], equalized: bool) -> dict[str, torch.Tensor]:
    """State dict of an original network from its keys and shapes, constants left out."""
    names = [name for name in shapes if not any(part in name for part in CONSTANTS)]
    return {name: seeded_tensor(name, shapes[name], equalized) for name in names}


def repeated_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """State dict whose tensors are one repeated number each, which belongs to the key: a few bytes on disk."""
    numbers = {name: 0.01 + zlib.crc32(name.encode()) % 1000 / 1e5 for name in shapes}
    return {name: torch.full((1,) * len(shape), numbers[name]).expand(tuple(shape)) for name, shape in shapes.items()}


def summary(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, float, float]]:
    """Key -> shape, least and greatest number: all there is to know about repeated ones."""
    return {key: (value.shape, float(value.min()), float(value.max())) for key, value in state.items()}


def largest_error(got: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference relative to the largest stored number."""
    return float(np.abs(got.detach().numpy() - expected).max() / np.abs(expected).max())
