"""Memory of large results on a CPU, used again once nobody holds them.

Fresh memory costs a page fault per 4 KiB when it is first written: more than the op that fills it. Results from
`POOLED_FROM` bytes on therefore come from a small pool. What is kept idle is bounded by `KEPT`; `release_memory` gives
it back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

POOLED_FROM = 8 << 20
"""Smaller results come from the C library, which uses its memory again by itself."""
KEPT = 768 << 20
"""Bytes that may lie idle, enough for a 1024 px generator in single precision."""
ROOM = 2
"""A buffer is taken for a result of at least its size divided by this."""

_lock = threading.Lock()
_buffers: list[torch.UntypedStorage] = []


def empty(shape: Sequence[int], dtype: torch.dtype, layout: torch.memory_format, device: torch.device) -> torch.Tensor:
    """`torch.empty`, from the pool where that pays."""
    return _take(torch.empty(shape, dtype=dtype, device="meta", memory_format=layout), device)


def empty_like(x: torch.Tensor) -> torch.Tensor:
    """`torch.empty_like`, from the pool where that pays."""
    return _take(torch.empty_like(x, device="meta"), x.device)


def _take(outline: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Memory for a tensor of that shape, type and strides."""
    size = outline.numel() * outline.element_size()
    if size < POOLED_FROM or device.type != "cpu":
        return torch.empty_strided(outline.shape, outline.stride(), dtype=outline.dtype, device=device)
    with _lock:
        fitting = [s for s in _buffers if _idle(s) and size <= s.nbytes() <= ROOM * size]
        storage = min(fitting, key=lambda s: s.nbytes()) if fitting else _new(size)
        return torch.empty(0, dtype=outline.dtype).set_(storage, 0, outline.shape, outline.stride())


def release_memory() -> int:
    """Gives idle memory of the pool back.

    Returns:
        Bytes given back.
    """
    with _lock:
        return _shrink(0)


def _idle(storage: torch.UntypedStorage) -> bool:
    """Whether only the pool holds a buffer."""
    return torch._C._storage_Use_Count(storage._cdata) == 1  # type: ignore[attr-defined]


def _new(size: int) -> torch.UntypedStorage:
    """Another buffer; those that no longer fit anything go first."""
    _shrink(max(0, KEPT - size))
    storage = torch.UntypedStorage(size)
    _buffers.append(storage)
    return storage


def _shrink(most: int) -> int:
    """Drops idle buffers, oldest first, until those left hold `most` bytes at most; returns the bytes dropped."""
    idle = [s for s in _buffers if _idle(s)]
    spare = sum(s.nbytes() for s in idle) - most
    dropped = 0
    for storage in idle:
        if dropped >= spare:
            break
        dropped += storage.nbytes()
        _buffers[:] = [s for s in _buffers if s is not storage]
    return dropped
