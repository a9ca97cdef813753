"""mattface sample: people who do not exist, drawn by a generator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.cli.loading import add_commercial
from mattface.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mattface.vocabulary import Face

EPILOG = """examples:
  mattface sample --seed 7
  mattface sample --seed 0 --count 12 --out people
  mattface sample --seed 7 --edit yaw=20,smile=1
  mattface sample --seed 3 --out somebody.png --weights stylegan2-ffhq --truncation 0.5

A seed always gives the same picture on one machine. Pictures carry the mark of wholly generated ones. --edit moves the
code of the person along measured directions and says what changed, as measured on both pictures.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "sample", help="draw people who do not exist", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first person (default: 0)")
    parser.add_argument("--count", type=int, default=1, metavar="K", help="people, seeds N to N + K - 1 (default: 1)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR|FILE.png",
                        help="folder for SEED.png, made if need be, or one person's file (default: .)")  # fmt: skip
    parser.add_argument("--edit", metavar="NAME=X,...", help="yaw and pitch in degrees, smile, mouth: see below")
    parser.add_argument("--weights", metavar="NAME|FILE|DIR",
                        help="default: mobile-ffhq, or mattface-demo with --commercial")  # fmt: skip
    parser.add_argument("--truncation", type=float, metavar="0..1", help="0: everybody alike; default: 0.7")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    add_commercial(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draws and writes one picture after the other."""
    from mattface import edit, picture_io, sampling
    from mattface.provenance import Settings
    from mattface.vocabulary import Picture

    truncation = sampling.TRUNCATION if args.truncation is None else args.truncation
    sampling.check(args.seed, args.count, truncation)
    changes = edit.read_changes(args.edit) if args.edit else {}
    paths = output_paths(args.out, args.seed, args.count)
    for path in paths.values():
        picture_io.check_output(path, args.overwrite)
    directions = edit.load_directions(commercial=args.commercial) if changes else None
    sampler = sampling.load(args.weights, args.device, args.commercial)
    for note in sampler.notes:
        print(f"mattface: note: {note}", file=sys.stderr)
    for seed, path in paths.items():
        code = sampler.code(seed, truncation)
        shown = sampler.picture(code if directions is None else directions.move(code, changes))
        picture = Picture(shown)
        picture_io.write(picture, path, args.overwrite, Settings(generated=True))
        print(f"{path}: {picture.size[0]}x{picture.size[1]}, seed {seed}", flush=True)
        if directions is not None:
            print("  " + describe_change(sampler.picture(code), shown), flush=True)


def output_paths(out: Path, seed: int, count: int) -> dict[int, Path]:
    """Seed -> file; a name with an ending is a file, any other a folder, which is made."""
    if out.suffix and not out.is_dir():
        if out.suffix.lower() != ".png" or count > 1:
            raise UsageError(f"expected a folder, or for one person a name ending in .png; got {out} for {count}.")
        return {seed: out}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: expected a folder to write into; {error}. Choose another.") from error
    return {one: out / f"{one}.png" for one in range(seed, seed + count)}


def describe_change(before: np.ndarray, after: np.ndarray) -> str:
    """One line: what was measured on both pictures, and how alike a recognition network finds them.

    Args:
        before, after: (S, S, 3) uint8 RGB.
    """
    from mattface import perception
    from mattface.mesh import topology
    from mattface.mesh.attributes import attributes

    faces = [_face(picture) for picture in (before, after)]
    if faces[0] is None or faces[1] is None:
        return "no face was found in one of the two pictures: nothing can be measured. Try a smaller change."
    was, became = (attributes(face.mesh, topology().mean) for face in faces)  # type: ignore[union-attr, arg-type]
    said = [f"{name} {was[name]:.1f} to {became[name]:.1f} degrees" for name in ("yaw", "pitch")]
    said += [f"{name} {was[name]:.2f} to {became[name]:.2f}" for name in ("smile", "mouth")]
    if any(part.usable for part in perception.status("identity")):
        embed = perception.load("identity")
        said.append(f"identity cosine {float(embed(before, faces[0]) @ embed(after, faces[1])):.2f}")
    return ", ".join(said)


def _face(picture: np.ndarray) -> Face | None:
    """The largest face of a picture with its mesh, or None."""
    from mattface import perception

    found = perception.load("detector")(picture)
    return perception.load("landmarks")(picture, found[0]) if found else None
