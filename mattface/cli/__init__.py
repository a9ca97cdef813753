"""The command line: mattface swap | video | live | verify | sample | train | bench | doctor | ...

Exit codes: 0 done, 2 wrong usage, 3 input unreadable or unsupported (or output not writable), 4 no face found,
5 weights missing or damaged, 6 device unavailable, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mattface import __version__
from mattface.cli import (
    bench,
    data,
    demo,
    doctor,
    export,
    invert,
    live,
    ops,
    sample,
    studio,
    swap,
    train,
    verify,
    video,
    weights,
)
from mattface.errors import MattfaceError

INTERRUPTED = 130
TERMINATED = 143
DESCRIPTION = "Face swapping at megapixel resolution."
EPILOG = """examples:
  mattface swap -s alice.jpg -t portrait.jpg -o swapped.png
  mattface video -s alice.jpg -t clip.mp4 -o swapped.mp4
  mattface live -s alice.jpg
  mattface verify swapped.png
  mattface doctor
  mattface weights pull embedded

exit codes:
  0 done   2 wrong usage   3 input unreadable or output not writable   4 no face found
  5 weights missing   6 device unavailable   1 anything else   130 interrupted

Set MATTFACE_TRACEBACK=1 to see where an error comes from.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and where to read on; exits with 2."""
        self.exit(2, f"mattface: error: {message}. See: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    top = Parser("mattface", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    top.add_argument("--version", action="version", version=f"mattface {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        swap, video, live, verify, export, sample, invert, studio, data, train, bench, doctor, weights, ops, demo,
    ):  # fmt: skip
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        The exit code. Wrong usage leaves by SystemExit(2), as argparse does.
    """
    args = parser().parse_args(argv)
    try:
        with _terminable():
            args.run(args)
            sys.stdout.flush()
    except MattfaceError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half written is left", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MattfaceError.exit_code
    except Exception as error:  # a user of the command line gets a sentence, whatever went wrong
        sentence = f"unexpected {type(error).__name__}: {error}. Set MATTFACE_TRACEBACK=1 to see where"
        return _fail(sentence, MattfaceError.exit_code)
    return 0


def _fail(message: str, code: int) -> int:
    if os.environ.get("MATTFACE_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"mattface: error: {' '.join(message.split())}", file=sys.stderr)
    return code


@contextmanager
def _terminable() -> Iterator[None]:
    """A polite request to end (SIGTERM) unwinds like Ctrl-C, so that temporary files are removed."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    try:
        previous = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: the process belongs to somebody else, who decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
