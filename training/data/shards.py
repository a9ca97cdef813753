"""WebDataset shards: tar files whose members share a key (KEY.jpg, KEY.mask.png, KEY.txt), read at any place.

Every shard is indexed once by its headers, so samples are reached by number and a run continues exactly.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

END = 1024
"""Zeros at the end of a whole tar file."""


@dataclass(frozen=True)
class Member:
    """A file inside a tar file.

    Attributes:
        shard: the tar file.
        offset: of its first byte.
        size: in bytes.
        name: inside the tar file.
    """

    shard: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.shard.name}/{self.name}"


Blob = Path | Member
"""Where bytes lie."""


def read_bytes(blob: Blob) -> bytes:
    """The bytes of a file or of a member of a shard."""
    if isinstance(blob, Path):
        return blob.read_bytes()
    with blob.shard.open("rb") as file:
        file.seek(blob.offset)
        return file.read(blob.size)


def index_shard(path: Path) -> dict[str, dict[str, Member]]:
    """Key -> extension ("jpg", "mask.png") -> member, in the shard's order.

    Raises:
        tarfile.TarError, OSError: not a whole tar file.
    """
    samples: dict[str, dict[str, Member]] = {}
    with path.open("rb") as opened:
        opened.seek(-min(END, path.stat().st_size), 2)
        if opened.read() != bytes(END):
            raise tarfile.ReadError("it does not end as a whole tar file does")
    with tarfile.open(path, "r:") as tar:
        end = path.stat().st_size
        for info in tar:
            if not info.isfile():
                continue
            if info.offset_data + info.size > end:
                raise tarfile.ReadError(f"{info.name} ends beyond the file")
            folder, _, file = info.name.rpartition("/")
            stem, _, extension = file.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            samples.setdefault(key, {})[extension.lower()] = Member(path, info.offset_data, info.size, info.name)
    return samples


def index_shards(paths: Sequence[Path]) -> tuple[dict[str, dict[str, Member]], list[str]]:
    """All samples of readable shards, and a sentence about every shard that was left out."""
    samples: dict[str, dict[str, Member]] = {}
    notes = []
    for path in paths:
        try:
            found = index_shard(path)
        except (tarfile.TarError, OSError) as error:
            notes.append(f"shard {path.name} was left out: {error or type(error).__name__}")
            continue
        for key, members in found.items():
            samples[f"{path.stem}/{key}"] = members
    return samples, notes
