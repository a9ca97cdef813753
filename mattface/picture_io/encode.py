"""One encoder per output format: a `Picture` of the right depth becomes the bytes of a file, metadata included."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from mattface.errors import InputError
from mattface.picture_io import metadata
from mattface.picture_io.colour import white_level
from mattface.picture_io.tiff import encode_tiff
from mattface.vocabulary import Picture

JPEG_QUALITY = 95
JPEG_SEGMENT = 65_500
"""Bytes of EXIF or XMP in a JPEG segment, which holds 65 533 with its label."""

NO_LIMIT = 2**31 - 1

INCHES_PER_METRE = 1 / 0.0254
PNG_HEADER_END = 33
"""Signature and IHDR chunk."""


@dataclass(frozen=True)
class Format:
    """An output format.

    Attributes:
        name: as in messages.
        types: dtypes it holds; the last is what any other becomes.
        alpha: it holds transparency.
        largest: longest side in pixels.
        longest_xmp: most bytes of XMP it holds.
        encode: `Picture` -> bytes.
    """

    name: str
    types: tuple[Any, ...]
    alpha: bool
    largest: int
    longest_xmp: int
    encode: Callable[[Picture], bytes]


def encode(picture: Picture, form: Format) -> tuple[bytes, tuple[str, ...]]:
    """Encodes a picture, converting what the format cannot hold.

    Returns:
        The file's bytes, and a sentence for each conversion.

    Raises:
        InputError: the picture has more pixels along a side than the format allows.
    """
    if max(picture.size) > form.largest:
        raise InputError(
            f"picture: {form.name} holds at most {form.largest} pixels along a side; got "
            f"{picture.size[0]}x{picture.size[1]}. Write PNG or TIFF."
        )
    notes = []
    if picture.pixels.dtype not in form.types:
        wanted = np.dtype(form.types[-1])
        notes.append(f"{picture.pixels.dtype} values were rounded to {wanted}: {form.name} holds no more")
        alpha = None if picture.alpha is None else convert_depth(picture.alpha, wanted)
        picture = replace(picture, pixels=convert_depth(picture.pixels, wanted), alpha=alpha)
    if picture.alpha is not None and not form.alpha:
        notes.append(f"transparency was left out: {form.name} holds none")
        picture = replace(picture, alpha=None)
    if form is JPEG:
        picture, dropped = _fit_segments(picture)
        notes += dropped
    return form.encode(picture), tuple(notes)


def convert_depth(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Values scaled from one dtype's white to another's, rounded to the nearest."""
    wanted = np.dtype(dtype)
    if values.dtype == wanted:
        return values
    scaled = values.astype(np.float32) * np.float32(white_level(wanted) / white_level(values.dtype))
    return scaled.astype(wanted) if wanted.kind == "f" else np.rint(scaled).astype(wanted)


def as_image(picture: Picture) -> Image.Image:
    """A PIL image of an 8-bit picture, without metadata."""
    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    return Image.fromarray(np.ascontiguousarray(samples))


def png_bytes(samples: np.ndarray, kept: dict[str, Any]) -> bytes:
    """A PNG of (H, W) or (H, W, C) 8 or 16-bit samples with ICC profile, resolution, EXIF and XMP."""
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples), level=6))
    return data[:PNG_HEADER_END] + b"".join(_png_metadata(kept)) + data[PNG_HEADER_END:]


def _encode_png(picture: Picture) -> bytes:
    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    return png_bytes(samples, picture.metadata)


def _png_metadata(kept: dict[str, Any]) -> list[bytes]:
    chunks = [_chunk(kind, body) for kind, body in kept.get("png_chunks", ()) if "icc" not in kept or kind != b"sRGB"]
    if "icc" in kept:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(kept["icc"])))
    if "dpi" in kept:
        x, y = (round(v * INCHES_PER_METRE) for v in kept["dpi"])
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if "exif" in kept:
        chunks.append(_chunk(b"eXIf", kept["exif"].removeprefix(metadata.EXIF_HEAD)))
    if "xmp" in kept:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + kept["xmp"]))
    return chunks


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _fit_segments(picture: Picture) -> tuple[Picture, list[str]]:
    """Leaves out metadata longer than a JPEG segment."""
    long = [k for k in ("exif", "xmp") if len(picture.metadata.get(k, b"")) > JPEG_SEGMENT]
    kept = {k: v for k, v in picture.metadata.items() if k not in long}
    return replace(picture, metadata=kept), [f"{k.upper()} was left out: too long for JPEG" for k in long]


def _pillow(picture: Picture, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    kept = picture.metadata
    names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}
    options |= {theirs: kept[ours] for ours, theirs in names.items() if ours in kept}
    as_image(picture).save(buffer, name, **options)
    return buffer.getvalue()


def _encode_jpeg(picture: Picture) -> bytes:
    return _pillow(picture, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)


def _encode_webp(picture: Picture) -> bytes:
    """Lossless, the colours below transparent pixels included; WebP keeps the resolution in its EXIF."""
    if "dpi" in picture.metadata:
        exif = metadata.load_exif(picture.metadata.get("exif", metadata.EXIF_HEAD + b"II*\0\x08\0\0\0\0\0\0\0\0\0"))
        exif[metadata.X_RESOLUTION], exif[metadata.Y_RESOLUTION] = picture.metadata["dpi"]
        exif[metadata.RESOLUTION_UNIT] = 2
        picture = replace(picture, metadata={**picture.metadata, "exif": exif.tobytes()})
    return _pillow(picture, "WebP", lossless=True, exact=True, quality=50, method=2)


PNG = Format("PNG", (np.uint8, np.uint16), True, NO_LIMIT, NO_LIMIT, _encode_png)
JPEG = Format("JPEG", (np.uint8,), False, 65_500, JPEG_SEGMENT, _encode_jpeg)
WEBP = Format("WebP", (np.uint8,), True, 16_383, NO_LIMIT, _encode_webp)
TIFF = Format("TIFF", (np.uint8, np.uint16, np.float32), True, NO_LIMIT, NO_LIMIT, encode_tiff)
FORMATS = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP, ".tif": TIFF, ".tiff": TIFF}
