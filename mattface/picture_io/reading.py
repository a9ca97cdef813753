"""Reading: a path, a PIL image or an array becomes an upright RGB `Picture`."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from mattface.checks import check_array, check_size
from mattface.errors import InputError, MattfaceError
from mattface.picture_io import colour, metadata
from mattface.picture_io.decoded import Decoded
from mattface.picture_io.tiff import read_deep_tiff
from mattface.provenance import FILE
from mattface.vocabulary import Picture

OPENERS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
SUPPORTED = "PNG, JPEG, WebP, TIFF, BMP or GIF"
KINDS = {"1": "grey", "L": "grey", "LA": "grey", "RGB": "rgb", "RGBA": "rgb", "CMYK": "cmyk"}


def read(source: Any, allow_huge: bool = False) -> Picture:
    """Reads a picture.

    Args:
        source: path of a PNG, JPEG, WebP, TIFF, BMP or GIF file; a PIL image; an (H, W, 3) or (H, W, 4) RGB array of
            uint8, uint16 or float32 in [0, 1]; or a `Picture`, which is returned as it is.
        allow_huge: read files of more than 400 megapixels, too.

    Returns:
        An upright RGB picture. 8-bit files give uint8, 16-bit PNG and TIFF uint16, floating-point TIFF float32.
        Grey, palette and CMYK pictures are converted and animations reduced to their first frame, with a note each.

    Raises:
        InputError: nothing there, nothing readable, not supported, too large, or values no picture has.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(os.fspath(source)), allow_huge)
    if isinstance(source, Image.Image):
        return _picture(_from_pil(source.copy(), source), source.format)
    if isinstance(source, np.ndarray):
        checked = check_array(source)
        rgb, alpha = colour.split_alpha(checked, "rgb")
        return Picture(pixels=rgb, alpha=alpha)
    raise InputError(
        f"picture: expected a path, a PIL image or a numpy array; got {type(source).__name__}. "
        "Turn tensors into HxWx3 arrays with mattface.pixels.to_pixels."
    )


def _read_file(path: Path, allow_huge: bool) -> Picture:
    head = _head(path)
    name = _format(head, path)
    try:
        decoded = _decode(path, name, allow_huge)
        picture = _picture(decoded, name)
        return replace(picture, metadata={**picture.metadata, FILE: path})
    except MattfaceError:
        raise
    except Exception as error:  # whatever a decoder stumbles over in a damaged file means the same to the caller
        reason = str(error).strip() or type(error).__name__
        raise InputError(
            f"{path}: expected a complete {name} picture; it is truncated, damaged or of an unsupported "
            f"kind ({reason}). Open and save it again in an image program, or use another copy."
        ) from error


def _head(path: Path) -> bytes:
    """The first bytes of a regular file."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: expected a picture file; it is a folder. Name one file in it.")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: expected a regular file; it is a device or pipe. Save the picture to a file.")
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a picture file; there is none of that name. Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({error}). Check the path and the permissions.") from error
    if not head:
        raise InputError(f"{path}: expected a picture; the file is empty (0 bytes). Copy or export it again.")
    return head


def _format(head: bytes, path: Path) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return name
    raise InputError(f"{path}: expected {SUPPORTED}; {_other(head)}. Convert it to PNG or JPEG.")


def _other(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        return "it is HEIC, AVIF or a video"
    if head[:4] == b"\x76\x2f\x31\x01":
        return "it is OpenEXR"
    return f"the file begins with {head[:8]!r} and is not one of them"


def _decode(path: Path, name: str, allow_huge: bool) -> Decoded:
    if name == "TIFF":
        deep = read_deep_tiff(path, allow_huge)
        if deep is not None:
            return deep
    with path.open("rb") as file:
        opened = OPENERS[name](file)
        width, height = opened.size
        check_size(width, height, allow_huge, str(path))
        opened.load()
        decoded = _from_pil(opened, opened)
        if name == "TIFF":
            decoded.exif = _without_orientation(metadata.tiff_exif(file))
    if name == "PNG":
        _complete_png(decoded, path.read_bytes())
    return decoded


def _without_orientation(exif: Image.Exif) -> Image.Exif:
    """Pillow has already turned the pixels of a TIFF."""
    exif.pop(metadata.ORIENTATION, None)
    return exif


def _complete_png(decoded: Decoded, data: bytes) -> None:
    """Adds what Pillow leaves out of a PNG: the second byte of 16-bit samples, and the colour chunks."""
    header = dict(metadata.png_chunks(data))[b"IHDR"]
    depth, colour_type = header[8], header[9]
    if depth == 16:
        decoded.array = imagecodecs.png_decode(data)
        decoded.kind = "grey" if colour_type in (0, 4) else "rgb"
    if decoded.kind == "rgb":
        decoded.metadata["png_chunks"] = metadata.png_colour_chunks(data)


def _from_pil(loaded: Image.Image, described: Image.Image) -> Decoded:
    """Takes a loaded PIL image apart; metadata come from `described` (copies lose some)."""
    notes = []
    frames = getattr(described, "n_frames", 1)
    if frames > 1:
        notes.append(f"{frames} frames or pages: only the first is used")
    array, kind = _array(loaded, notes)
    info = described.info
    found = {
        "icc": info.get("icc_profile"),
        "dpi": metadata.clean_dpi(info.get("dpi")),
        "xmp": info.get("xmp") or info.get("XML:com.adobe.xmp"),
    }
    if isinstance(found["xmp"], str):
        found["xmp"] = found["xmp"].encode()
    return Decoded(array, kind, described.getexif(), {k: v for k, v in found.items() if v}, notes)


def _array(image: Image.Image, notes: list[str]) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, C) values and their kind."""
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_grey(image), "grey"
    transparent = image.has_transparency_data
    if image.mode in ("P", "PA"):
        notes.append("palette picture: converted to RGB")
    elif image.mode not in (*KINDS, "La", "RGBa", "RGBX"):
        notes.append(f"{image.mode} picture: converted to RGB")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("LA" if transparent else "L")), "grey"
    if image.mode == "CMYK":
        return np.asarray(image), "cmyk"
    return np.asarray(image.convert("RGBA" if transparent else "RGB")), "rgb"


def _wide_grey(image: Image.Image) -> np.ndarray:
    """Grey of more than eight bits."""
    array = np.asarray(image)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"picture: expected grey values in 0..65535; got {low} to {high}. Scale them, or convert to 8 bits."
        )
    return array.astype(np.uint16)


def _picture(decoded: Decoded, origin: str | None) -> Picture:
    """Makes it RGB and upright and packs its metadata."""
    values, alpha = colour.split_alpha(decoded.array, decoded.kind)
    if decoded.premultiplied and alpha is not None:
        values = colour.unpremultiply(values, alpha)
    rgb, icc, notes = colour.to_rgb(values, decoded.kind, decoded.metadata.get("icc"))
    orientation = metadata.orientation_of(decoded.exif)
    rgb = metadata.upright(rgb, orientation)
    alpha = metadata.upright(alpha, orientation) if alpha is not None else None
    kept = {k: v for k, v in decoded.metadata.items() if v and k != "icc"}
    if icc:
        kept["icc"] = icc
    if "xmp" in kept:
        kept["xmp"] = metadata.upright_xmp(kept["xmp"])
    if "dpi" in kept and orientation >= 5:
        kept["dpi"] = kept["dpi"][::-1]
    exif = metadata.exif_bytes(decoded.exif, (rgb.shape[1], rgb.shape[0]))
    if exif:
        kept["exif"] = exif
    return Picture(rgb, alpha, origin, kept, tuple(decoded.notes + notes))
