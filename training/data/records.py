"""One picture of a face with what is known about it, and how that is read at the size of a training."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mattface.errors import InputError
from mattface.training.data.shards import Blob, read_bytes


@dataclass(frozen=True)
class Mask:
    """A grey picture, white where something is.

    Attributes:
        blob: the picture.
        inner: whether that is part of the inner face; if not, it hides what was painted before it.
    """

    blob: Blob
    inner: bool = True


@dataclass(frozen=True)
class Record:
    """A picture of one face with what is known about it.

    Attributes:
        name: unique in its catalogue.
        identity: who it is; equal for pictures of one person.
        image: an aligned crop, or a photo that is still to be prepared.
        masks: painted one over the other, they give the inner face; empty when there is none.
        caption: text, or None.
        mesh: (468, 3) float array in pixels of the picture as .npy, or None.
        split: "train" or "test" where the data says so, else empty.
        lacks: usual parts of a face that its annotation lacks.
    """

    name: str
    identity: str
    image: Blob
    masks: tuple[Mask, ...] = ()
    caption: Blob | None = None
    mesh: Blob | None = None
    split: str = ""
    lacks: tuple[str, ...] = ()


Found = tuple[list[Record], list[str]]
"""Records of a folder, and sentences about what was left out or assumed."""


def opened(blob: Blob) -> Path | io.BytesIO:
    """Something Pillow can open."""
    return blob if isinstance(blob, Path) else io.BytesIO(read_bytes(blob))


def read_image(record: Record, size: int, grey: Blob | None = None) -> np.ndarray:
    """(S, S, 3) uint8 RGB picture of a record, or (S, S) of the grey picture `grey` that belongs to it.

    Raises:
        InputError: damaged, or not square.
    """
    blob = grey or record.image
    pixels, shape = decoded(blob, "L" if grey else "RGB", 2 * size)
    if shape[0] != shape[1]:
        raise InputError(f"{blob} must be a square aligned crop; got {shape[0]}x{shape[1]}. Run: mattface data prepare")
    if (side := pixels.size[0]) != size:
        pixels = pixels.resize((size, size), Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS)
    return np.asarray(pixels)


def decoded(blob: Blob, mode: str, enough: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """A decoded picture and its stored (width, height); a JPEG may come smaller, yet no smaller than `enough`.

    Raises:
        InputError: damaged.
    """
    try:
        with Image.open(opened(blob)) as image:
            shape = image.size
            if enough is not None:
                image.draft(None, (enough, enough))
            image.load()
            return image.convert(mode), shape
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{blob} must be a picture; it is damaged ({error}). Run: mattface data prepare") from error


def painted(masks: Sequence[Mask], read: Callable[[Blob], np.ndarray]) -> np.ndarray:
    """(H, W) float32 in [0, 1]: masks painted one over the other, each read as (H, W) uint8."""
    area = np.zeros((1, 1), np.float32)
    for mask in masks:
        value = read(mask.blob).astype(np.float32) / 255
        area = np.maximum(area, value) if mask.inner else np.minimum(area, 1 - value)
    return area


def read_mask(record: Record, size: int) -> np.ndarray | None:
    """(S, S) float32 in [0, 1], the inner face by the record's masks; None without any."""
    if not record.masks:
        return None
    return painted(record.masks, lambda blob: read_image(record, size, grey=blob))


def whole_mask(record: Record, picture: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1], the inner face by the record's masks at their own size.

    Args:
        record: with masks.
        picture: (height, width) of its picture.

    Raises:
        InputError: a mask is damaged, has another shape than the picture or the other masks; or no face is in them.
    """
    shapes: list[tuple[int, int]] = []

    def read(blob: Blob) -> np.ndarray:
        pixels = np.asarray(decoded(blob, "L")[0])
        shapes.append((pixels.shape[0], pixels.shape[1]))
        (height, width), first = shapes[-1], shapes[0]
        if shapes[-1] != first or height * picture[1] != width * picture[0]:
            raise InputError(
                f"{blob} must have the shape of its picture ({picture[1]}x{picture[0]}) and the size of the other "
                f"masks ({first[1]}x{first[0]}); got {width}x{height}"
            )
        return pixels

    area = painted(record.masks, read)
    if area.max() < 0.5:
        raise InputError(f"{record.masks[0].blob} and the masks beside it show no face")
    return area


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
