"""Commercial use: whether it is asked for, what the cards' licences say, and how a part they forbid is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from mattface.errors import LicenceError, UsageError
from mattface.weights.registry import candidate_paths, card, cards, sha256_of
from mattface.weights.tensors import checkpoint_in


def commercial_only(asked: bool | None = None) -> bool:
    """Whether only parts that allow commercial use may be picked.

    Args:
        asked: what a caller says; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: the variable has another value than 0 and 1.
    """
    if asked is not None:
        return asked
    value = os.environ.get("MATTFACE_COMMERCIAL", "")
    if value not in ("", "0", "1"):
        raise UsageError(f"MATTFACE_COMMERCIAL must be 1 (only parts for commercial use) or 0; got {value!r}.")
    return value == "1"


def restriction(name: str) -> str:
    """The licence that forbids the commercial use of a weight, its own or that of a weight it needs; "" if none does.

    Raises:
        UsageError: there is no such card.
    """
    item = card(name)
    if not item.commercial_use:
        return item.licence
    barred = [need for need in item.needs if not card(need).commercial_use]
    return f"it needs {barred[0]}: {card(barred[0]).licence}" if barred else ""


def refuse(what: str, licence: str, instead: str) -> NoReturn:
    """Refuses a part that was asked for by name.

    Args:
        what: the part, as a sentence calls it.
        licence: that forbids commercial use.
        instead: what to take, a full sentence.

    Raises:
        LicenceError: always.
    """
    raise LicenceError(f"expected a part that allows commercial use; {what} does not ({licence}). {instead}")


def require(weights: str, instead: str) -> tuple[str, ...]:
    """Refuses weights whose licence forbids commercial use.

    Args:
        weights: name, file, or folder that holds one. Published files are known by their hash, whatever their name.
        instead: see `refuse`.

    Returns:
        A note if no card says the licence of a file, else nothing.

    Raises:
        LicenceError: the licence forbids it.
    """
    name = weights if weights in cards() else _card_of(Path(checkpoint_in(weights)))
    if name is None:
        return (f"no card says whether the licence of {weights} allows commercial use: make sure that it does",)
    if licence := restriction(name):
        refuse(f"the weights {name}", licence, instead)
    return ()


def _card_of(path: Path) -> str | None:
    """The weight that a file is; None for no file, or one without a card."""
    if not path.is_file():
        return None
    digest, here = sha256_of(path), path.resolve()
    for name, item in cards().items():
        if item.sha256 == digest or here in [p.resolve() for p in candidate_paths(name)]:
            return name
    return None
