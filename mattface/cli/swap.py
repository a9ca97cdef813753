"""mattface swap: the face of one picture onto another."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface import __version__
from mattface.cli import loading
from mattface.cli.refining import refinement
from mattface.errors import UsageError
from mattface.methods import METHODS

if TYPE_CHECKING:
    from mattface.vocabulary import Picture, SwapResult

DTYPES = ("fp32", "bf16", "fp16")
EPILOG = """examples:
  mattface swap -s alice.jpg -t portrait.jpg -o swapped.png
  mattface swap -s alice1.jpg -s alice2.jpg -t group.tif -o swapped.tif --face 1
  mattface swap -s alice.jpg -t portrait.jpg -o swapped.png --method mesh --matte matte.png --report report.json

Pictures: PNG, JPEG, WebP, TIFF are read and written; BMP and GIF are read. 16-bit PNG and TIFF and 32-bit float TIFF
keep their depth. Swap only people who agreed to it.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "swap",
        help="put the face of one picture onto another",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.set_defaults(run=run)
    files = parser.add_argument_group("pictures")
    files.add_argument(
        "-s", "--source", action="append", required=True, metavar="FILE",
        help="picture of the person whose face is wanted; repeat for several pictures of the same person",
    )  # fmt: skip
    files.add_argument("-t", "--target", required=True, metavar="FILE", help="picture whose face is replaced")
    files.add_argument("-o", "--output", required=True, metavar="FILE", help="result; its ending chooses the format")
    files.add_argument("--matte", metavar="FILE", help="write the matte, too (16-bit grey PNG or float TIFF)")
    files.add_argument("--report", metavar="FILE.json", help="write what was done, as JSON")
    files.add_argument("--overwrite", action="store_true", help="replace files that exist")
    files.add_argument("--no-mark", action="store_true", help="leave the origin mark out of the metadata")
    files.add_argument("--allow-huge", action="store_true", help="read pictures of more than 400 megapixels")
    how = parser.add_argument_group("how")
    how.add_argument("--method", choices=sorted(METHODS), help="swapping method (default: that of mattface.load)")
    how.add_argument("--weights", metavar="NAME|DIR", help="weights of the method, by name or folder")
    how.add_argument("--detail", choices=("flow", "off"),
                     help="of mattface: source detail through the attention's flow, or none (the paper)")  # fmt: skip
    how.add_argument("--refine", type=int, default=0, metavar="N",
                     help="of mattface-ffhq: steps of about a second towards the source's identity")  # fmt: skip
    how.add_argument("--grain", type=_share, default=1.0, metavar="0..1",
                     help="how far the face gets the picture's sharpness and grain (default: 1; 0 is off)")  # fmt: skip
    how.add_argument("--face", type=_face, default="largest", metavar="largest|all|N",
                     help="which face of the target: N counts from 0, largest first (default: largest)")  # fmt: skip
    how.add_argument("--device", type=_device, default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    how.add_argument("--dtype", choices=DTYPES, help="dtype of the networks (default: fp32)")
    loading.add_commercial(how)
    how.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _face(text: str) -> str | int:
    if text in ("largest", "all"):
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected largest, all or a number from 0 on; got {text!r}")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= 1:
        return value
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; got {text!r}")


def _device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        return text
    raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N; got {text!r}")


def run(args: argparse.Namespace) -> None:
    """Reads, swaps, writes."""
    from mattface import picture_io
    from mattface.methods.fixed_chain import FixedMethod

    start = time.perf_counter()
    _check_paths(args)
    with _steps(4, args.quiet) as step:
        step("reading")
        sources = [picture_io.read(path, args.allow_huge) for path in args.source]
        target = picture_io.read(args.target, args.allow_huge)
        step("loading")
        options = ("method", "detail", "refine", "commercial")
        chosen = {name: value for name in options if (value := getattr(args, name))}
        swapper = loading.load(**chosen, weights=args.weights, device=args.device, dtype=args.dtype, grain=args.grain)
        step("swapping")
        losses: list[float] = []
        with refinement(args.refine, args.quiet, losses) as progress:
            if isinstance(swapper.method, FixedMethod):
                swapper.method.progress = progress
            result = swapper.swap(swapper.prepare(sources), target, face=args.face)
        if losses:
            result.report["notes"].append(f"refined in {len(losses)} steps: loss {losses[0]:.3f} to {min(losses):.3f}")
        step("writing")
        notes = _write(args, result)
    if not args.quiet:
        _tell(args, result, [*_notes(args, sources, target), *notes], time.perf_counter() - start)


def _check_paths(args: argparse.Namespace) -> None:
    """Every output can be written, before anything slow begins."""
    from mattface import picture_io
    from mattface.picture_io.writing import MATTE_FORMATS

    outputs = [path for path in (args.output, args.matte, args.report) if path]
    if len({Path(path).resolve() for path in outputs}) < len(outputs):
        raise UsageError(f"expected different files for result, matte and report; got {', '.join(outputs)}.")
    inputs = [*args.source, args.target]
    picture_io.check_output(args.output, args.overwrite, inputs)
    if args.matte:
        picture_io.check_output(args.matte, args.overwrite, inputs, MATTE_FORMATS)
    if args.report:
        picture_io.check_output(args.report, args.overwrite, inputs, (".json",))


@contextmanager
def _steps(count: int, quiet: bool) -> Iterator[Any]:
    """A progress bar over named steps, on a terminal only, gone at the end."""
    from tqdm import tqdm

    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=count, disable=silent, leave=False, bar_format="{desc} {bar} {n}/{total} {elapsed}") as bar:

        def step(name: str) -> None:
            bar.set_description_str(f"{name:10}")
            bar.update()

        yield step


def _write(args: argparse.Namespace, result: SwapResult) -> tuple[str, ...]:
    from mattface import picture_io

    mark = not args.no_mark
    if args.matte:
        picture_io.write_matte(result.matte, args.matte, args.overwrite, mark)
    if args.report:
        text = json.dumps(report(args, result), indent=2, allow_nan=False)
        picture_io.write_whole(f"{text}\n".encode(), args.report, args.overwrite)
    return picture_io.write(result.picture, args.output, args.overwrite, mark)


def report(args: argparse.Namespace, result: SwapResult) -> dict[str, Any]:
    """What was done, as JSON holds it: the pipeline's report, the files, and every swapped face."""
    faces = [
        {
            "index": swapped.index,
            "box": swapped.face.box,
            "score": swapped.face.score,
            "points": swapped.face.points,
            "image_to_crop": swapped.image_to_crop,
            **swapped.report,
        }
        for swapped in result.faces
    ]
    files = {"source": args.source, "target": args.target, "output": args.output, "matte": args.matte}
    return plain({"mattface": __version__, "files": files, **result.report, "marked": not args.no_mark, "faces": faces})


def plain(value: Any) -> Any:
    """Arrays as lists, paths and types as text, NaN and infinity as null: what JSON holds."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _notes(args: argparse.Namespace, sources: Sequence[Picture], target: Picture) -> list[str]:
    pairs = [*zip(args.source, sources, strict=True), (args.target, target)]
    return [f"{path}: {note}" for path, picture in pairs for note in picture.notes]


def _tell(args: argparse.Namespace, result: SwapResult, notes: list[str], seconds: float) -> None:
    for note in dict.fromkeys([*notes, *(n for n in result.report.get("notes", ()) if n not in _known(notes))]):
        print(f"mattface: note: {note}", file=sys.stderr)
    count = len(result.faces)
    width, height = result.picture.size
    print(f"{args.output}: {width}x{height}, {count} face{'s' * (count != 1)} swapped in {seconds:.1f} s")


def _known(notes: list[str]) -> set[str]:
    """The pipeline repeats a picture's notes without naming its file."""
    return {note.split(": ", 1)[-1] for note in notes}
