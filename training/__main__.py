"""python -m mattface.training RECIPE --data DIR --out DIR: what `mattface train` does, for torchrun."""

from __future__ import annotations

import argparse
import sys

from mattface.errors import MattfaceError
from mattface.training.launch import EPILOG, add_arguments, run


def main() -> int:
    """Parses the command line and trains; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m mattface.training", description=__doc__, epilog=EPILOG)
    parser.formatter_class = raw
    add_arguments(parser)
    try:
        run(parser.parse_args())
    except MattfaceError as error:
        print(f"mattface: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
