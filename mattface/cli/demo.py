"""mattface demo: two people who do not exist, swapped both ways by every method that has weights, and two photographs.

The people are drawn (`mattface sample`). The photographs are public-domain pictures out of installed packages:
matplotlib's Grace Hopper and scikit-image's astronaut (Eileen Collins).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.cli.loading import add_commercial
from mattface.errors import LicenceError, WeightsError
from mattface.examples import example_pair
from mattface.methods import METHODS

if TYPE_CHECKING:
    from PIL.Image import Image

    from mattface.vocabulary import Picture, SwapResult

TILE = 512
MARGIN = 12
CAPTION = 26
SEEDS = (24, 21)
"""Of the people who are drawn."""
FIXED = "mattface-ffhq"
"""Weights of mattface that are shown beside its default."""
HEAD = 2.2
"""Side of a close-up, in sides of the face's box."""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser("demo", help="swap an example pair", description=__doc__, formatter_class=raw)
    parser.add_argument("--out", default="demo-out", metavar="DIR", help="folder to write into (default: demo-out)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    add_commercial(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fetches what is missing, swaps both ways, writes the results, their reports and a contact sheet."""
    from mattface import picture_io, weights
    from mattface.cli.swap import plain

    start = time.perf_counter()
    pictures = {name: picture_io.read(path) for name, path in example_pair().items()}
    weights.pull(["embedded"])
    pictures |= drawn(args.device, args.commercial)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[SwapResult]] = {}
    missing: list[str] = []
    for method in [FIXED, *sorted(METHODS, reverse=True)]:
        begun = time.perf_counter()
        try:
            results[method] = swap_all(method, pictures, args.device, folder, args.commercial)
        except (WeightsError, LicenceError) as error:
            missing.append(f"{method:16} left out: {_subject(error)}")
        else:
            each = (time.perf_counter() - begun) / len(results[method])
            print(f"{method:16} {len(results[method])} pictures, {each:.1f} s each, loading included", flush=True)
    sheet = folder / "contact-sheet.png"
    picture_io.write(picture_io.read(contact_sheet(rows(pictures, results))), sheet, overwrite=True)
    reports = {m: [result.report for result in of_method] for m, of_method in results.items()}
    (folder / "report.json").write_text(json.dumps(plain(reports), indent=2), encoding="utf-8")
    print(*missing, *(["To get what is missing: mattface doctor"] if missing else []), sep="\n")
    seconds = time.perf_counter() - start
    print(f"\nDone in {seconds:.0f} s. Look at {sheet.resolve()}; the pictures and report.json lie beside it.")


def _subject(error: WeightsError | LicenceError) -> str:
    """What an error message is about, without its explanation: "weights 'inswapper-128' (purpose)"."""
    return re.split("[:;]", str(error))[0]


def drawn(device: str, commercial: bool | None) -> dict[str, Picture]:
    """People who do not exist, by name."""
    from mattface import sampling
    from mattface.vocabulary import Picture

    sampler = sampling.load(None, device, commercial)
    for note in sampler.notes:
        print(f"mattface: note: {note}", file=sys.stderr)
    return {f"person-{seed}": Picture(sampler(seed)) for seed in SEEDS}


def directions(pictures: dict[str, Picture]) -> list[tuple[str, str]]:
    """(source, target): the drawn people both ways, then one photograph onto the other."""
    first, second, one, other = pictures
    return [(one, other), (other, one), (first, second)]


def swap_all(
    method: str, pictures: dict[str, Picture], device: str, folder: Path, commercial: bool | None = None
) -> list[SwapResult]:
    """Swaps, and writes each result as a PNG; `method` is one of `METHODS`, or `FIXED`."""
    from mattface import picture_io
    from mattface.cli.loading import load

    named = ("mattface", FIXED) if method == FIXED else (method, None)
    swapper = load(*named, device=device, commercial=commercial)
    results = []
    for source, target in directions(pictures):
        result = swapper.swap(swapper.prepare(pictures[source]), pictures[target])
        picture_io.write(result.picture, folder / f"{method}-{source}-onto-{target}.png", overwrite=True)
        results.append(result)
    return results


def rows(pictures: dict[str, Picture], results: dict[str, list[SwapResult]]) -> list[dict[str, Picture]]:
    """Close-ups of source, target and every method's result, a row for each direction."""
    some = next(iter(results.values()))
    boxes = {target: some[k].faces[0].face.box for k, (_, target) in enumerate(directions(pictures))}
    table = []
    for k, (source, target) in enumerate(directions(pictures)):
        own = pictures[source]
        row = {f"source: {source}": close_up(own, boxes[source]) if source in boxes else own}
        row[f"target: {target}"] = close_up(pictures[target], boxes[target])
        table.append(row | {m: close_up(both[k].picture, boxes[target]) for m, both in results.items()})
    return table


def close_up(picture: Picture, box: Any) -> Picture:
    """A square around a face, as far as the picture goes; the box is left, top, right, bottom in pixels."""
    (x, y), half = (box[:2] + box[2:]) / 2, HEAD * max(box[2:] - box[:2]) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    return replace(picture, pixels=picture.pixels[top : round(y + half), left : round(x + half)], alpha=None)


def contact_sheet(rows: list[dict[str, Picture]]) -> Image:
    """Labelled tiles, one row after the other.

    Args:
        rows: label -> 8-bit picture, for each row.

    Returns:
        An RGB image; every picture is fitted into a square of `TILE` pixels.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    from mattface.picture_io import to_pil

    columns, step = max(len(row) for row in rows), TILE + CAPTION + MARGIN
    size = (MARGIN + columns * (TILE + MARGIN), MARGIN + len(rows) * step)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for y, row in enumerate(rows):
        for x, (label, picture) in enumerate(row.items()):
            left, top = MARGIN + x * (TILE + MARGIN), MARGIN + y * step
            draw.text((left, top), label, fill="black", font=font)
            image = to_pil(picture).convert("RGB")
            image = ImageOps.contain(image, (TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(image, (left + (TILE - image.width) // 2, top + CAPTION + (TILE - image.height) // 2))
    return sheet
