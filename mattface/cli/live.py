"""mattface live: a person's face onto that of a camera's picture or a playing video, with little delay."""

from __future__ import annotations

import argparse
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mattface import __version__
from mattface.cli import moving, origin
from mattface.errors import UsageError

if TYPE_CHECKING:
    from mattface.provenance import Settings
    from mattface.provenance.laying import Laying

EPILOG = """examples:
  mattface live -s alice.jpg
  mattface live -s alice.jpg --camera 1 --size 1280x720 --output v4l2:/dev/video2
  mattface live -s alice.jpg --input clip.mp4 --output swapped.mp4 --report latency.json

q or Escape in the window, or Ctrl-C, ends it. With --watch a changed source picture is taken at once. Swap only people
who agreed to it.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "live", help="swap faces of a camera", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.set_defaults(run=run)
    files = parser.add_argument_group("in and out")
    where = files.add_mutually_exclusive_group()
    where.add_argument("--camera", type=int, default=0, metavar="N", help="number of the camera (default: 0)")
    where.add_argument("--input", metavar="VIDEO", help="play a video file instead, at its own pace")
    files.add_argument("--loop", action="store_true", help="begin the video again at its end")
    files.add_argument("--output", default="window", metavar="window|FILE|v4l2:DEV",
                       help="where to show it (default: window); FILE ends in .mp4, .mov or .mkv")  # fmt: skip
    files.add_argument("--size", type=_size, metavar="WxH", help="picture size requested from the camera")
    files.add_argument("--fps", type=float, default=30.0, help="frames per second to request (default: 30)")
    files.add_argument("--seconds", type=float, metavar="S", help="end after so many seconds")
    files.add_argument("--watch", action="store_true", help="take the source picture again whenever its file changes")
    moving.add_sources(parser)
    moving.add_how(parser)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a size such as 640x480; got {text!r}")
    return int(width), int(height)


def run(args: argparse.Namespace) -> None:
    """Runs until the input ends, the user ends it, or the time is up."""
    moving.need_av()
    from mattface.devices import quick_dtype, resolve_device
    from mattface.methods import entry
    from mattface.realtime.loop import Loop, Painter
    from mattface.realtime.track import LIVE, Tracker

    if args.loop and not args.input:
        raise UsageError("--loop repeats a video; expected --input VIDEO with it.")
    method, quick = entry(args.method or "mesh"), quick_dtype(resolve_device(args.device))
    moving.check_report(args.report, args.overwrite, [p for p in (args.input, args.output) if p])
    moving.readable([args.input] if args.input else [])
    laying = _laying(args, origin.settings(args))
    status = moving.Status(args.quiet)
    with moving.stopping(status.say) as stop, ExitStack() as stack:
        sink = _sink(args, stop, laying)
        stack.callback(sink.close)
        swapper, cast = moving.build(args, method.live, quick if quick in method.dtypes else None)
        moving.say_notes(status, swapper)
        tracker = Tracker(swapper.detector, swapper.landmarker, cast, moving.pace(args, LIVE))
        for watcher in _watchers(args, cast, status) if args.watch else ():
            stack.enter_context(watcher)
        loop = Loop(iter(_capture(args, stop, status)), tracker, Painter(swapper, cast, laying), sink)
        if args.seconds is not None:
            timer = threading.Timer(args.seconds, stop.set)
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        loop.run(stop, lambda report: _show(report, status, sink))
    status.end()
    report = {
        "mattface": __version__,
        "files": {"input": args.input or f"camera {args.camera}", "output": args.output},
        **moving.parts_of(swapper),
        **loop.report(),
        "provenance": None if laying is None else {"layers": laying.states, "id": laying.payload},
    }
    moving.write_report(report, args.report, args.overwrite)
    for note in [] if laying is None else [*origin.off(laying.settings), *laying.notes]:
        status.say(note)
    if not args.quiet:
        print(moving.summary(report))


def _capture(args: argparse.Namespace, stop: threading.Event, status: moving.Status) -> Any:
    from mattface.realtime.capture import Camera, Player, open_camera

    if args.input:
        return Player(args.input, stop, args.loop)
    opener = lambda: open_camera(args.camera, args.size, args.fps)  # noqa: E731
    return Camera(opener, f"camera {args.camera}", status.say, stop)


def _laying(args: argparse.Namespace, marking: Settings) -> Laying | None:
    """What is laid on a recording; windows and virtual cameras keep no file and carry nothing."""
    from mattface.provenance.laying import Laying

    is_file = args.output != "window" and not args.output.startswith("v4l2:")
    return Laying(marking) if is_file else None


def _sink(args: argparse.Namespace, stop: threading.Event, laying: Laying | None) -> Any:
    from mattface.realtime.encoding import Encoding
    from mattface.realtime.sinks import VideoFile, VirtualCamera, Window

    if args.output == "window":
        return Window(stop)
    if args.output.startswith("v4l2:"):
        return VirtualCamera(args.output.removeprefix("v4l2:"), args.fps)
    encoding = Encoding(quality=20, preset="veryfast", live=True)
    return VideoFile(args.output, encoding, args.fps, args.overwrite, laying)


def _watchers(args: argparse.Namespace, cast: Any, status: moving.Status) -> list[Any]:
    from mattface.realtime.faces import Watcher

    if args.source and len(args.source) > 1:
        raise UsageError(f"--watch follows one picture; expected one --source, got {len(args.source)}.")
    files = [(args.source[0], 0)] if args.source else []
    files += [(source, role) for role, (_, source) in enumerate(args.map, 1)]
    return [Watcher(cast, path, role, status.say) for path, role in files]


def _show(report: dict[str, Any], status: moving.Status, sink: Any) -> None:
    text = moving.summary(report)
    status.line(text)
    set_title = getattr(sink, "set_title", None)
    if set_title is not None:
        set_title(text)
