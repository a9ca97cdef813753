"""Picture files in folders, and lists of names for messages."""

from __future__ import annotations

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
    found = folder.rglob("*") if deep else folder.iterdir()
    files = sorted(p for p in found if p.is_file() and not hidden(p.relative_to(folder)))
    other = [p.name for p in files if not is_image(p)]
    notes = [f"{len(other)} files in {folder.name} are no pictures and were left out: {some(other)}"] if other else []
    return [p for p in files if is_image(p)], notes


def hidden(path: Path) -> bool:
    """Whether a file or a folder above it is hidden."""
    return any(part.startswith(".") for part in path.parts)
