"""What tests of the command line share: a small stand-in for the swapper, and a pair of pictures to give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mattface import picture_io
from mattface.vocabulary import Face, Picture, SwappedFace, SwapResult


class StandIn:
    """Takes the swapper's place: inverts the left half of the target and tells what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.method: Any = None

    def load(self, method: str = "mesh", **options: Any) -> StandIn:
        self.asked |= {"method": method, **options}
        return self

    def prepare(self, sources: Any) -> Any:
        self.asked["sources"] = sources
        return "somebody"

    def swap(self, identity: Any, target: Picture, face: Any = "largest") -> SwapResult:
        self.asked |= {"identity": identity, "face": face}
        matte = np.zeros(target.pixels.shape[:2], np.float32)
        matte[:, : matte.shape[1] // 2] = 1
        pixels = np.where(matte[..., None] > 0, 255 - target.pixels, target.pixels).astype(target.pixels.dtype)
        box = np.array([1.0, 2, 3, 4])
        swapped = SwappedFace(
            0, Face(box, 0.9, np.zeros((5, 2))), np.eye(3), np.zeros((4, 4, 3), np.uint8), {"cosine": np.float32("nan")}
        )
        picture = Picture(pixels, target.alpha, target.origin, target.metadata, target.notes)
        report = {"device": "cpu", "seconds": {"detect": 0.1}, "notes": list(target.notes)}
        return SwapResult(pixels, matte, (swapped,), report, picture)


def write_pair(folder: Path) -> Path:
    """Writes source.png and target.png into this folder."""
    pixels = np.random.default_rng(5).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture_io.write(Picture(pixels), folder / "source.png")
    picture_io.write(Picture(pixels[::-1].copy()), folder / "target.png")
    return folder
