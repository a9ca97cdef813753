"""mattface weights: what there is, where it comes from, fetching, checking."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  mattface weights list
  mattface weights pull embedded     the perception parts that every method needs
  mattface weights show centerface
  mattface weights verify
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "weights", help="list, fetch and check weights", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("list", help="every weight and whether it is here").set_defaults(run=list_all)
    show = actions.add_parser("show", help="the whole card of one weight")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=show_one)
    pull = actions.add_parser("pull", help="fetch weights that are missing")
    pull.add_argument("names", nargs="+", metavar="NAME", help="a weight or a group (embedded, all)")
    pull.add_argument("--quiet", action="store_true", help="print nothing but errors")
    pull.set_defaults(run=pull_named)
    verify = actions.add_parser("verify", help="hash weights again and compare with their cards")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: every weight that is here")
    verify.set_defaults(run=verify_named)


def list_all(_: argparse.Namespace) -> None:
    """One line per weight."""
    from mattface import weights

    states = [weights.status(name) for name in weights.cards()]
    width = max(len(s["name"]) for s in states)
    for state in states:
        print(f"{state['name']:{width}}  {here(state):8}  {size(state['bytes']):>8}  {state['purpose']}")
    print("\nIn one go: mattface weights pull embedded. All about one: mattface weights show NAME.")


def here(state: dict[str, Any]) -> str:
    """One word for a weight's state: here, damaged or missing."""
    if not state["present"]:
        return "missing"
    return "damaged" if state["note"] else "here"


def size(count: int | None) -> str:
    """A number of bytes for people."""
    return "" if count is None else f"{count / 1e6:.1f} MB"


def show_one(args: argparse.Namespace) -> None:
    """A weight's card and state."""
    from mattface import weights

    card, state = weights.card(args.name), weights.status(args.name)
    lines = {
        "name": card.name,
        "purpose": card.purpose,
        "state": here(state),
        "path": state["path"] or "-",
        "size": size(card.size or state["bytes"]),
        "SHA-256": card.sha256 or "none on the card",
        "licence": f"{card.licence} (commercial use: {'yes' if card.commercial_use else 'no'})",
        "origin": card.origin,
        "groups": ", ".join(card.groups) or "-",
        "how": card.how,
    }
    lines |= {f"source {i}": str(source) for i, source in enumerate(card.sources, 1)}
    lines |= {key: str(value) for key, value in card.conventions.items()}
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        print(f"{key:{width}}  {value}")


def pull_named(args: argparse.Namespace) -> None:
    """Fetches what is missing and says where it lies."""
    from mattface import weights

    for name, path in weights.pull(args.names, progress=not args.quiet).items():
        if not args.quiet:
            print(f"{name}: {path}")


def verify_named(args: argparse.Namespace) -> None:
    """Checks hashes."""
    from mattface import weights

    found = weights.verify(args.names)
    for name, verdict in found.items():
        print(f"{name}: {verdict}")
    if not found:
        print("No weights are here yet. Type: mattface weights pull embedded")
