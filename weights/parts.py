"""Parts that do one job with one weight each: which of them can run here, and which of these is the strongest.

A table of parts is {part name: weight name}, strongest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mattface.errors import UsageError
from mattface.weights.licences import refuse, restriction
from mattface.weights.registry import status


class Status(NamedTuple):
    """Whether a part can run here.

    Attributes:
        part: its name.
        usable: whether it can.
        note: what to do if not; "" otherwise.
        restriction: the licence that forbids its commercial use; "" if none does.
    """

    part: str
    usable: bool
    note: str = ""
    restriction: str = ""


def states(parts: Mapping[str, str]) -> list[Status]:
    """The state of every part of a table, by its weight."""
    notes = {part: status(weight)["note"] for part, weight in parts.items()}
    return [Status(part, note == "", note, restriction(parts[part])) for part, note in notes.items()]


def choose(what: str, found: Sequence[Status], name: str = "auto") -> str:
    """The part to load: the one named, or for "auto" the first that can run; the last one where none can, so that
    loading it says what to type.

    Raises:
        UsageError: a name that is not among them.
    """
    if name != "auto" and name not in [one.part for one in found]:
        raise UsageError(f"expected {what} auto, {', '.join(one.part for one in found)}; got {name!r}.")
    if name != "auto":
        return name
    return next((one.part for one in found if one.usable), found[-1].part)


def choose_permitted(kind: str, found: Sequence[Status], name: str = "auto") -> str:
    """As `choose`, but only among the parts that allow commercial use.

    Raises:
        LicenceError: the part named, or for "auto" every part, forbids commercial use.
    """
    free = [one for one in found if not one.restriction]
    if name == "auto" and free:
        return choose(f"a part for {kind}", free)
    name = found[0].part if name == "auto" else name
    if licence := {one.part: one.restriction for one in found}.get(name):
        others = " or ".join(one.part for one in free)
        refuse(f"{name} ({kind})", licence, f"Take {others}." if free else "There is no other.")
    return name
