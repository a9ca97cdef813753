"""How pickles describe tensors: a storage with so many elements, and a window on it that must lie inside."""

from __future__ import annotations

import math
from typing import Any

from mattface.weights.pickle_machine import Rejected

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bf2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
"""Names of torch's storages and numpy's codes of their elements; the last character is the width in bytes."""

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The first two values of a torch file that is no zip archive."""


def width(kind: str) -> int:
    """Bytes of one element of a storage."""
    return int(STORAGES[kind][-1])


def expect(what: str, values: tuple[Any, ...], *types: type) -> tuple[Any, ...]:
    """The values, when they are of exactly these types.

    Raises:
        Rejected: another count or type; a subclass is another type.
    """
    if len(values) != len(types) or any(type(v) is not t for v, t in zip(values, types, strict=True)):
        raise Rejected(f"{what} in it is not written as such files write it")
    return values


def check_window(stored: int, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> None:
    """Whether a tensor lies inside its storage.

    Args:
        stored: elements in the storage.
        offset: of the first element.
        size: elements along each dimension.
        stride: elements from one index to the next along each dimension.

    Raises:
        Rejected: it does not. It may hold an element more than once, and so more elements than are stored.
    """
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)) or len(size) != len(stride) or len(size) > 8:
        raise Rejected("a tensor in it has no valid shape")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
    if last >= stored:
        shape = "x".join(str(n) if n < 1 << 40 else "huge" for n in size)
        raise Rejected(f"a tensor in it reaches beyond its storage: shape {shape}, {stored} elements stored")
