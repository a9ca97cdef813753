"""mattface weights: what there is, where it comes from, fetching, checking, recognising, converting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mattface.errors import WeightsError

EPILOG = """examples:
  mattface weights list
  mattface weights pull embedded     the perception parts that every method needs
  mattface weights show centerface
  mattface weights adopt ~/Downloads/backbone.pth     recognised by its keys and shapes, used where it lies
  mattface weights adopt ~/models                     every file of a folder
  mattface weights convert ffhq.pkl -o stylegan2.safetensors
  mattface weights verify
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "weights", help="list, fetch, check, adopt and convert weights", description=__doc__, epilog=EPILOG,
        formatter_class=raw,
    )  # fmt: skip
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("list", help="every weight, its licence, and whether it is here").set_defaults(run=list_all)
    show = actions.add_parser("show", help="the whole card of one weight")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=show_one)
    pull = actions.add_parser("pull", help="fetch weights that are missing")
    pull.add_argument("names", nargs="+", metavar="NAME", help="a weight or a group (embedded, buffalo_l, sdxl, all)")
    pull.add_argument("--source", default="", help="kind of the card's sources, an address, or a folder or file here")
    pull.add_argument("--dir", type=Path, metavar="FOLDER", help="put them there instead of the cache folder")
    pull.add_argument("--offline", action="store_true", default=None, help="do not use the network")
    pull.add_argument("--quiet", action="store_true", help="print nothing but errors")
    pull.set_defaults(run=pull_named)
    verify = actions.add_parser("verify", help="hash weights again and compare with their cards")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: every weight that is here")
    verify.set_defaults(run=verify_named)
    adopt = actions.add_parser("adopt", help="recognise files that are here already, and use them where they lie")
    adopt.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a weight file of any name, or a folder")
    adopt.set_defaults(run=adopt_files)
    convert = actions.add_parser("convert", help="write a file's tensors under this project's names")
    convert.add_argument("file", type=Path, metavar="FILE")
    convert.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors")
    convert.add_argument("--layout", default="", help="read it as this layout (default: the one that fits best)")
    convert.set_defaults(run=convert_file)


def list_all(_: argparse.Namespace) -> None:
    """One line per weight."""
    from mattface import weights

    states = [weights.status(name) for name in weights.cards()]
    width = max(len(s["name"]) for s in states)
    print(f"{'name':{width}}  {'state':8}  {'size':>9}  {'commercial':10}  purpose; licence")
    for state in states:
        bytes_here = size(state["bytes"] or state["card_bytes"])
        commercial = "yes" if state["commercial_use"] else "no"
        words = f"{state['purpose']}; {state['licence']}"
        print(f"{state['name']:{width}}  {here(state):8}  {bytes_here:>9}  {commercial:10}  {words}")
    print("\nIn one go: mattface weights pull embedded. All about one: mattface weights show NAME.")
    print("Files that are here under any name: mattface weights adopt FILE.")


def here(state: dict[str, Any]) -> str:
    """One word for a weight's state: here, adopted, damaged or missing."""
    if not state["present"]:
        return "missing"
    if state["note"]:
        return "damaged"
    return "adopted" if state["adopted"] else "here"


def size(count: int | None) -> str:
    """A number of bytes for people."""
    if count is None:
        return ""
    return f"{count / 1e6:.1f} MB" if count > 1e5 else f"{count / 1e3:.1f} kB"


def show_one(args: argparse.Namespace) -> None:
    """A weight's card and state."""
    from mattface import weights

    card, state = weights.card(args.name), weights.status(args.name)
    lines = {
        "name": card.name,
        "purpose": card.purpose,
        "state": here(state),
        "path": state["path"] or "-",
        "folder": str(weights.home()),
        "file": " or ".join((card.file, *card.aliases)),
        "size": size(card.size or state["bytes"]) or "unknown",
        "SHA-256": card.sha256 or "unverified: none is published; that of the first download is pinned",
        "licence": f"{card.licence} (commercial use: {'yes' if card.commercial_use else 'no'})",
        "origin": card.origin,
        "groups": ", ".join(card.groups) or "-",
        "needs": ", ".join(card.needs) or "-",
        "how": card.how,
    }
    lines |= {f"source {i}": str(source) for i, source in enumerate(card.sources, 1)}
    lines |= {key: str(value) for key, value in card.conventions.items()}
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        print(f"{key:{width}}  {value}")


def pull_named(args: argparse.Namespace) -> None:
    """Fetches what is missing and says where it lies; goes on past weights that cannot be had.

    Raises:
        WeightsError: a weight named by itself, or one of a group that has somewhere to be fetched from, is not here.
    """
    from mattface import weights

    names, failed, supplied = weights.expand(args.names), dict[str, WeightsError](), []
    for name in names:
        try:
            path = weights.pull([name], not args.quiet, args.source, args.dir, args.offline)[name]
        except WeightsError as error:
            if name in args.names or args.source or weights.fetchable(name):
                failed[name] = error
            else:
                supplied.append(name)
            continue
        if not args.quiet:
            print(f"{name}: {path}")
    if supplied and not args.quiet:
        print(f"To be supplied by you: {', '.join(supplied)}. How: mattface weights show {supplied[0]}")
    if len(names) == 1 and failed:
        raise failed[names[0]]
    for reason in failed.values():
        print(reason, file=sys.stderr)
    if failed:
        raise WeightsError(f"expected {len(names)} weights; {len(failed)} could not be had: {', '.join(failed)}.")


def verify_named(args: argparse.Namespace) -> None:
    """Checks hashes."""
    from mattface import weights

    found = weights.verify(args.names)
    for name, verdict in found.items():
        print(f"{name}: {verdict}")
    if not found:
        print("No weights are here yet. Type: mattface weights pull embedded")


def adopt_files(args: argparse.Namespace) -> None:
    """Recognises files and says what they are; a file named by itself must be recognised.

    Raises:
        WeightsError: a file that no card fits, or a folder in which there is none that one fits.
    """
    from mattface.weights.adopt import adopt, missing_parts

    for given in args.files:
        count = 0
        for path in files_of(given):
            try:
                found = adopt(path)
            except WeightsError as error:
                if not given.is_dir():
                    raise
                print(f"left out: {error}")
                continue
            count += 1
            print(f"{path}: {found.name} ({found.why})" + (f"; {found.note}" if found.note else ""))
            missing = missing_parts(found.name)
            if missing:
                print(f"  of use only with {', '.join(missing)}: mattface weights show {missing[0]}")
        if given.is_dir() and not count:
            raise WeightsError(f"expected weight files in {given}; none was recognised. Known: mattface weights list.")


def files_of(given: Path) -> Iterator[Path]:
    """The file itself, or the files below a folder that are larger than a kilobyte, hidden ones left out."""
    if not given.is_dir():
        yield given
        return
    for path in sorted(given.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(given).parts)
        if path.is_file() and not hidden and path.stat().st_size > 1000:
            yield path


def convert_file(args: argparse.Namespace) -> None:
    """Converts a file and says what it was."""
    from mattface.weights.convert import convert

    layout = convert(args.file, args.output, args.layout)
    print(f"{args.output}: {size(args.output.stat().st_size)}, read as {layout}")
