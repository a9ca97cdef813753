"""How well mouth and eyes of one face fit into the openings of another's."""

from __future__ import annotations

import numpy as np

from mattface.mesh import blur, ramp
from mattface.mesh.regions import Regions


def fitting(source: np.ndarray, target: np.ndarray, regions: Regions, sigma: float, mouth_open: float) -> np.ndarray:
    """(S, S) in [0, 1]: less where mouth and eyes of the source do not fit into the openings of the target.

    Args:
        source, target: (468, 3) meshes, each in pixels of its own crop.
        regions: of the target.
        sigma: softness of the borders in pixels.
        mouth_open: opening of the mouth, in mouth widths, from which its inside is visible.
    """
    keep = np.ones_like(regions.mouth)
    keep -= blur(regions.mouth, sigma) * (1 - mouth_fit(source, target, mouth_open))
    for eye, drawn in enumerate(regions.eyes):
        keep -= blur(drawn, sigma) * (1 - eye_fit(source, target, eye))
    return np.clip(keep, 0, 1)


def mouth_fit(source: np.ndarray, target: np.ndarray, visible: float) -> float:
    """How far the inside of the source's mouth may be shown in the target's, in [0, 1]."""
    opening = [distance(p, 13, 14) / max(distance(p, 78, 308), 1e-6) for p in (source, target)]
    closed = 1 - float(ramp(np.array(opening[1]), 0.8 * visible, visible))
    shown = float(ramp(np.array(opening[0]), visible, 1.2 * visible))  # thick closed lips measure up to `visible`
    return max(closed, shown * likeness_of_openings(*opening))


def eye_fit(source: np.ndarray, target: np.ndarray, eye: int) -> float:
    """How far the source's eye may be shown in the target's opening, in [0, 1]; eye 0 is left on the screen."""
    top, bottom, outer, inner = ((159, 145, 33, 133), (386, 374, 263, 362))[eye]
    opening = [distance(p, top, bottom) / max(distance(p, outer, inner), 1e-6) for p in (source, target)]
    return 1.0 if opening[1] <= opening[0] else likeness_of_openings(*opening)


def likeness_of_openings(a: float, b: float) -> float:
    """1 for openings within a factor of 1.8, 0 from 2 on: a half-blended mouth shows two rows of teeth."""
    return 1 - float(ramp(np.abs(np.log(max(a, 1e-3) / max(b, 1e-3))), np.log(1.8), np.log(2.0)))


def distance(points: np.ndarray, a: int, b: int) -> float:
    """Pixels between two mesh points on the screen."""
    return float(np.linalg.norm(points[a, :2] - points[b, :2]))
