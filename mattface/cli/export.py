"""mattface export: the network of an aligned-crop method as an ONNX or TorchScript file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mattface.cli import loading
from mattface.errors import UsageError
from mattface.methods import METHODS

FORMATS = {"onnx": ".onnx", "torchscript": ".pt"}
"""Format -> ending of the file."""
EPILOG = """examples:
  mattface export --method alphaface --format onnx -o alphaface.onnx
  mattface export --method facechanger --weights mine.safetensors --format torchscript -o mine.pt

The file takes target crops (RGB in [-1, 1]) and identity codes (unit length) of any batch and gives pictures; magicmask
takes depth and landmark maps, too. It was compared with PyTorch before it is there.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "export", help="write a method's network as ONNX or TorchScript", description=__doc__, epilog=EPILOG,
        formatter_class=raw,
    )  # fmt: skip
    parser.add_argument("--method", choices=sorted(METHODS), required=True, help="method with an aligned-crop network")
    parser.add_argument("--weights", metavar="NAME|FILE", help="weights of the method (default: its own)")
    parser.add_argument("--format", choices=FORMATS, help="default: what the output's ending says")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write: .onnx or .pt")
    loading.add_commercial(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Exports, and says what the file takes and how near it is to PyTorch."""
    kind = args.format or next((k for k, ending in FORMATS.items() if Path(args.output).suffix == ending), None)
    if kind is None:
        raise UsageError(f"expected an output ending in .onnx or .pt, or --format; got {args.output!r}.")
    from mattface.realtime.engine.export import export_onnx, export_torchscript

    write = export_onnx if kind == "onnx" else export_torchscript
    swapper = loading.load(args.method, weights=args.weights, device="cpu", commercial=args.commercial)
    report = write(swapper, args.output, args.overwrite)
    for note in swapper.notes:
        print(f"mattface: note: {note}", file=sys.stderr)
    for name, shape in (report["inputs"] | report["output"]).items():
        print(f"{name}: {' x '.join(map(str, shape))}")
    print(f"largest difference from PyTorch: {report['difference']:.1e} (allowed: {report['tolerance']:g})")
    print(Path(report["path"]).resolve())
