"""Draws docs/grid.jpg: swaps of people who do not exist, with the ground truth beside them, failures included.

The people are mixtures, drawn by the studio, of people who do not exist either; none of them trained anything.
Run: python docs/draw_grid.py --people people.npz (of `mattface studio people`, from portraits that never train)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mattface
from mattface import measure
from mattface.errors import NoFaceError
from mattface.pipeline import Swapper
from mattface.training.studio.shots import Config
from mattface.training.studio.studio_file import load_studio
from mattface.training.studio.triplet import Triplet
from mattface.training.studio.triplets import TripletMaker

SEEDS = (6, 2, 12, 7, 10, 13, 5)
METHODS = ("mesh", "mattface")
SIZE, TILE, HEAD = 768, 232, 20


def run_swap(swapper: Swapper, triplet: Triplet) -> np.ndarray:
    """(S, S, 3) uint8; the target itself where no face is found."""
    try:
        return swapper.swap(swapper.prepare(triplet.source), triplet.target).image
    except NoFaceError:
        return triplet.target


def main() -> None:
    """One row a triplet: source, target, every method's swap, the ground truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("grid.jpg"))
    args = parser.parse_args()
    config = Config(SIZE, kinds=(1.0, 0.0, 0.0), new_people=1.0, wide=0.3, occluded=0.5, same=0.0)
    maker = TripletMaker(load_studio(args.people), config)
    swappers = [mattface.load(name) for name in METHODS]
    titles = ["source", "target", "mesh", "mattface-demo", "ground truth"]
    page = Image.new("RGB", (TILE * len(titles), HEAD + TILE * len(args.seeds)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for x, title in enumerate(titles):
        draw.text((x * TILE + 4, 3), title, fill="black", font=font)
    for y, seed in enumerate(args.seeds):
        triplet = maker(seed)
        found = [run_swap(swapper, triplet) for swapper in swappers]
        print(seed, *(f"{measure.psnr(f, triplet.swap, triplet.matte):.1f} dB" for f in found))
        for x, pixels in enumerate([triplet.source, triplet.target, *found, triplet.swap]):
            small = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)
            page.paste(small, (x * TILE, HEAD + y * TILE))
    page.save(args.out, quality=88)


if __name__ == "__main__":
    main()
