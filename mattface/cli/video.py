"""mattface video: a person's face into a video file, every frame, with sound, timing, rotation and colour tags kept."""

from __future__ import annotations

import argparse
from typing import Any

from mattface.cli import moving, origin
from mattface.errors import Interrupted
from mattface.weights.licences import commercial_only

EPILOG = """examples:
  mattface video -s alice.jpg -t clip.mp4 -o swapped.mp4
  mattface video --map bob.jpg=alice.jpg --map carol.jpg=dora.jpg -t party.mov -o swapped.mov
  mattface video -s alice.jpg -t clip.mp4 -o swapped.mp4 --resume

Ctrl-C writes what is done so far as a playable file. Whatever ends a run, its finished parts stay in OUT.parts, and
--resume goes on from there. Swap only people who agreed to it.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "video", help="put a face into a video file", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.set_defaults(run=run)
    files = parser.add_argument_group("files")
    files.add_argument("-t", "--target", required=True, metavar="FILE", help="video whose faces are replaced")
    files.add_argument("-o", "--output", required=True, metavar="FILE", help="result: .mp4, .mov or .mkv")
    files.add_argument("--resume", action="store_true", help="go on from the parts that an interrupted run has left")
    files.add_argument("--codec", choices=("auto", "h264", "hevc"), default="auto",
                       help="default: auto (HEVC for HEVC and for 10 bits, else H.264)")  # fmt: skip
    files.add_argument("--quality", type=int, default=16, metavar="CRF", help="less is better (default: 16)")
    files.add_argument("--preset", default="medium", help="the encoder's speed (default: medium)")
    moving.add_sources(parser)
    moving.add_how(parser)


def run(args: argparse.Namespace) -> None:
    """Converts the file.

    Raises:
        Interrupted: the user ended it early; the output holds what was done.
    """
    moving.need_av()
    from mattface.realtime.encoding import Encoding
    from mattface.realtime.offline import Job, convert
    from mattface.realtime.track import OFFLINE

    moving.check_report(args.report, args.overwrite, [args.target, args.output])
    moving.readable([args.target])
    marking = origin.settings(args)
    status = moving.Status(args.quiet)
    swapper, cast = moving.build(args, {})
    moving.say_notes(status, swapper)
    job = Job(
        source=args.target,
        output=args.output,
        work=_work(args),
        encoding=Encoding(args.codec, args.quality, args.preset),
        pace=moving.pace(args, OFFLINE),
        resume=args.resume,
        overwrite=args.overwrite,
        mark=marking,
    )
    with moving.stopping(status.say) as stop:
        report = convert(job, swapper, cast, stop, lambda report: status.line(_progress(report)))
    status.end()
    for note in [*origin.off(marking), *report["notes"]]:
        status.say(f"{args.target}: {note}")
    report["notes"] = [*swapper.notes, *report["notes"]]
    moving.write_report({**moving.parts_of(swapper), **report}, args.report, args.overwrite)
    _tell(args, report)


def _work(args: argparse.Namespace) -> dict[str, Any]:
    """What parts of an interrupted run must agree in."""
    names = ("source", "map", "face", "method", "weights", "engine", "dtype", "detect_every")
    work = {name: [list(p) for p in args.map] if name == "map" else getattr(args, name) for name in names}
    return work | {"commercial": commercial_only(args.commercial)}


def _progress(report: dict[str, Any]) -> str:
    return f"{report['frames']['shown']} frames, {report['fps']:.1f} fps"


def _tell(args: argparse.Namespace, report: dict[str, Any]) -> None:
    frames, video = report["frames"], report["video"]
    if not report["whole"]:
        what = f"{args.output} holds what is done" if report["files"]["output"] else "nothing was done yet"
        raise Interrupted(f"interrupted; {what}. Go on with the same command and --resume.")
    if not args.quiet:
        width, height = video["size"]
        print(
            f"{args.output}: {width}x{height}, {video['frames_read']} frames, {frames['with_faces']} of "
            f"{frames['shown']} with faces swapped, {report['seconds']:.1f} s ({report['fps']:.1f} fps)"
        )
