"""What the commands for moving pictures have in common: arguments, swapper, roles, and a polite end."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from mattface.cli import loading, origin
from mattface.cli.swap import DTYPES, _device, plain
from mattface.errors import InputError, UsageError
from mattface.methods import METHODS

if TYPE_CHECKING:
    from mattface.pipeline import Swapper
    from mattface.realtime.faces import Cast
    from mattface.realtime.track import Pace

NEED_AV = "Type: pip install 'mattface[realtime]'"
ALL = 6
"""Faces followed at once where all are wanted."""


def add_sources(parser: Any) -> None:
    """Which source goes onto which face."""
    group = parser.add_argument_group("faces")
    group.add_argument(
        "-s", "--source", action="append", metavar="FILE",
        help="picture of the person whose face is wanted; repeat for several pictures of the same person",
    )  # fmt: skip
    group.add_argument(
        "--map", action="append", default=[], type=_pair, metavar="REFERENCE=SOURCE",
        help="the person in picture REFERENCE gets the face of SOURCE; repeat for several people. "
             "All others get that of --source, or stay as they are",
    )  # fmt: skip
    group.add_argument("--face", choices=("largest", "all"),
                       help="which faces (default: the largest; all of them with --map)")  # fmt: skip


def add_how(parser: Any, default: str | None = None) -> None:
    """Method, engine, device, report."""
    group = parser.add_argument_group("how")
    group.add_argument("--method", choices=sorted(METHODS), default=default, help="swapping method (default: mesh)")
    group.add_argument("--weights", metavar="NAME|DIR", help="weights of the method, by name or folder")
    group.add_argument("--engine", metavar="NAME",
                       help="what runs the method's network: eager, compile, onnxruntime, ...")  # fmt: skip
    group.add_argument("--device", type=_device, default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    group.add_argument("--dtype", choices=DTYPES,
                       help="dtype of the networks (default: fp32; live on AMX: bf16)")  # fmt: skip
    group.add_argument("--detect-every", type=_count, metavar="N", help="frames between looks for new faces")
    group.add_argument("--report", metavar="FILE.json", help="write what was done, as JSON")
    group.add_argument("--overwrite", action="store_true", help="replace files that exist")
    loading.add_commercial(group)
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    origin.add_options(parser)


def _pair(text: str) -> tuple[str, str]:
    reference, equals, source = text.partition("=")
    if not (reference and equals and source):
        raise argparse.ArgumentTypeError(f"expected REFERENCE=SOURCE, two pictures; got {text!r}")
    return reference, source


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on; got {text!r}")
    return int(text)


def need_av() -> None:
    """Says what to type when the package for video files is not installed."""
    import importlib.util

    if importlib.util.find_spec("av") is None:
        raise UsageError(f"video needs the package av, which is not installed. {NEED_AV}")


def build(args: argparse.Namespace, options: Mapping[str, Any], dtype: str | None = None) -> tuple[Swapper, Cast]:
    """The swapper and its roles.

    Args:
        args: parsed arguments.
        options: of the method's builder.
        dtype: where the arguments name neither one nor an engine, which converts the network itself.
    """
    import cv2

    from mattface.realtime.engine import accelerate
    from mattface.realtime.faces import Cast

    if not args.source and not args.map:
        raise UsageError("expected --source FILE or --map REFERENCE=SOURCE; got neither.")
    cv2.setNumThreads(1)  # the stages run side by side; threads inside one would only wait for each other
    method = args.method or "mesh"
    load_in = None if args.engine else args.dtype or dtype
    chosen = {"weights": args.weights, "device": args.device, "dtype": load_in, "commercial": args.commercial}
    swapper = loading.load(method, **chosen, **options)
    if args.engine:
        swapper = accelerate(swapper, args.engine, args.dtype)
    return swapper, Cast(swapper, args.source or None, args.map)


def pace(args: argparse.Namespace, usual: Pace) -> Pace:
    """How often the detector looks, and how many faces are followed."""
    which = args.face or ("all" if args.map else "largest")
    wanted = replace(usual, most=ALL if which == "all" else 1)
    return wanted if args.detect_every is None else replace(wanted, every=args.detect_every)


def check_report(path: str | None, overwrite: bool, others: list[str]) -> None:
    """The report can be written, before anything slow begins."""
    from mattface import picture_io

    if path is None:
        return
    if path in others:
        raise UsageError(f"expected different files for report and video; got {path} twice.")
    picture_io.check_output(path, overwrite, others, (".json",))


def write_report(report: dict[str, Any], path: str | None, overwrite: bool) -> None:
    """Writes the report, if one is wanted."""
    from mattface import picture_io

    if path is not None:
        text = json.dumps(plain(report), indent=2, allow_nan=False)
        picture_io.write_whole(f"{text}\n".encode(), path, overwrite)


def parts_of(swapper: Swapper) -> dict[str, Any]:
    """Method, device, parts and notes for a report, by the names that a still's report gives them."""
    described = swapper.describe()
    said = {name: described[name] for name in ("method", "weights", "device", "dtype", "engine", "parts")}
    return {**said, "notes": list(swapper.notes)}


class Status:
    """A line about the running work, on a terminal only; sentences go above it."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.live = quiet, sys.stderr.isatty() and not quiet
        self._lock, self._wide = threading.Lock(), 0

    def say(self, sentence: str) -> None:
        """A sentence that stays."""
        if not self.quiet:
            with self._lock:
                self._wipe()
                print(f"mattface: note: {sentence}", file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """The line about the running work."""
        if self.live:
            with self._lock:
                print(f"\r{text:<{self._wide}}", end="", file=sys.stderr, flush=True)
                self._wide = len(text)

    def end(self) -> None:
        """Removes the line."""
        with self._lock:
            self._wipe()

    def _wipe(self) -> None:
        if self._wide:
            print("\r" + " " * self._wide + "\r", end="", file=sys.stderr, flush=True)
            self._wide = 0


def say_notes(status: Status, swapper: Swapper) -> None:
    """What the swapper's parts leave to be said."""
    for note in swapper.notes:
        status.say(note)


def summary(report: dict[str, Any]) -> str:
    """One line about a run so far."""
    late, frames = report["latency_ms"], report["frames"]
    dropped = sum(report["dropped"].values())
    return (
        f"{frames['shown']} frames, {report['fps']:.1f} fps, latency p50 {late['p50']} p95 {late['p95']} p99 "
        f"{late['p99']} ms, {dropped} dropped"
    )


@contextmanager
def stopping(say: Any) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that work ends between two frames and files are finished."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            say("stopping; finishing what was begun")
        stop.set()

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the process belongs to somebody else, who decides
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def readable(paths: list[str]) -> None:
    """Every input is a file, before anything slow begins."""
    import os

    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: expected a file; there is none of that name. Check the path.")
