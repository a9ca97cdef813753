"""Reads NumPy files (.npy, .npz): numbers only, and no more of them than the file holds."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from mattface.errors import WeightsError

LARGEST = 4 << 30
"""Bytes that a file may have, and that its arrays may have together."""

EXPANSION = 1000
"""How many times smaller than its arrays a compressed file may be."""

DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error),
)
"""What the zip reader and NumPy's reader of headers raise on damage."""


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name; that of a .npy file under "". They cannot be written to.

    Raises:
        WeightsError: no such file, another kind of file, a damaged one, one that holds Python objects, or a bomb.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size > LARGEST:
                raise ValueError(f"{size} bytes, at most {LARGEST} are read")
            if file.read(4) == b"PK\x03\x04":
                return _archive(file, min(LARGEST, EXPANSION * size))
            file.seek(0)
            return {"": _array(file.read())}
    except DAMAGE as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"expected NumPy arrays in {path}; it holds none ({said}). Get it again.") from error


def _archive(file: IO[bytes], limit: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as box:
        members = box.infolist()
        if sum(member.file_size for member in members) > limit or min((m.file_size for m in members), default=0) < 0:
            raise ValueError(f"its arrays have more than {limit} bytes")
        for member in members:
            plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not member.filename.endswith(".npy") or not plain:
                raise ValueError(f"a member {member.filename[:60]!r}, which NumPy does not write")
        return {member.filename.removesuffix(".npy"): _array(box.read(member)) for member in members}


def _array(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = header(stream)
    rest = len(data) - stream.tell()
    if dtype.hasobject or dtype.itemsize == 0 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array of other things than numbers")
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"an array of shape {str(shape)[:60]} states more or less than the {rest} bytes that follow")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if columns_first else "C")
