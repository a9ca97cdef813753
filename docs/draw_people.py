"""Draws docs/people.jpg: twelve people who do not exist, as the bundled checkpoint draws them:
`mattface sample --seed 0 --count 12 --weights mattface-demo`.

Run: python docs/draw_people.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mattface import sampling

COLUMNS, ROWS, TILE = 6, 2, 192


def main() -> None:
    """One tile a seed."""
    sampler = sampling.load("mattface-demo", "cpu")
    page = Image.new("RGB", (COLUMNS * TILE, ROWS * TILE))
    for seed in range(COLUMNS * ROWS):
        tile = Image.fromarray(sampler(seed, sampling.TRUNCATION)).resize((TILE, TILE), Image.Resampling.LANCZOS)
        page.paste(tile, (seed % COLUMNS * TILE, seed // COLUMNS * TILE))
    page.save(Path(__file__).with_name("people.jpg"), quality=88)


if __name__ == "__main__":
    main()
