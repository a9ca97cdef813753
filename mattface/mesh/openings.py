"""How well mouth and eyes of one face fit into the openings of another's."""

from __future__ import annotations

import numpy as np

from mattface.mesh import ramp


def mouth_fit(source: np.ndarray, target: np.ndarray, visible: float) -> float:
    """How far the inside of the source's mouth may be shown in the target's, in [0, 1]."""
    opening = [distance(p, 13, 14) / max(distance(p, 78, 308), 1e-6) for p in (source, target)]
    closed = 1 - float(ramp(np.array(opening[1]), 0.8 * visible, visible))
    shown = float(ramp(np.array(opening[0]), visible, 1.2 * visible))  # thick closed lips measure up to `visible`
    return max(closed, shown * similar(*opening))


def eye_fit(source: np.ndarray, target: np.ndarray, eye: int) -> float:
    """How far the source's eye may be shown in the target's opening, in [0, 1]; eye 0 is left on the screen."""
    top, bottom, outer, inner = ((159, 145, 33, 133), (386, 374, 263, 362))[eye]
    opening = [distance(p, top, bottom) / max(distance(p, outer, inner), 1e-6) for p in (source, target)]
    return 1.0 if opening[1] <= opening[0] else similar(*opening)


def similar(a: float, b: float) -> float:
    """1 for openings within a factor of 1.8, 0 from 2 on: a half-blended mouth shows two rows of teeth."""
    return 1 - float(ramp(np.abs(np.log(max(a, 1e-3) / max(b, 1e-3))), np.log(1.8), np.log(2.0)))


def distance(points: np.ndarray, a: int, b: int) -> float:
    """Pixels between two mesh points on the screen."""
    return float(np.linalg.norm(points[a, :2] - points[b, :2]))
