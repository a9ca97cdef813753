"""Parts that do one job with one weight each: which of them can run here, and which of these is the strongest.

A table of parts is {part name: weight name}, strongest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mattface.errors import UsageError
from mattface.weights.registry import status


class Status(NamedTuple):
    """Whether a part can run here.

    Attributes:
        part: its name.
        usable: whether it can.
        note: what to do if not; "" otherwise.
    """

    part: str
    usable: bool
    note: str = ""


def states(parts: Mapping[str, str]) -> list[Status]:
    """The state of every part of a table, by its weight."""
    notes = {part: status(weight)["note"] for part, weight in parts.items()}
    return [Status(part, note == "", note) for part, note in notes.items()]


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
