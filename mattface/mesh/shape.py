"""The shape of the swapped face, and canonical coordinates: the position on the mean face of every pixel of a face."""

from __future__ import annotations

from functools import cache

import numpy as np

from mattface.geometry import procrustes
from mattface.mesh import Drawing, checked, crease_sigma, settle, topology

RIGID = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 93, 323, 109, 338, 67, 297)
"""Points that expressions move little: forehead, bridge and tip of the nose, eye corners, temples."""
RIM = 0.4
"""Distance from the outline, on the mean face, over which a change of shape fades to nothing."""
SCALES = (0.8, 1.25)
"""Smallest and largest change of size of an eye or a mouth."""


def blend_shapes(source: np.ndarray, target: np.ndarray, amount: float) -> np.ndarray:
    """The target's mesh with part of the source's proportions: outline, pose and expression stay the target's.

    The source is moved onto the target by the similarity of `RIGID`; every point then moves towards it, eyes and mouth
    as wholes that keep how far they are open. Nothing moves on the outline.

    Args:
        source, target: (468, 3) meshes, each in pixels of its own crop.
        amount: 0 (the target's shape) to 1.

    Returns:
        (468, 3) in pixels of the target's crop; depth is the target's.

    Raises:
        ValueError: a mesh of another shape, or an amount outside [0, 1].
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must be between 0 and 1; got {amount}.")
    source, target = checked(source, "source mesh"), checked(target, "target mesh")
    over = align_rigid(source, target)
    change = (over - target)[:, :2]
    groups, rim = weights()
    for ids, weight in groups:
        change += weight[:, None] * (move_as_a_whole(over[ids, :2], target[ids, :2], target[:, :2]) - change)
    moved = target.copy()
    moved[:, :2] += amount * rim[:, None] * change
    return moved


def align_rigid(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(468, 3) source moved by the similarity that takes its `RIGID` points to the target's best."""
    index = list(RIGID)
    return similar(source[index], target[index], source)


def similar(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (N, 3) moved by the similarity that takes (K, 3) source to target best (Umeyama 1991)."""
    turn, scale = procrustes(source, target)
    return (points - source.mean(0)) @ turn.T * scale + target.mean(0)


def move_as_a_whole(there_points: np.ndarray, own: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(V, 2) change that takes a part (K, 2) to where `there_points` has it, at its width, as open as it is."""
    here, there = own.mean(0), there_points.mean(0)
    along = np.linalg.svd(own - here)[2][0]
    width = np.abs((own - here) @ along).mean()
    scale = np.clip(np.abs((there_points - there) @ along).mean() / max(float(width), 1e-9), *SCALES)
    return (there - here) + (scale - 1) * (points - here)


@cache
def weights() -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """((ids, (468,) share) of mouth and eyes, (468,) freedom to move), measured on the mean face."""
    shape = topology()
    parts = [(np.unique(shape.lip_rings), 0.22), (shape.eyes[0], 0.12), (shape.eyes[1], 0.12)]
    groups = [(ids, np.clip(1 - distance_to(shape.mean, ids) / reach, 0, 1)) for ids, reach in parts]
    return groups, np.clip(distance_to(shape.mean, shape.oval) / RIM, 0, 1)


def distance_to(mean: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(468,) distance on the screen to the nearest of these points."""
    return np.linalg.norm(mean[:, None, :2] - mean[ids][None, :, :2], axis=-1).min(1)


def canonical_coordinates(mesh: np.ndarray, size: int) -> np.ndarray:
    """Where on the mean face every pixel of a crop lies.

    Args:
        mesh: (468, 3) in pixels of the crop.
        size: side S of the crop.

    Returns:
        (3, S, S) float32: x and y on the mean face (of RMS radius 1, continued smoothly outside), and 1 where the mesh
        covers the pixel.

    Raises:
        ValueError: the mesh is not (468, 3) or not finite.
    """
    mesh = checked(mesh, "mesh")
    drawing = Drawing.of(mesh, size)
    positions = np.column_stack([topology().mean[:, :2], np.ones(len(mesh))])
    settled, _ = settle(drawing.interpolate(positions), drawing.covered, crease_sigma(mesh))
    return np.concatenate([settled.transpose(2, 0, 1), drawing.covered[None].astype(np.float32)])
