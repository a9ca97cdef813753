"""Grey, CMYK and the rest become RGB here; an ICC profile stays only where it still describes the pixels."""

from __future__ import annotations

import imagecodecs
import numpy as np
from PIL import ImageCms

from mattface.checks import check_float_range
from mattface.errors import InputError

COLOURS = {"grey": 1, "rgb": 3, "cmyk": 4}
SPACES = {b"GRAY": "grey", b"RGB ": "rgb", b"CMYK": "cmyk"}


def srgb_profile() -> bytes:
    """An sRGB ICC profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def white_level(dtype: np.dtype) -> float:
    """The number that means full intensity."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def to_rgb(array: np.ndarray, kind: str, icc: bytes | None) -> tuple[np.ndarray, bytes | None, list[str]]:
    """Makes RGB pixels.

    Args:
        array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK (0 = no ink); uint8, uint16 or float32.
        kind: "grey", "rgb" or "cmyk".
        icc: embedded profile, or None.

    Returns:
        (H, W, 3) pixels of the same type, the profile that belongs to them, sentences for the user.

    Raises:
        InputError: a floating-point picture in CMYK or outside [0, 1].
    """
    if array.dtype.kind == "f":
        check_float_range(array, "picture")
    space = SPACES.get(icc[16:20], "other") if icc else None
    if kind == "rgb":
        if space in (None, "rgb"):
            return array, icc, []
        return array, None, [f"the embedded ICC profile is for {_name(icc)}, not RGB: left out"]
    notes = [f"{kind} picture: converted to RGB" if kind == "grey" else "CMYK picture: converted to RGB"]
    if kind == "grey" and space in (None, "rgb"):
        return np.repeat(array[..., None], 3, axis=-1), icc, notes
    if icc and space == kind:
        return _through_profile(array, kind, icc, notes)
    if space is not None:
        notes.append(f"the embedded ICC profile is for {_name(icc)}: left out")
    return _plain(array, kind), None, notes


def _name(icc: bytes | None) -> str:
    return icc[16:20].decode("latin-1").strip() if icc else ""


def _through_profile(
    array: np.ndarray, kind: str, icc: bytes, notes: list[str]
) -> tuple[np.ndarray, bytes | None, list[str]]:
    """Grey or CMYK to sRGB through its own profile."""
    srgb = srgb_profile()
    colourspace = {"grey": "gray", "cmyk": "cmyk"}[kind]
    try:
        rgb = imagecodecs.cms_transform(
            np.ascontiguousarray(array), icc, srgb, colorspace=colourspace, outcolorspace="rgb", outdtype=array.dtype
        )
    except (imagecodecs.CmsError, ValueError) as error:
        notes.append(f"the embedded ICC profile cannot be used ({error}): left out")
        return _plain(array, kind), None, notes
    return rgb, srgb, [f"{notes[0]} (sRGB, through its ICC profile)"]


def _plain(array: np.ndarray, kind: str) -> np.ndarray:
    """Grey three times; CMYK by rgb = (1 - ink)(1 - black)."""
    if kind == "grey":
        return np.repeat(array[..., None], 3, axis=-1)
    if array.dtype.kind == "f":
        raise InputError(
            "picture: floating-point CMYK is not supported. Convert it to RGB in the program it comes from."
        )
    white = white_level(array.dtype)
    light = white - array.astype(np.float32)
    return np.rint(light[..., :3] * light[..., 3:] / white).astype(array.dtype)


def split_alpha(array: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Parts (H, W, C + 1) into colours and alpha; (H, W, C) has no alpha."""
    if array.ndim == 2:
        return array, None
    colours = COLOURS[kind]
    alpha = np.ascontiguousarray(array[..., colours]) if array.shape[-1] > colours else None
    colour = array[..., 0] if colours == 1 else array[..., :colours]
    return np.ascontiguousarray(colour), alpha


def unpremultiply(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Takes the alpha that a file has already multiplied in out of the colours again."""
    white = white_level(colour.dtype)
    share = (alpha.astype(np.float32) / white)[(...,) + (None,) * (colour.ndim - 2)]
    plain = np.divide(colour, share, out=np.zeros(colour.shape, np.float32), where=share > 0)
    plain = np.clip(plain, 0, white)
    return plain.astype(np.float32) if colour.dtype.kind == "f" else np.rint(plain).astype(colour.dtype)
