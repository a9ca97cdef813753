"""Recognises weight files that are already on this machine, whatever their names, and registers where they lie."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mattface.errors import WeightsError
from mattface.weights import convert
from mattface.weights.content import Content, open_any
from mattface.weights.folders import home
from mattface.weights.registry import ADOPTED, Card, adopted, card, cards, sha256_of

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")
"""Torch hub's file names carry the first digits of their own SHA-256."""


@dataclass(frozen=True)
class Adoption:
    """A recognised file.

    Attributes:
        name: of the card.
        path: absolute.
        sha256: of the file.
        size: bytes.
        why: how it was recognised.
        note: what is unlike the published file; empty when nothing is.
    """

    name: str
    path: Path
    sha256: str
    size: int
    why: str
    note: str = ""


def adopt(path: Path) -> Adoption:
    """Recognises a file and registers it: from now on its weight is found where the file lies. Nothing is copied.

    Raises:
        WeightsError: no card fits (the message names the nearest and what differs), or the record cannot be written.
    """
    found = recognise(path)
    _record(found)
    return found


def recognise(path: Path) -> Adoption:
    """Which card a file belongs to, by its hash, else by its keys and shapes.

    Raises:
        WeightsError: see `adopt`.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"expected a file; {path} is none. Give the path of a weight file or of a folder of them.")
    sha256, size = sha256_of(path), path.stat().st_size
    for name, item in cards().items():
        started = HASH_IN_NAME.search(item.file)
        if sha256 == item.sha256 or (not item.sha256 and started and sha256.startswith(started[1])):
            return Adoption(name, path, sha256, size, "SHA-256 of the published file")
    content = open_any(path, values=False)
    item, layout = _by_layout(content, path)
    note = ""
    if item.sha256 and layout == item.layout:
        note = f"the published file has SHA-256 {item.sha256[:8]}...: this one was saved again, trained on, or changed"
    return Adoption(item.name, path, sha256, size, f"keys and shapes of {layout}", note)


def _by_layout(content: Content, path: Path) -> tuple[Card, str]:
    """The card whose layout the content follows, and the layout's name."""
    if content.kind == "safetensors" and content.beside.get(convert.LAYOUT_KEY):
        return _card_of(str(content.beside[convert.LAYOUT_KEY]), path), str(content.beside[convert.LAYOUT_KEY])
    if content.graph is not None:
        layout = convert.onnx_layout(content.graph)
        if not layout:
            shapes = ", ".join(f"{value.name} {value.shape}" for value in content.graph.inputs)
            raise WeightsError(f"{path}: an ONNX graph of inputs {shapes}; no card has such a one. {_known()}")
        return _card_of(layout, path), layout
    if content.kind in ("npz", "npy"):
        return _arrays(content, path)
    if not content.parts:
        raise WeightsError(f"{path}: no kind of file that a card describes, and its SHA-256 is unknown. {_known()}")
    if content.beside.get("method"):
        raise WeightsError(
            f"{path}: a checkpoint of the method {content.beside['method']} of this project; it needs no card. "
            f"Pass it as --weights {path.name}."
        )
    best, fit = convert.best_layouts(content)[0]
    if fit.faults:
        nearest = next((item.name for item in cards().values() if item.layout == best.name), best.name)
        if fit.share < convert.NEAR:
            raise WeightsError(f"{path}: its keys belong to no card (nearest {nearest}, {fit.share:.0%}). {_known()}")
        raise WeightsError(
            f"{path}: nearly {nearest} ({fit.share:.0%} of the keys), but {'; '.join(fit.faults)}. "
            f"Nothing was registered. {convert.nearest_hint(fit)}"
        )
    return _card_of(best.name, path), best.name


def _card_of(layout: str, path: Path) -> Card:
    for item in cards().values():
        if item.layout == layout:
            return item
    raise WeightsError(f"{path}: of layout {layout}, which no card uses. Convert it: mattface weights convert.")


def _known() -> str:
    return "Known files: mattface weights list."


ARRAYS: dict[str, dict[str, tuple[int, ...] | None]] = {
    "ict-arrays": {"neutral": (26719, 3), "identity_deltas": (100, 26719, 3), "uv": None, "quads": None, "part": None},
    "emap-array": {"": (512, 512)},
}
"""Layouts of NumPy files: array names, and their shapes where those are fixed."""


def _arrays(content: Content, path: Path) -> tuple[Card, str]:
    arrays = {name: tuple(value.shape) for name, value in content.parts[""].items()}
    for layout, wanted in ARRAYS.items():
        if all(name in arrays and shape in (None, arrays[name]) for name, shape in wanted.items()):
            return _card_of(layout, path), layout
    found = ", ".join(f"{name or 'array'} {shape}" for name, shape in list(arrays.items())[:4])
    raise WeightsError(f"{path}: NumPy arrays ({found}) that no card describes. {_known()}")


def _record(found: Adoption) -> None:
    """Writes the adoption into the cache folder, beside those that are there."""
    from filelock import FileLock

    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{ADOPTED}.lock"):
            entries = adopted() | {found.name: {"path": str(found.path), "sha256": found.sha256, "size": found.size}}
            part = folder / f".{ADOPTED}.part"
            part.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(part, folder / ADOPTED)
    except OSError as error:
        raise WeightsError(
            f"expected a writable weights folder; {folder} is not ({error}). Point MATTFACE_HOME to one that is."
        ) from error


def missing_parts(name: str) -> list[str]:
    """Weights that this one needs beside it and that are not here."""
    from mattface.weights.registry import present

    return [other for other in card(name).needs if not present(other)]
