"""mattface bench: measures how well methods swap, and makes what that is measured with."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from mattface.errors import UsageError

BENCHMARKS = {
    "quality": "swaps of people nobody trained on: identity, pose, detail, errors against the truth",
    "provenance": "what the imperceptible mark survives, and whether manifests notice changes",
    "triplets": "render triplets with exact ground truth, for: bench quality --triplets",
}
MODULES = {
    "quality": "mattface.benchmarks.quality",
    "provenance": "mattface.benchmarks.provenance",
    "triplets": "mattface.benchmarks.cases",
}
EPILOG = """examples:
  mattface bench triplets --portraits portraits --people people.npz --out triplets
  mattface bench quality --methods mesh,mattface --portraits portraits --scoring net.onnx --triplets triplets
  mattface bench quality --help

benchmarks:
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    listed = EPILOG + "\n".join(f"  {name:10} {purpose}" for name, purpose in BENCHMARKS.items())
    parser = commands.add_parser(
        "bench", help="measure quality", description=__doc__, epilog=listed, formatter_class=raw
    )
    parser.add_argument("benchmark", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see mattface bench BENCHMARK --help")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Hands over to the benchmark, which is imported only now."""
    if args.benchmark not in MODULES:
        raise UsageError(f"benchmark must be one of {', '.join(MODULES)}; got {args.benchmark!r}.")
    module = import_module(MODULES[args.benchmark])
    raw, name = argparse.RawDescriptionHelpFormatter, f"mattface bench {args.benchmark}"
    parser = argparse.ArgumentParser(name, description=module.__doc__, formatter_class=raw)
    module.add_arguments(parser)
    module.run(parser.parse_args(args.arguments))
