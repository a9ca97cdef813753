"""mattface train: trains a recipe, or continues an interrupted training.

Many GPUs or machines: torchrun --nproc-per-node N -m mattface.training RECIPE ... with the same arguments.
"""

from __future__ import annotations

import argparse
from typing import Any

from mattface.errors import UsageError


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser("train", help="train a recipe", description=__doc__, formatter_class=raw)
    parser.add_argument("recipe", metavar="RECIPE", help='name of a recipe; "list" names them')
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see mattface train RECIPE --help")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Hands over to `mattface.training.launch`, which is imported only now."""
    from mattface.training.recipes import RECIPES

    if args.recipe == "list":
        print("\n".join(sorted(RECIPES)))
        return
    if args.recipe not in RECIPES:
        raise UsageError(f"recipe must be one of {', '.join(sorted(RECIPES))}; got {args.recipe!r}.")
    from mattface.training import launch

    parser = argparse.ArgumentParser(
        "mattface train", epilog=launch.EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    launch.add_arguments(parser)
    launch.run(parser.parse_args([args.recipe, *args.arguments]))
