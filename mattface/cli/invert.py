"""mattface invert: a photograph to the W+ code that draws it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from mattface.cli.loading import add_commercial
from mattface.cli.refining import refinement
from mattface.errors import InputError, UsageError

EPILOG = """examples:
  mattface invert alice.jpg -o alice.safetensors
  mattface invert alice.jpg -o alice.safetensors --steps 40 --compare alice.png

The file holds "w_plus", 1 x 18 x 512, and what made it in its metadata. Ctrl-C during --steps writes the best so far.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "invert", help="find the W+ code of a photograph", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="its largest face is taken")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors", help="the code")
    parser.add_argument("--steps", type=int, default=0, metavar="N",
                        help="of refinement, about a second each on a CPU (default: 0, the encoder alone)")  # fmt: skip
    parser.add_argument("--compare", type=Path, metavar="FILE.png", help="photograph and drawing side by side")
    parser.add_argument("--generator", default="mobile-ffhq", metavar="NAME", help="mobile-ffhq or stylegan2-ffhq")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    add_commercial(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Inverts, writes and reports."""
    from mattface import inversion, picture_io

    if args.output.suffix != ".safetensors":
        raise UsageError(f"expected an output ending in .safetensors; got {args.output}.")
    if args.output.exists() and not args.overwrite:
        raise UsageError(f"{args.output} exists. Take another name, or --overwrite.")
    if args.compare:
        picture_io.check_output(args.compare, args.overwrite)
    inverter = inversion.load_inverter(args.generator, device=args.device, commercial=args.commercial)
    crop = inversion.crop_of(args.photo, str(args.photo))
    with refinement(args.steps, args.quiet) as progress:
        found = inverter(crop, args.steps, progress)
    _write(args.output, found)
    if args.compare:
        _compare(args.compare, found, args.overwrite)
    if not args.quiet:
        report = found.report
        print(f"{args.output}: identity {report['identity_distance']} away (same person below 0.6), "
              f"{report['psnr']} dB, {report['steps']} steps")  # fmt: skip
        for note in report["notes"]:
            print(f"note: {note}")


def _write(path: Path, found: Any) -> None:
    """The code, under a temporary name first."""
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.part")
    try:
        save_file({"w_plus": found.w_plus.cpu().contiguous()}, str(part), {"report": json.dumps(found.report)})
        os.chmod(part, 0o644)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}).") from error
    finally:
        part.unlink(missing_ok=True)


def _compare(path: Path, found: Any, overwrite: bool) -> None:
    """Photograph and drawing side by side, with the mark of a picture that a model made in part."""
    import numpy as np
    import torch

    from mattface import picture_io, pixels
    from mattface.vocabulary import Picture

    both = torch.cat((found.target.cpu(), found.drawn.cpu().clamp(-1, 1)), 3)
    picture_io.write(Picture(pixels.to_pixels(both, np.uint8)), path, overwrite)
