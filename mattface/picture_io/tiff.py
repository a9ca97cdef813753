"""TIFF of more than eight bits: reading, and the writer for TIFF of every depth."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from mattface.checks import check_size
from mattface.errors import InputError
from mattface.picture_io import metadata
from mattface.picture_io.colour import COLOURS
from mattface.picture_io.decoded import Decoded
from mattface.vocabulary import Picture

KINDS = {0: "grey", 1: "grey", 2: "rgb", 5: "cmyk"}
WHITE_IS_ZERO = 0
ASSOCIATED_ALPHA = 1
XMP, ICC = 700, 34675
ASCII, BYTE, LONG = 2, 1, 4
ENTRY = 12
"""Bytes of one directory entry: tag, type, count, value or its place."""


def read_deep_tiff(path: Path, allow_huge: bool) -> Decoded | None:
    """Reads the first page of a 16-bit or floating-point TIFF.

    Returns:
        The decoded page, or None when it has eight bits or less (Pillow reads those).

    Raises:
        InputError: too large, or a kind of number or colour that is not supported.
    """
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        check_size(page.imagewidth, page.imagelength, allow_huge, str(path))
        if page.bitspersample <= 8:
            return None
        kind = _kind(page, path)
        decoded = Decoded(_page_array(page, kind), kind, metadata.tiff_exif(file.filehandle), _page_metadata(page))
        if len(file.pages) > 1:
            decoded.notes.append(f"{len(file.pages)} frames or pages: only the first is used")
        decoded.premultiplied = ASSOCIATED_ALPHA in tuple(page.extrasamples)
    return decoded


def _kind(page: Any, path: Path) -> str:
    supported = page.dtype in (np.uint16, np.float32) and page.bitspersample in (16, 32)
    if not supported or page.photometric not in KINDS or page.imagedepth != 1:
        raise InputError(
            f"{path}: expected a TIFF of 8 or 16-bit integers or 32-bit floats in grey, RGB or CMYK; got "
            f"{page.bitspersample} bits of {page.dtype}, photometric {page.photometric!r}. Export it as 16-bit RGB."
        )
    return KINDS[page.photometric]


def _page_array(page: Any, kind: str) -> np.ndarray:
    """(H, W) or (H, W, C): colours first, then alpha if there is one."""
    array = page.asarray()
    if page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3:
        array = array[..., : COLOURS[kind] + min(len(page.extrasamples), 1)]
    if page.photometric == WHITE_IS_ZERO:
        colour = array if array.ndim == 2 else array[..., 0]
        colour[...] = (1 if array.dtype.kind == "f" else 65535) - colour
    return array


def _page_metadata(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tag in (("icc", ICC), ("xmp", XMP)):
        if tag in page.tags:
            found[name] = bytes(page.tags[tag].value)
    dpi = metadata.clean_dpi(page.get_resolution(unit="inch")) if metadata.RESOLUTION_UNIT in page.tags else None
    if dpi:
        found["dpi"] = dpi
    return found


def encode_tiff(picture: Picture) -> bytes:
    """A TIFF of the picture's own depth, deflate-compressed, with its metadata."""
    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    return tiff_bytes(samples, picture.metadata)


def tiff_bytes(samples: np.ndarray, kept: dict[str, Any]) -> bytes:
    """A TIFF of (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA samples with ICC profile, resolution, EXIF and XMP."""
    exif = metadata.load_exif(kept["exif"]) if "exif" in kept else Image.Exif()
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        bigtiff=False,
        byteorder="<",
        photometric="minisblack" if samples.ndim == 2 else "rgb",
        extrasamples=["unassalpha"] if samples.ndim == 3 and samples.shape[-1] == 4 else None,
        compression="adobe_deflate",
        predictor=True,
        metadata=None,
        software=False,
        iccprofile=kept.get("icc"),
        resolution=kept.get("dpi"),
        resolutionunit="inch" if "dpi" in kept else None,
        extratags=_extra_tags(kept, exif),
    )
    directories = {t: dict(exif.get_ifd(t)) for t in (metadata.EXIF_IFD, metadata.GPS_IFD) if t in exif}
    return _with_directories(buffer.getvalue(), directories) if directories else buffer.getvalue()


def _extra_tags(kept: dict[str, Any], exif: Image.Exif) -> list[tuple[Any, ...]]:
    tags: list[tuple[Any, ...]] = []
    for tag in metadata.DESCRIPTIVE_TAGS:
        if tag in exif:
            text = str(exif[tag]).encode("utf-8") + b"\0"
            tags.append((tag, ASCII, len(text), text, True))
    if "xmp" in kept:
        tags.append((XMP, BYTE, len(kept["xmp"]), kept["xmp"], True))
    return tags


def _with_directories(data: bytes, directories: dict[int, dict[int, Any]]) -> bytes:
    """Appends EXIF and GPS directories, and a first directory that points to them in place of the old one."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + ENTRY * i : start + 2 + ENTRY * (i + 1)] for i in range(count)]
    result = bytearray(data)
    for tag, values in directories.items():
        result += bytes(len(result) % 2)
        entries.append(struct.pack("<HHII", tag, LONG, 1, len(result)))
        result += metadata.directory_bytes(values, tag, len(result))
    result += bytes(len(result) % 2)
    struct.pack_into("<I", result, 4, len(result))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    return bytes(result) + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
