"""mattface sample: people who do not exist, drawn by a generator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mattface.errors import InputError, UsageError

EPILOG = """examples:
  mattface sample --seed 7
  mattface sample --seed 0 --count 12 --out people
  mattface sample --seed 3 --out somebody.png --weights stylegan2-ffhq --truncation 0.5

A seed always gives the same picture on one machine. Pictures carry the mark of wholly generated ones.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "sample", help="draw people who do not exist", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="of the first person, from 0 on")
    parser.add_argument("--count", type=int, default=1, metavar="K", help="people, seeds N to N + K - 1 (default: 1)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR|FILE.png",
                        help="folder for SEED.png, made if need be, or one person's file (default: .)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME|FILE|DIR", help="default: mattface-demo")
    parser.add_argument("--truncation", type=float, metavar="0..1", help="0: everybody alike; default: 0.7")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draws and writes one picture after the other."""
    from mattface import picture_io, sampling
    from mattface.provenance import Settings
    from mattface.vocabulary import Picture

    truncation = sampling.TRUNCATION if args.truncation is None else args.truncation
    sampling.check(args.seed, args.count, truncation)
    paths = places(args.out, args.seed, args.count)
    for path in paths.values():
        picture_io.check_output(path, args.overwrite)
    sampler = sampling.load(args.weights, args.device)
    for seed, path in paths.items():
        picture = Picture(sampler(seed, truncation))
        picture_io.write(picture, path, args.overwrite, Settings(generated=True))
        print(f"{path}: {picture.size[0]}x{picture.size[1]}, seed {seed}", flush=True)


def places(out: Path, seed: int, count: int) -> dict[int, Path]:
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
