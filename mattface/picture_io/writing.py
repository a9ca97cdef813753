"""Writing a `Picture` to a file with its origin mark, and handing it back as a PIL image or an array."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mattface import __version__
from mattface.errors import InputError, UsageError
from mattface.picture_io.encode import FORMATS, TIFF, Format, as_image, encode, png_bytes
from mattface.picture_io.files import check_target, write_whole
from mattface.picture_io.reading import read
from mattface.picture_io.tiff import tiff_bytes
from mattface.provenance import (
    DIGITAL_SOURCE_TYPE,
    GENERATED,
    MARK,
    RECORD,
    XMP,
    Laid,
    Mark,
    Settings,
    add_mark,
    find_mark,
)
from mattface.provenance.laying import Laying
from mattface.vocabulary import Picture

MATTE_FORMATS = (".png", ".tif", ".tiff")


Marking = bool | str | Collection[str] | Settings
"""True for all layers of provenance, False for none, names of layers, or whole settings."""


def write(
    picture: Picture, path: str | os.PathLike[str], overwrite: bool = False, mark: Marking = True
) -> tuple[str, ...]:
    """Writes a picture with its metadata and its provenance, whole or not at all.

    PNG, WebP and TIFF are lossless; JPEG has quality 95 without chroma subsampling. 16-bit pictures stay 16-bit in PNG
    and TIFF, floating-point ones stay so in TIFF.

    Args:
        picture: what to write.
        path: .png, .jpg, .jpeg, .webp, .tif or .tiff, in an existing folder.
        overwrite: an existing file of that name may be replaced.
        mark: which layers of provenance are laid, see `mattface.provenance`.

    Returns:
        Sentences for the user: what the format could not hold, and what could not be laid.

    Raises:
        InputError: unknown ending, folder missing or not writable, file exists, disk full.
        UsageError: an unknown layer.
    """
    return write_with_origin(picture, path, overwrite, mark).notes


def write_with_origin(
    picture: Picture, path: str | os.PathLike[str], overwrite: bool = False, mark: Marking = True
) -> Laid:
    """`write` that says which layers were laid. Arguments and errors as there."""
    form = _format(path, FORMATS)
    check_target(path, overwrite)
    laying = Laying(Settings.of(mark), picture.metadata.get(RECORD))
    picture = replace(picture, pixels=laying.mark(picture.pixels))
    if laying.wants(XMP):
        picture = _marked(picture, form, laying)
    data, conversions = encode(picture, form)
    write_whole(laying.sign(data, Path(path), __version__), path, overwrite)
    laying.notes += conversions
    return laying.done(str(path))


def write_matte(
    matte: np.ndarray, path: str | os.PathLike[str], overwrite: bool = False, mark: Marking = True
) -> None:
    """Writes a matte: 16-bit grey PNG (65535 = 1) or float32 TIFF.

    Args:
        matte: (H, W) float in [0, 1].
        path: .png, .tif or .tiff.
        overwrite, mark: as in `write`; the imperceptible mark is for pictures.

    Raises:
        UsageError: the matte has another shape.
        InputError: as in `write`.
    """
    if matte.ndim != 2:
        raise UsageError(f"matte must be HxW; got {matte.shape}. Pass result.matte.")
    form = _format(path, {k: v for k, v in FORMATS.items() if k in MATTE_FORMATS})
    laying = Laying(Settings.of(mark))
    kept = {"xmp": add_mark(None, __version__)} if laying.wants(XMP) else {}
    values = np.clip(matte, 0, 1).astype(np.float32)
    if form is TIFF:
        data = tiff_bytes(values, kept)
    else:
        data = png_bytes(np.rint(values.astype(np.float64) * 65535).astype(np.uint16), kept)
    laying.absent(MARK, "a matte shows no face")
    write_whole(laying.sign(data, Path(path), __version__), path, overwrite)


def check_output(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    inputs: Sequence[object] = (),
    endings: Sequence[str] = tuple(FORMATS),
) -> Path:
    """Makes sure that a file can be written at `path`, before any work is done for it.

    Args:
        path, overwrite: as in `write`.
        inputs: the paths that were read, to say so when one would be replaced.
        endings: the file name endings that are allowed; empty for any.

    Returns:
        The path with symbolic links followed.

    Raises:
        InputError: as in `write`.
    """
    if endings:
        _format(path, {k: FORMATS.get(k) for k in endings})
    return check_target(path, overwrite, inputs)


def read_mark(path: str | os.PathLike[str]) -> Mark | None:
    """The origin mark of a picture file, or None.

    Raises:
        InputError: the picture cannot be read.
    """
    return find_mark(read(path, allow_huge=True).metadata.get("xmp"))


def to_pil(picture: Picture) -> Image.Image:
    """An 8-bit picture as a PIL image that carries its ICC profile, EXIF, XMP and resolution in `info`.

    Raises:
        UsageError: the picture has more than eight bits, which PIL holds in no colour mode.
    """
    if picture.pixels.dtype != np.uint8:
        raise UsageError(f"PIL holds 8-bit colour only; this picture is {picture.pixels.dtype}. Use its pixels array.")
    image = as_image(picture)
    names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}
    image.info |= {theirs: picture.metadata[ours] for ours, theirs in names.items() if ours in picture.metadata}
    return image


def to_caller(picture: Picture, source: Any) -> Any:
    """Hands a picture back the way its original came.

    Args:
        picture: the result.
        source: what the caller passed as the original.

    Returns:
        For an array: (H, W, 3) or (H, W, 4) of the same type. For a path or a PIL image: a PIL image where 8-bit, else
        an array. For a `Picture`: a `Picture`.
    """
    if isinstance(source, Picture):
        return picture
    if picture.pixels.dtype == np.uint8 and not isinstance(source, np.ndarray):
        return to_pil(picture)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def _marked(picture: Picture, form: Format, laying: Laying) -> Picture:
    """The picture with the tag in its XMP; a packet that is none, or leaves no room, makes way."""
    kind = GENERATED if laying.settings.generated else DIGITAL_SOURCE_TYPE
    try:
        xmp = add_mark(picture.metadata.get("xmp"), __version__, kind)
    except ValueError as error:
        laying.notes.append(f"the picture's XMP was replaced: {error}")
        xmp = add_mark(None, __version__, kind)
    if len(xmp) > form.longest_xmp:
        laying.notes.append(f"the picture's XMP was replaced: it is too long for {form.name}")
        xmp = add_mark(None, __version__, kind)
    return replace(picture, metadata={**picture.metadata, "xmp": xmp})


def _format(path: str | os.PathLike[str], formats: dict[str, Any]) -> Any:
    ending = Path(path).suffix.lower()
    if ending not in formats:
        raise InputError(
            f"{Path(path)}: expected a name ending in {', '.join(formats)}; got {ending or 'no ending'!r}. "
            "The ending chooses the format."
        )
    return formats[ending]
