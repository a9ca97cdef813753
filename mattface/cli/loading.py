"""Building a swapper for the command line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mattface

if TYPE_CHECKING:
    from mattface.pipeline import Swapper

STDERR = 2


def add_commercial(parser: Any) -> None:
    """The switch of every command that picks parts."""
    parser.add_argument("--commercial", action="store_true", default=None,
                        help="pick only parts whose licences allow commercial use; says what is left out")  # fmt: skip


def load(*args: Any, **options: Any) -> Swapper:
    """`mattface.load`, without the lines that native libraries print about themselves."""
    with _native_chatter_held_back():
        return mattface.load(*args, **options)


@contextmanager
def _native_chatter_held_back() -> Iterator[None]:
    """Holds back what is written to the error stream, then passes all of it on but lines that begin with INFO.

    The TFLite runtime announces every model on the process's error stream and has no switch for it.
    """
    sys.stderr.flush()
    real = os.dup(STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, STDERR)
            os.close(real)
            held.seek(0)
            for line in held:
                if not line.startswith(b"INFO"):
                    os.write(STDERR, line)
