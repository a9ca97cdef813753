"""Reads torch checkpoints (.pt, .pth): bounds first, then torch's restricted reader.

`torch.load(weights_only=True)` runs nothing that a file contains, but it believes stated sizes and calls any of its own
tensor makers with any argument. So the file is walked once before, without making anything: names of globals, counts
of elements, windows on storages, sizes and checksums of records.
"""

from __future__ import annotations

import argparse
import math
import mmap
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mattface.errors import WeightsError
from mattface.weights.pickle_machine import Budget, Inert, Known, Machine, Rejected, reject_persistent
from mattface.weights.pickled_tensors import MAGIC, PROTOCOL, STORAGES, check_window, expect, width

LARGEST = 16 << 30
"""Bytes a file may have."""

RECORDS = 100_000
"""Records that a zip archive may have."""


def read_torch_file(path: str | Path) -> Any:
    """What a torch checkpoint holds: tensors on the CPU in plain containers, with argparse.Namespace as the only class.

    Tensors of a zip archive (torch 1.6 and later) stay in the file until they are used.

    Args:
        path: the file, written by torch.save in either of its formats.

    Raises:
        WeightsError: no such file, another kind of file, a damaged one, or one that holds anything but tensors and
            plain containers. Nothing in it has been run.
    """
    import torch

    try:
        archive = _check(Path(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except FAILURES as error:
        raise _no_checkpoint(path, error) from error


FAILURES = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, RuntimeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError),
)
"""What our own check and the zip reader raise (Rejected is a ValueError), and torch, which states no exceptions."""


def _no_checkpoint(path: str | Path, error: Exception) -> WeightsError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WeightsError(
        f"expected a checkpoint of tensors; {path} is none: {lines[0].rstrip('.')}. "
        "Nothing in it was run. Get the file from its makers again."
    )


def _check(path: Path) -> bool:
    """Walks the file once; whether it is a zip archive."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        if not 0 < size <= LARGEST:
            raise Rejected(f"it has {size} bytes, expected 1 to {LARGEST}")
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    if data[:4] == b"PK\x03\x04":
        _check_archive(path, data)
        return True
    _check_stream(data)
    return False


def _check_archive(path: Path, data: memoryview) -> None:
    """Records as torch writes them: under one folder, not compressed, one after another, with right checksums."""
    with zipfile.ZipFile(path) as box:
        infos, plain = box.infolist(), not box.comment
        if len(infos) > RECORDS or not plain or len(data) < 22 or data[-22:-18] != b"PK\x05\x06":
            raise Rejected("its archive is not laid out as torch does it")
        folder = infos[0].filename.partition("/")[0] if infos else ""
        records: dict[str, memoryview] = {}
        left = len(data)
        for info in infos:
            name, left = info.filename.removeprefix(f"{folder}/"), left - info.file_size
            stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
            if name == info.filename or name in records or not stored or info.flag_bits & 1 or left < 0:
                raise Rejected(f"its record {info.filename[:60]!r} is not stored as torch does it")
            records[name] = _record(data, info)
    if "data.pkl" not in records or "constants.pkl" in records:
        raise Rejected("its archive is no checkpoint (TorchScript and other programs are not read)")

    def stored_as(identifier: Any) -> _Stored:
        kind, key, count = _storage(identifier, 5)
        record = records.get(f"data/{key}")
        if record is None or len(record) < count * width(kind):
            raise Rejected(f"a tensor in it states {count} elements; its record has {len(record or b'')} bytes")
        return _Stored(count, width(kind))

    if Machine(records["data.pkl"], _Names().resolve, stored_as).run() is None:
        raise Rejected("it holds nothing")


def _record(data: memoryview, info: zipfile.ZipInfo) -> memoryview:
    head = data[info.header_offset : info.header_offset + 30]
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise Rejected(f"its record {info.filename[:60]!r} has no header")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    record = data[start : start + info.file_size]
    if len(record) != info.file_size or zlib.crc32(record) != info.CRC:
        raise Rejected(f"its record {info.filename[:60]!r} is damaged")
    return record


def _check_stream(data: memoryview) -> None:
    """The format before torch 1.6: five pickles, then count and elements of each storage."""
    budget, names, at = Budget(), _Names(), 0
    sizes: dict[str, int] = {}

    def stored_as(identifier: Any) -> _Stored:
        kind, key, count = _storage(identifier, 6)
        if sizes.setdefault(key, count * width(kind)) != count * width(kind):
            raise Rejected(f"its storage {key[:40]!r} has two sizes")
        return _Stored(_view(identifier[5], count), width(kind))

    parts = []
    for number in range(5):
        rules = (names.resolve, stored_as) if number == 3 else (_nothing, reject_persistent)
        machine = Machine(data, *rules, at, budget)
        parts.append(machine.run())
        at = machine.at
        if number < 2 and parts[number] != (MAGIC, PROTOCOL)[number]:
            raise Rejected("it is no torch file")
    keys = parts[4]
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(sizes):
        raise Rejected("its list of storages is not that of its tensors")
    if at + sum(8 + size for size in sizes.values()) > len(data):
        raise Rejected(f"it ends early: {sum(sizes.values())} bytes of elements are stated, {len(data) - at} follow")


def _storage(identifier: Any, length: int) -> tuple[str, str, int]:
    """(type name, key, element count) of a persistent identifier."""
    if not isinstance(identifier, tuple) or len(identifier) != length:
        raise Rejected("a tensor in it has no storage of the known layout")
    tag, kind, key, _, count = expect("a storage", identifier[:5], str, Known, str, str, int)
    if tag != "storage" or kind.name not in STORAGES or count < 0:
        raise Rejected("a tensor in it has no storage of the known layout")
    return kind.name, key, count


def _view(view: Any, count: int) -> int:
    """Elements of a part of a storage (its key, first element, elements), or of all of it."""
    if view is None:
        return count
    _, offset, size = expect("a part of a storage", view if isinstance(view, tuple) else (), str, int, int)
    check_window(count, offset, (size,), (1,))
    return int(size)


def _nothing(module: str, name: str) -> Known:
    raise Rejected(f"it names {module!r} {name!r}, which no checkpoint needs")


@dataclass(frozen=True)
class _Stored:
    """A storage, or a part of one: its elements and the bytes of each."""

    count: int
    width: int


class _Names:
    """What the names in a checkpoint stand for, and the bytes that its tensors may still have when they are copied."""

    def __init__(self) -> None:
        self.left = LARGEST
        tensor = Known("tensor", call=self.tensor)
        self.table = GLOBALS | {("torch._utils", f"_rebuild_tensor{v}"): tensor for v in ("", "_v2")}

    def resolve(self, module: str, name: str) -> Known:
        """A storage type, or an entry of the table."""
        if module == "torch" and name in STORAGES:
            return Known(name)
        if (module, name) not in self.table:
            raise Rejected(f"it names {module!r} {name!r}, which no checkpoint of tensors needs")
        return self.table[module, name]

    def tensor(self, arguments: tuple[Any, ...]) -> Inert:
        """Checks that a tensor lies inside its storage."""
        if len(arguments) not in (4, 6):
            _reject("a tensor")
        stored, offset, size, stride = expect("a tensor", arguments[:4], _Stored, int, tuple, tuple)
        check_window(stored.count, offset, size, stride)
        self.left -= math.prod(size) * stored.width
        if self.left < 0:
            raise Rejected(f"its tensors have more than {LARGEST} bytes")
        return Inert()


def _namespace(arguments: tuple[Any, ...]) -> Inert:
    expect("a namespace", arguments)
    return Inert()


def _parameter(arguments: tuple[Any, ...]) -> Inert:
    return Inert() if len(arguments) == 3 and type(arguments[0]) is Inert else _reject("a parameter")


def _device(arguments: tuple[Any, ...]) -> Inert:
    return Inert() if all(type(a) in (str, int) for a in arguments[:2]) and len(arguments) < 3 else _reject("a device")


def _bytes(arguments: tuple[Any, ...]) -> Inert:
    _, coding = expect("a byte string", arguments, str, str)
    return Inert() if coding == "latin1" else _reject("a byte string")


def _reject(what: str) -> NoReturn:
    raise Rejected(f"{what} in it is not written as such files write it")


def _ordered(arguments: tuple[Any, ...]) -> Inert:
    """OrderedDict(), or with a list of [key, value] as Python 2 wrote it."""
    pairs = expect("a dictionary", arguments, list)[0] if arguments else []
    if not all(type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in pairs):
        _reject("a dictionary")
    return Inert()


def _sizes(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    (numbers,) = expect("a size", arguments, tuple)
    return expect("a size", numbers, *[int] * len(numbers))


def _numbers_of(kinds: str) -> dict[tuple[str, str], Known]:
    return {("torch", kind): Known(kind) for kind in kinds.split()}


GLOBALS = {
    ("collections", "OrderedDict"): Known("OrderedDict", call=_ordered),
    ("torch._utils", "_rebuild_parameter"): Known("parameter", call=_parameter),
    ("torch", "Size"): Known("Size", call=_sizes),
    ("torch", "device"): Known("device", call=_device),
    ("_codecs", "encode"): Known("bytes", call=_bytes),
    ("argparse", "Namespace"): Known("Namespace", new=_namespace),
    **_numbers_of("float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool"),
}
"""What a checkpoint may name beside storages and tensors; torch's own list is longer."""
