"""Folders of portraits: who trains, and the aligned crops of their faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mattface import align, perception, picture_io
from mattface.errors import InputError
from mattface.measure.held_out import is_held_out
from mattface.training.data.files import images_in
from mattface.vocabulary import Crop


def pictures_in(folder: Path) -> list[Path]:
    """Picture files in a folder, sorted by name."""
    return images_in(folder)[0]


def training_portraits(folder: Path) -> list[Path]:
    """Portraits of the people of a folder who are not held out, sorted by name.

    Raises:
        InputError: fewer than two.
    """
    paths = [p for p in pictures_in(folder) if not is_held_out(p.stem)]
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least two portraits of training people; found {len(paths)}.")
    return paths


def crop_portraits(paths: Sequence[Path], size: int) -> list[Crop]:
    """Detects, aligns and cuts the largest face of every portrait that has one."""
    find, locate = perception.load("detector"), perception.load("landmarks")
    crops = []
    for path in tqdm(paths, desc=f"aligning at {size} px", disable=None):
        pixels = picture_io.read(path).pixels
        faces = find(pixels)
        if faces:
            crops.append(align.cut(pixels, locate(pixels, faces[0]), "ffhq", size))
    return crops
