"""Brings the fine detail of a swapped face to that of the picture it lies in: sharpness and grain, octave by octave.

A face that comes from another camera, or was resampled on its way, is sharper or softer, cleaner or noisier than what
surrounds it. Both pictures are split into the octaves of a Laplacian pyramid (Burt and Adelson 1983), the finest being
that of the picture's own pixels. Each octave of the swapped face gets a bounded gain, one where the face is calm (skin:
grain and pores) and one where it is busy (lashes, brows, lips: focus), so that clean skin beside crisp eyes stays both.
Where the swapped face has nothing to amplify, as after enlarging a small source, the picture's own grain is added
it: its calm detail, bounded in amplitude, so that no feature of the face below shows through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mattface.light import LUMA

ROW = np.array([LUMA], np.float32)
"""As OpenCV takes it."""
CALM_GAINS = ((0.2, 2.0), (0.45, 1.5), (0.75, 1.2))
"""Smallest and largest gain of amplitude in each octave, finest first, where the face is calm."""
BUSY_GAINS = ((0.3, 1.7), (0.6, 1.4), (0.85, 1.2))
"""The same where it is busy: eyes that lose contrast look milky long before skin does."""
GRAIN_SHARES = (1.0, 0.6, 0.0)
"""How much of what an octave still lacks the picture's own grain may give; coarser octaves hold its wrinkles."""
SOFT, EMPTY = 3.0, 4.5
"""How many times sharper the picture's busy parts are where the face's octave begins to be doubted, and is none: what
an enlarged source shows there, and in coarser octaves, is interpolation and compression, which is not amplified.
"""
CELL = 4
"""Side in pixels of an octave over which energy is averaged."""
FEWEST = 16
"""Cells below which nothing can be said."""
CALM, BUSY = 0.6, 0.9
"""Quantiles of detail up to which, and from which on, the face is calm and busy."""
TOP = 0.95
"""Quantile at which the busiest parts of both are compared, wherever they are."""
INSIDE = 0.9
"""Matte from which a pixel is the swapped face's."""
UNSEEN = (0.3 / 255) ** 2
"""Energy that rounding to eight bits makes of nothing; differences below mean little."""
HIGHEST = 2.0
"""Largest value of the grain that is added, in root mean squares of the picture's calm detail."""
DARKEST = 0.1
"""Brightness below which detail is no longer taken in proportion to it."""


@dataclass(frozen=True)
class Levels:
    """Detail of one octave, compared.

    Attributes:
        calm, busy: amplitude of the picture's over the face's, where both are calm and where both are busy.
        face_calm, face_busy: mean logarithm of the face's energy there.
        own_calm, own_busy: the picture's.
    """

    calm: float
    busy: float
    face_calm: float
    face_busy: float
    own_calm: float
    own_busy: float


def match(face: np.ndarray, target: np.ndarray, matte: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Gives a face that was pasted into a picture the sharpness and grain that the picture had there.

    Brightness changes, hue and saturation do not. Deterministic; where the matte is 0 nothing changes.

    Args:
        face: (H, W, 3) float32 RGB in [0, 1], the picture with the swapped face in it.
        target: (H, W, 3) float32, the picture before.
        matte: (H, W) float32 in [0, 1] by which the face was pasted.
        strength: 0 changes nothing, 1 matches.

    Returns:
        (H, W, 3) float32, may leave [0, 1] a little; `face` itself where it is too small to compare.
    """
    light, own = cv2.transform(face, ROW), cv2.transform(target, ROW)
    inside = matte
    changes: list[np.ndarray] = []
    solid = 1.0
    for octave in range(len(CALM_GAINS)):
        if min(light.shape) < 2 * CELL:
            break
        (band, light), (own_band, own) = split(light), split(own)
        change, solid = octave_change(band, own_band, inside, octave, solid)
        changes.append(change)
        inside = cv2.pyrDown(inside)
    if not any(part.any() for part in changes):
        return face
    change = np.zeros_like(changes[-1])
    for part in reversed(changes):
        change = (cv2.pyrUp(change, dstsize=part.shape[::-1]) if change.shape != part.shape else change) + part
    gain = 1 + strength * matte * change / np.maximum(cv2.transform(face, ROW), DARKEST)
    return cv2.multiply(face, cv2.merge([gain] * 3))


def split(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) -> its finest octave (H, W), and the rest at half the size."""
    small = cv2.pyrDown(plane)
    return plane - cv2.pyrUp(small, dstsize=plane.shape[::-1]), small


def octave_change(
    face: np.ndarray, target: np.ndarray, matte: np.ndarray, octave: int, solid: float
) -> tuple[np.ndarray, float]:
    """What is to be added to one octave of the face.

    Args:
        face, target: (h, w) float32, the octave of both pictures.
        matte: (h, w).
        octave: 0 is the finest.
        solid: how far finer octaves of the face show more than interpolation, in [0, 1].

    Returns:
        (h, w), 0 where the matte is too small to tell; and `solid` after this octave.
    """
    energy, own = log_energy(face), log_energy(target)
    size = energy.shape[::-1]
    levels = compare(energy, own, cv2.resize(matte, size, interpolation=cv2.INTER_AREA) > INSIDE)
    if levels is None:
        return np.zeros_like(face), solid
    solid = min(solid, float(np.clip(math.log(EMPTY / levels.busy) / math.log(EMPTY / SOFT), 0, 1)))
    calm, busy = gains(levels, octave, solid)
    share = busyness(energy, levels.face_calm, levels.face_busy)
    change = face * enlarged(calm * np.exp(share * math.log(busy / calm)) - 1, face.shape)
    lacking = GRAIN_SHARES[octave] ** 2 * (1 - (calm / levels.calm) ** 2)
    if lacking > 0:  # what the gain may not give, the picture's own grain does
        bound = HIGHEST * math.exp(levels.own_calm / 2)
        still = math.sqrt(lacking) * (1 - busyness(own, levels.own_calm, levels.own_busy))
        change += np.clip(target, -bound, bound) * enlarged(still, face.shape)
    return change, solid


def gains(levels: Levels, octave: int, solid: float) -> tuple[float, float]:
    """Gains of amplitude where the face is calm and where it is busy.

    A calm octave that lacks more than its largest gain is amplified the less, the emptier it is, down to not at all at
    the square of that gain.
    """
    lowest, most = CALM_GAINS[octave]
    calm = max(lowest, levels.calm if levels.calm <= most else max(1.0, most**2 / levels.calm))
    busy = float(np.clip(levels.busy, *BUSY_GAINS[octave]))
    return calm ** (solid if calm > 1 else 1), busy ** (solid if busy > 1 else 1)


def log_energy(band: np.ndarray) -> np.ndarray:
    """(h, w) octave -> natural logarithm of its mean square per cell, (h / CELL, w / CELL)."""
    height, width = band.shape
    size = (max(1, width // CELL), max(1, height // CELL))
    return np.log(cv2.resize(band * band, size, interpolation=cv2.INTER_AREA) + np.float32(UNSEEN))


def compare(face: np.ndarray, target: np.ndarray, inside: np.ndarray) -> Levels | None:
    """Compares two octaves where both are calm and where both are busy; None if there is too little to compare.

    Cells are sorted by what both pictures show in them, so that neither a beard below the face nor one upon it counts
    as busy, and so that neither picture is favoured.

    Args:
        face, target: (n, m) of `log_energy`.
        inside: (n, m) of bool, the cells that count.
    """
    if int(inside.sum()) < FEWEST:
        return None
    a, b = face[inside].astype(np.float64), target[inside].astype(np.float64)
    low, high = np.quantile(a + b, [CALM, BUSY])
    calm, busy = a + b <= low, a + b >= high
    half = 0.5 * (b - a)
    same_place, same_rank = half[busy].mean(), 0.5 * (np.quantile(b, TOP) - np.quantile(a, TOP))
    agreed = min(abs(same_place), abs(same_rank)) * (np.sign(same_place) + np.sign(same_rank)) / 2
    return Levels(
        float(np.exp(np.median(half[calm]))), float(np.exp(agreed)),
        float(np.median(a[calm])), float(a[busy].mean()),
        float(np.median(b[calm])), float(b[busy].mean()),
    )  # fmt: skip


def busyness(energy: np.ndarray, calm: float, busy: float) -> np.ndarray:
    """0 where the logarithm of the energy is that of calm cells, 1 where it is that of busy ones."""
    return np.clip((energy - np.float32(calm)) / np.float32(max(busy - calm, 0.5)), 0, 1)


def enlarged(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A smooth map of the octave's size from values of its cells."""
    return cv2.resize(cells, shape[::-1], interpolation=cv2.INTER_LINEAR)
