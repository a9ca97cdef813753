"""Draws docs/people.jpg: people who do not exist, and the same people with another pose or smile.

Upper row `mattface sample --seed 20 --count 8`, lower row the same with one --edit each. Needs mobile-ffhq.

Run: python docs/draw_people.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from mattface import sampling
from mattface.edit import load_directions

FIRST, TILE = 20, 224
EDITS = (
    *(("yaw", 20), ("yaw", -20), ("pitch", 8), ("smile", 1.5)),
    *(("smile", -1.5), ("mouth", 2), ("yaw", 15), ("yaw", -15)),
)


def main() -> None:
    """One column a seed."""
    torch.set_num_threads(2)
    sampler, directions = sampling.load(sampling.EMBEDDED, "cpu"), load_directions()
    page = Image.new("RGB", (len(EDITS) * TILE, 2 * TILE))
    for column, (name, amount) in enumerate(EDITS):
        code = sampler.code(FIRST + column)
        for row, one in enumerate((code, directions.move(code, {name: amount}))):
            tile = Image.fromarray(sampler.picture(one)).resize((TILE, TILE), Image.Resampling.LANCZOS)
            page.paste(tile, (column * TILE, row * TILE))
    page.save(Path(__file__).with_name("people.jpg"), quality=88)


if __name__ == "__main__":
    main()
