"""Memory of large results on a CPU, used again once nobody holds them.

Fresh memory costs a page fault per 4 KiB when it is first written: more than the op that fills it. Results from
`POOLED_FROM` bytes on therefore come from a small pool, in which little lies idle.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import torch

POOLED_FROM = 8 << 20
"""Smaller results come from the C library, which uses its memory again by itself."""
KEPT = 320 << 20
"""Bytes that may lie idle when another buffer is made."""
ROOM = 2
"""A buffer is taken for a result of at least its size divided by this."""


class Buffer:
    """Memory that results are laid out in; idle while nothing but the pool holds it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._storage = torch.UntypedStorage(size)

    def idle(self) -> bool:
        """Whether no tensor holds the storage and nobody the Python object that stands for it."""
        held = torch._C._storage_Use_Count(self._storage._cdata)  # type: ignore[attr-defined]
        return held == 1 and sys.getrefcount(self._storage) <= 2  # this object's, and the argument

    def laid_out(self, outline: torch.Tensor) -> torch.Tensor:
        """A tensor of that shape, type and strides."""
        return torch.empty(0, dtype=outline.dtype).set_(self._storage, 0, outline.shape, outline.stride())


_lock = threading.Lock()
_buffers: list[Buffer] = []


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
        fitting = [b for b in _buffers if b.idle() and size <= b.size <= ROOM * size]
        return (min(fitting, key=lambda b: b.size) if fitting else _new(size)).laid_out(outline)


def release_idle() -> None:
    """Gives idle buffers back."""
    with _lock:
        _shrink(0)


def _new(size: int) -> Buffer:
    """Another buffer; idle ones beyond the bound go first."""
    _shrink(max(0, KEPT - size))
    _buffers.append(Buffer(size))
    return _buffers[-1]


def _shrink(most: int) -> None:
    """Drops idle buffers, oldest first, until those left hold `most` bytes at most."""
    idle = [b for b in _buffers if b.idle()]
    spare = sum(b.size for b in idle) - most
    for buffer in idle:
        if spare <= 0:
            break
        spare -= buffer.size
        _buffers.remove(buffer)
