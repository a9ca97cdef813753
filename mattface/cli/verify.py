"""mattface verify: what a picture's or video's own marks say about its origin."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

EPILOG = """examples:
  mattface verify swapped.png
  mattface verify folder --json
  mattface verify news.jpg --trust anchors.pem

Layers: xmp (metadata tag; container tags of a video), c2pa (signed manifest, of any tool), mark (imperceptible, in
faces). States: valid, untrusted (present and whole, but nobody known vouches for it), altered, absent.

exit codes:
  0 some layer is there, and none is altered   10 nothing is there   11 a layer is altered
  2, 3, 5 as everywhere: wrong usage, unreadable file, weights missing
"""
NOTHING, CHANGED = 10, 11
WIDTH = 6


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "verify", help="read the marks of origin", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("path", type=Path, metavar="FILE|FOLDER", help="picture or video, or a folder of them")
    parser.add_argument("--json", action="store_true", help="print everything that was read, as JSON")
    parser.add_argument("--trust", type=Path, metavar="FILE.pem", help="certificates trusted to vouch for signers")
    parser.add_argument("--no-faces", action="store_true", help="do not look for the imperceptible mark")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Reads and prints.

    Raises:
        SystemExit: with the exit codes above other than 0.
    """
    from mattface import verification
    from mattface.errors import InputError

    paths = verification.files(args.path)
    results = []
    for path in paths:
        try:
            result = verification.verify(path, args.trust, not args.no_faces)
        except InputError as error:
            if not args.path.is_dir():
                raise
            result = verification.unreadable(path, error)
        results.append(result)
        if not args.json:
            _tell(result)
    if args.json:
        print(json.dumps(results if args.path.is_dir() else results[0], indent=2, default=str))
    sys.stdout.flush()
    code = {"found": 0, "absent": NOTHING, "altered": CHANGED}[verification.worst(results)]
    if code:
        raise SystemExit(code)


def _tell(result: dict[str, Any]) -> None:
    print(result["file"])
    for name, layer in result["layers"].items():
        words = [layer["state"], *(str(layer[k]) for k in ("why", "tool", "signer", "id") if layer.get(k))]
        print(f"  {name:{WIDTH}}{', '.join(words)}")
    if result["log"]:
        print(f"  {'log':{WIDTH}}{result['log']['time']}, written as {result['log']['output']}")
    for note in result["notes"]:
        print(f"  note: {note}")
