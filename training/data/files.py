"""Picture files in folders, and lists of names for messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

IMAGES = ("jpg", "jpeg", "png", "webp")


def is_image(path: Path) -> bool:
    """By its ending; hidden files (such as macOS's ._NAME.jpg) are none."""
    return path.suffix.lower().lstrip(".") in IMAGES and not path.name.startswith(".")


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def images_in(folder: Path, deep: bool = False) -> tuple[list[Path], list[str]]:
    """Pictures in a folder by path, and a note about its other files.

    Args:
        folder: where to look.
        deep: whether to look in its folders, too; hidden ones are left out.
    """
    found: list[Path] = []
    for here, folders, names in os.walk(folder, followlinks=True):  # millions of files: pathlib's walk is slow
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        found += [Path(here, name) for name in names if not name.startswith(".")]
    found.sort()
    other = [p.name for p in found if not is_image(p)]
    notes = [f"{len(other)} files in {folder.name} are no pictures and were left out: {some(other)}"] if other else []
    return [p for p in found if is_image(p)], notes
