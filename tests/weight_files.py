"""What tests of reading weight files share: a good checkpoint, and how a bad file must end."""

from __future__ import annotations

import argparse
import collections
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from mattface.errors import WeightsError

CHECKPOINT = {
    "state_dict": collections.OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(3, dtype=torch.float16)),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "view": torch.arange(10)[2:5],
    "args": argparse.Namespace(size=1024),
    "size": torch.Size((1, 2)),
    "step": 7,
}
MEBIBYTE = 1 << 20
HUGE = 1 << 40


@contextmanager
def rejected(match: str = "") -> Iterator[None]:
    """A WeightsError of one line, without large allocations on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=match) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000, caught.value
    assert peak < 64 * MEBIBYTE, f"{peak / MEBIBYTE:.0f} MiB were allocated"


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
