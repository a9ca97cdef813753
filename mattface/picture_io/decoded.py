"""A file's content between its decoder and the finished `Picture`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Decoded:
    """A decoded file before it is made RGB and upright.

    Attributes:
        array: (H, W) or (H, W, C), alpha last if there is one.
        kind: "grey", "rgb" or "cmyk", alpha aside.
        exif: EXIF as read.
        metadata: icc, dpi, xmp and png_chunks as in `Picture.metadata`.
        notes: sentences for the user.
        premultiplied: the file's alpha is already multiplied into its colours.
    """

    array: np.ndarray
    kind: str
    exif: Image.Exif
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    premultiplied: bool = False
