"""Parts that do one job with one weight each: which of them can run here, and which of these is the strongest.

A table of parts is {part name: weight name}, strongest first.
"""

from __future__ import annotations

from collections.abc import Mapping

from mattface.weights.registry import present, status


def states(parts: Mapping[str, str]) -> list[tuple[str, bool, str]]:
    """(part, usable, what to do if not) for every part of a table."""
    notes = {part: status(weight)["note"] for part, weight in parts.items()}
    return [(part, note == "", note) for part, note in notes.items()]


def strongest(parts: Mapping[str, str]) -> str:
    """The first part whose weight lies here; the last one where none does: loading it says what to type."""
    return next((part for part, weight in parts.items() if present(weight)), list(parts)[-1])
