"""Files appear whole or not at all: bytes go to a temporary name beside the target, then the name is swapped."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mattface.errors import InputError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file may not grow"}


def check_target(path: str | os.PathLike[str], overwrite: bool = False, inputs: Sequence[object] = ()) -> Path:
    """Makes sure that a file can be written before any work is done for it.

    Args:
        path: where the file shall be.
        overwrite: an existing file there may be replaced.
        inputs: paths that were read (others are ignored); writing onto one is rejected like any existing file.

    Returns:
        The path with symbolic links followed.

    Raises:
        InputError: missing or unwritable folder, a folder or device of that name, an input, an existing file.
    """
    given = Path(path)
    target = Path(os.path.realpath(given))
    if not target.parent.is_dir():
        raise InputError(
            f"{given}: expected an existing folder to write into; {target.parent} is none. Create it first."
        )
    if target.exists() and not target.is_file():
        raise InputError(f"{given}: expected a file name; a folder or device of that name is there. Add a file name.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{given}: expected a writable folder; {target.parent} is not. Choose another folder.")
    if target.exists() and not overwrite:
        same = any(isinstance(i, str | os.PathLike) and _same(target, i) for i in inputs)
        what = "it is one of the inputs" if same else "the file exists"
        raise InputError(
            f"{given}: expected a new file name; {what}. Choose another name, or allow it with --overwrite."
        )
    return target


def _same(target: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return target.samefile(other)
    except OSError:
        return False


def write_whole(data: bytes, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Writes a file so that its name never stands for half of it.

    The bytes go to a hidden temporary file in the same folder, are forced to the disk, and then take the name. Whatever
    interrupts that, the temporary file is removed and an earlier file of that name is untouched.

    Returns:
        The path written.

    Raises:
        InputError: see `check_target`; or the disk is full or cannot be written.
    """
    target = check_target(path, overwrite)
    temporary = target.with_name(f".mattface-{secrets.token_hex(6)}.tmp")
    try:
        _write_synced(temporary, data)
        os.replace(temporary, target)
    except OSError as error:
        raise _explained(error, Path(path), len(data)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return target


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _explained(error: OSError, path: Path, size: int) -> InputError:
    reason = FULL.get(error.errno or 0)
    if reason:
        return InputError(
            f"{path}: {size / 1e6:.1f} MB could not be written: {reason}. Free some space, or write elsewhere."
        )
    return InputError(f"{path}: could not be written ({error}). Check the folder and its permissions.")
