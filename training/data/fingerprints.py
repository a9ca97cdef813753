"""Duplicates: fingerprints of pictures that hardly change with size and compression."""

from __future__ import annotations

import numpy as np
from PIL import Image

GRID = 16
"""Side of a fingerprint: `GRID`^2 bits."""
NEAR = 24
"""Largest number of differing bits of duplicates' fingerprints. Copies that were shrunk and compressed differ in up to
19 bits of aligned faces, strangers in no fewer than 44 (43 portraits)."""


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """(GRID^2 / 8,) uint8 that hardly change with size and compression: is a thumbnail's pixel below its neighbour."""
    grey = Image.fromarray(pixels).convert("L").resize((GRID + 1, GRID), Image.Resampling.BOX)
    small = np.asarray(grey, np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1])


class Fingerprints:
    """Fingerprints seen so far, with their names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.bits = np.zeros((1024, GRID * GRID // 8), np.uint8)

    def add(self, name: str, bits: np.ndarray) -> None:
        """Remembers one."""
        if len(self.names) == len(self.bits):
            self.bits = np.concatenate([self.bits, np.zeros_like(self.bits)])
        self.bits[len(self.names)] = bits
        self.names.append(name)

    def near(self, bits: np.ndarray) -> str | None:
        """Name of one that differs in at most `NEAR` bits."""
        different = np.bitwise_count(self.bits[: len(self.names)] ^ bits).sum(1, dtype=np.int64)
        found = np.flatnonzero(different <= NEAR)
        return self.names[int(found[0])] if len(found) else None
