"""Contact sheets: one row a case, one column a method, with a number on every swap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE = 300
HEAD = 24


def close_up(pixels: np.ndarray, box: np.ndarray, part: float = 1.5) -> np.ndarray:
    """The square around a face, `part` times as wide as its box (left, top, right, bottom), as far as there is any."""
    (x, y), half = (box[:2] + box[2:]) / 2, part * float((box[2:] - box[:2]).max()) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    return np.ascontiguousarray(pixels[top : round(y + half), left : round(x + half)])


def sheet(titles: Sequence[str], rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> Image.Image:
    """Draws a sheet.

    Args:
        titles: one per column.
        rows: (picture (H, W, 3) uint8, caption) for every column.
    """
    page = Image.new("RGB", (TILE * len(titles), HEAD + TILE * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for x, title in enumerate(titles):
        draw.text((x * TILE + 4, 4), title, fill="black", font=font)
    for y, row in enumerate(rows):
        for x, (pixels, caption) in enumerate(row):
            at = (x * TILE, HEAD + y * TILE)
            page.paste(ImageOps.contain(Image.fromarray(pixels), (TILE, TILE), Image.Resampling.LANCZOS), at)
            if caption:
                draw.text((at[0] + 4, at[1] + 2), caption, fill="white", stroke_width=2, stroke_fill="black", font=font)
    return page
