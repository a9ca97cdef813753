"""Where weights lie on this machine: the cache, folders that are only read, and hashes pinned beside files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO

HEX = frozenset("0123456789abcdef")


def home() -> Path:
    """Folder fetched weights are kept in: $MATTFACE_HOME/weights, else the user's cache folder. May not exist yet."""
    root = os.environ.get("MATTFACE_HOME")
    if root:
        return Path(root).expanduser() / "weights"
    import platformdirs

    return Path(platformdirs.user_cache_dir("mattface")) / "weights"


def search_path() -> list[Path]:
    """Folders that are searched for weights, in order: `home()`, then $MATTFACE_WEIGHTS_PATH, which is only read.

    The variable lists folders as PATH does: separated by ":" (";" on Windows).
    """
    extra = os.environ.get("MATTFACE_WEIGHTS_PATH", "").split(os.pathsep)
    return [home(), *(Path(folder).expanduser() for folder in extra if folder)]


def offline() -> bool:
    """Whether $MATTFACE_OFFLINE forbids every use of the network (set, and not 0)."""
    return os.environ.get("MATTFACE_OFFLINE", "0") not in ("", "0")


def pin_file(path: Path) -> Path:
    """The file that holds the pinned hash of `path`, in the format of the command sha256sum."""
    return path.with_name(path.name + ".sha256")


def pinned(path: Path) -> str:
    """SHA-256 that was pinned when `path` was first fetched or adopted, in lower-case hex; empty when there is none."""
    try:
        word = pin_file(path).read_bytes()[:64].decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return word if len(word) == 64 and set(word) <= HEX else ""


def pin(path: Path, sha256: str) -> None:
    """Notes the hash that `path` must have from now on.

    Raises:
        OSError: the folder cannot be written.
    """
    new = path.with_name(f".{path.name}.sha256.{os.getpid()}")
    try:
        new.write_text(f"{sha256}  {path.name}\n", encoding="ascii")
        os.replace(new, pin_file(path))
    finally:
        new.unlink(missing_ok=True)


class CannotWrite(OSError):
    """A file cannot be written here: the text says where and why."""


def write(out: IO[bytes], data: bytes) -> None:
    """Writes all of `data`.

    Raises:
        CannotWrite: the disk is full, or whatever else stands against it.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[out.write(view) :]
    except OSError as error:
        raise CannotWrite(
            f"{out.name} cannot be written ({error}). Make room or point MATTFACE_HOME elsewhere"
        ) from error


def need_space(folder: Path, size: int) -> None:
    """Makes sure that a file of `size` bytes fits on the disk of `folder`.

    Raises:
        CannotWrite: it does not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CannotWrite(
            f"expected {size / 1e6:.1f} MB of free space in {folder}; {free / 1e6:.1f} MB are free. "
            "Make room or point MATTFACE_HOME elsewhere"
        )
