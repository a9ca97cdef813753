"""Weights: cards, where files lie, fetching, checking, safe reading. Importing this touches nothing.

cards() card(name) find(name) present(name) status(name) verify(names) pull(names)
load_tensors(name_or_path) checkpoint_in(name) load_checkpoint(path) load_strictly(network, state, what)
"""

from __future__ import annotations

from mattface.weights.fetch import pull
from mattface.weights.folders import home
from mattface.weights.registry import Card, Source, card, cards, expand, fetchable, find, present, status, verify
from mattface.weights.tensors import checkpoint_in, load_checkpoint, load_strictly, load_tensors

__all__ = [
    "Card",
    "Source",
    "card",
    "cards",
    "checkpoint_in",
    "expand",
    "fetchable",
    "find",
    "home",
    "load_checkpoint",
    "load_strictly",
    "load_tensors",
    "present",
    "pull",
    "status",
    "verify",
]
