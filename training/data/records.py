"""One picture of a face with what is known about it, and how that is read at the size of a training."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mattface.errors import InputError
from mattface.training.data.shards import Blob, read_bytes


@dataclass(frozen=True)
class Record:
    """A picture of one face with what is known about it.

    Attributes:
        name: unique in its catalogue.
        identity: who it is; equal for pictures of one person.
        image: an aligned crop.
        masks: masks whose union is the inner face; empty when there is none.
        caption: text, or None.
        mesh: (468, 3) float array in pixels of the picture as .npy, or None.
    """

    name: str
    identity: str
    image: Blob
    masks: tuple[Blob, ...] = ()
    caption: Blob | None = None
    mesh: Blob | None = None


def opened(blob: Blob) -> Path | io.BytesIO:
    """Something Pillow can open."""
    return blob if isinstance(blob, Path) else io.BytesIO(read_bytes(blob))


def read_image(record: Record, size: int, grey: Blob | None = None) -> np.ndarray:
    """(S, S, 3) uint8 RGB picture of a record, or (S, S) of the grey picture `grey` that belongs to it.

    Raises:
        InputError: damaged, or not square.
    """
    blob = grey or record.image
    try:
        with Image.open(opened(blob)) as image:
            shape = image.size
            image.draft(None, (2 * size, 2 * size))  # of a JPEG, no finer than this is worth decoding
            image.load()
            pixels = image.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{blob} must be a picture; it is damaged ({error}). Run: mattface data prepare") from error
    if shape[0] != shape[1]:
        raise InputError(f"{blob} must be a square aligned crop; got {shape[0]}x{shape[1]}. Run: mattface data prepare")
    if (side := pixels.size[0]) != size:
        pixels = pixels.resize((size, size), Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS)
    return np.asarray(pixels)


def read_mask(record: Record, size: int) -> np.ndarray | None:
    """(S, S) float32 in [0, 1], the union of the record's masks; None without any."""
    if not record.masks:
        return None
    return np.max([read_image(record, size, grey=m) for m in record.masks], axis=0).astype(np.float32) / 255


def read_mesh(record: Record, size: int) -> np.ndarray | None:
    """(468, 3) float64 landmarks scaled to a picture of `size`; None without any."""
    if record.mesh is None:
        return None
    mesh = np.load(io.BytesIO(read_bytes(record.mesh)), allow_pickle=False).astype(np.float64)
    if mesh.shape != (468, 3):
        raise InputError(f"{record.mesh} must hold (468, 3) landmarks; got {mesh.shape}. Run: mattface data prepare")
    with Image.open(opened(record.image)) as image:
        return mesh * (size / image.size[0])


def read_caption(record: Record) -> str:
    """The caption; empty without one."""
    if record.caption is None:
        return ""
    text = read_bytes(record.caption).decode("utf-8", errors="replace")
    return re.sub(r"\s+", " ", text).strip()
