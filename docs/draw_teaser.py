"""Draws docs/teaser.jpg: people who do not exist, swapped by mesh, by mattface-demo and by mattface-ffhq.

Needs mobile-ffhq. Run: python docs/draw_teaser.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import mattface
from mattface import sampling

PAIRS = ((24, 21), (22, 27))
"""Seeds of source and target."""
TILE = 256
METHODS = (
    ("mesh", {}),
    ("mattface", {"weights": "mattface-demo"}),
    ("mattface", {"weights": "mattface-ffhq", "detail": "off"}),
    ("mattface", {"weights": "mattface-ffhq"}),
)


def main() -> None:
    """One row a pair: source, target, and every method."""
    torch.set_num_threads(2)
    sampler = sampling.load(sampling.EMBEDDED, "cpu")
    swappers = [mattface.load(name, device="cpu", **options) for name, options in METHODS]
    page = Image.new("RGB", ((2 + len(METHODS)) * TILE, len(PAIRS) * TILE))
    for row, seeds in enumerate(PAIRS):
        source, target = (sampler(seed) for seed in seeds)
        swapped = [swapper.swap(source, target, measure=False).image for swapper in swappers]
        for column, picture in enumerate((source, target, *swapped)):
            tile = Image.fromarray(np.asarray(picture)).resize((TILE, TILE), Image.Resampling.LANCZOS)
            page.paste(tile, (column * TILE, row * TILE))
    page.save(Path(__file__).with_name("teaser.jpg"), quality=88)


if __name__ == "__main__":
    main()
