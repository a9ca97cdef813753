"""What travels beside the pixels: EXIF, XMP, ICC profile and resolution, in one form for every file format."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

ORIENTATION = 274
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
PIXEL_WIDTH, PIXEL_HEIGHT = 40962, 40963
DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 33432)
"""Description, make, model, software, date, artist, copyright: what a TIFF's own directory says about the picture."""

EXIF_HEAD = b"Exif\x00\x00"
CM_PER_INCH = 2.54


def orientation_of(exif: Image.Exif) -> int:
    """The EXIF orientation, 1 (upright) when it is missing or no valid value."""
    value = exif.get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an (H, W, ...) array the way its EXIF orientation (1 to 8) asks for."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def exif_bytes(exif: Image.Exif, size: tuple[int, int]) -> bytes | None:
    """Packs EXIF for an upright picture.

    The orientation is reset to upright and the stored size set to the real one. The embedded thumbnail is left out: it
    would show the face as it was before the swap.

    Args:
        exif: as read.
        size: (width, height) of the upright picture.

    Returns:
        Bytes beginning with `Exif`, or None when nothing is left to say.
    """
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in (EXIF_IFD, GPS_IFD):
            kept[tag] = value
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    for tag in (EXIF_IFD, GPS_IFD):
        directory = dict(exif.get_ifd(tag))
        if tag == EXIF_IFD:
            directory.pop(INTEROP_IFD, None)
            directory.update({t: v for t, v in zip((PIXEL_WIDTH, PIXEL_HEIGHT), size, strict=True) if t in directory})
        if directory:
            kept[tag] = directory
    return kept.tobytes() if len(kept) else None


def tiff_exif(file: Any) -> Image.Exif:
    """The EXIF of a TIFF: the descriptive tags of its first directory, its EXIF and GPS directories."""
    exif = Image.Exif()
    file.seek(0)
    exif.load_from_fp(file)
    for tag in list(exif):
        if tag not in (*DESCRIPTIVE_TAGS, ORIENTATION, EXIF_IFD, GPS_IFD):
            del exif[tag]
    for tag in (EXIF_IFD, GPS_IFD):
        exif.get_ifd(tag)  # read now, while the file is open
    return exif


def load_exif(data: bytes) -> Image.Exif:
    """Unpacks EXIF bytes made by `exif_bytes`."""
    exif = Image.Exif()
    exif.load(data)
    return exif


def directory_bytes(values: dict[int, Any], group: int, offset: int) -> bytes:
    """One EXIF directory as it stands in a little-endian TIFF at `offset`."""
    directory = ImageFileDirectory_v2(b"II\x2a\x00\x08\x00\x00\x00", group=group)
    for tag, value in values.items():
        directory[tag] = value
    return directory.tobytes(offset)


def clean_dpi(dpi: Any) -> tuple[float, float] | None:
    """(x, y) dots per inch as floats, or None when they are missing or make no sense."""
    try:
        x, y = (float(v) for v in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(v) and v > 0 for v in (x, y)) else None


def upright_xmp(xmp: bytes) -> bytes:
    """Sets the orientation an XMP packet repeats to upright, touching nothing else."""
    return re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>)\s*)[2-8]', rb"\g<1>1", xmp)


def png_colour_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks that give a PNG's numbers their colour meaning beside an ICC profile, as they stand in the file."""
    return [(kind, body) for kind, body in png_chunks(data) if kind in (b"gAMA", b"cHRM", b"sRGB", b"cICP")]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG before its pixels: (kind, body)."""
    found, position = [], 8
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"IDAT":
            break
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found
