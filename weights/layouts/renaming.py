"""Renames the keys of a state dict by rules; every key must be used or stand on a list of ignored ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch

from mattface.errors import WeightsError

State = Mapping[str, torch.Tensor]
Place = Callable[[re.Match[str]], str]
Rule = tuple[str, str | Place]
"""(pattern of the whole foreign key, our key as a template of its groups or a function of the match)."""


def rename(state: State, rules: Iterable[Rule], ignored: Iterable[str], origin: str) -> dict[str, torch.Tensor]:
    """Applies the first rule that matches each whole key. Values are moved, never changed.

    Args:
        state: foreign names.
        rules: see `Rule`.
        ignored: patterns of keys that are left out: constants that we rebuild, and what we do not use.
        origin: what the names are, for messages.

    Raises:
        WeightsError: a key nobody knows, or two keys for one place.
    """
    patterns = [(re.compile(pattern), place) for pattern, place in rules]
    constants = [re.compile(pattern) for pattern in ignored]
    ours: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state.items():
        if any(pattern.fullmatch(key) for pattern in constants):
            continue
        name = _place(key, patterns)
        if name is None:
            unknown.append(key)
        elif name in ours:
            raise WeightsError(f"{origin}: two keys belong at {name}, the second is {key!r}. Is the file of this kind?")
        else:
            ours[name] = value
    if unknown:
        some = ", ".join(unknown[:5])
        raise WeightsError(f"{origin}: {len(unknown)} unknown keys, first {some}. Check which network the file holds.")
    return ours


def _place(key: str, patterns: Iterable[tuple[re.Pattern[str], str | Place]]) -> str | None:
    """Our name of a foreign key, None when no rule knows it."""
    for pattern, place in patterns:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(place) if isinstance(place, str) else place(match)
    return None
