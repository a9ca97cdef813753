"""Where a head looks, from its dense landmarks."""

from __future__ import annotations

import numpy as np

from mattface.geometry import procrustes
from mattface.mesh import topology
from mattface.mesh.shape import RIGID


def pose(mesh: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Head pose by a rigid fit of a mean face (Kabsch 1976) to the points that expressions move little.

    Args:
        mesh: (468, 3): x right, y down, z away, all in one unit.
        mean: (468, 3) face that looks at the camera, in the same axes (`mattface.mesh.topology().mean`).

    Returns:
        (3,) yaw, pitch, roll in degrees. Yaw is positive when the face turns to the right of the picture, pitch when it
        looks down, roll when it leans clockwise as seen on the screen.
    """
    index = list(RIGID)
    turn, _ = procrustes(mean[index], mesh[index])  # mesh = scale turn mean
    forward = turn @ np.array([0.0, 0.0, -1.0])  # where the nose points
    yaw = np.arctan2(forward[0], -forward[2])
    pitch = np.arcsin(np.clip(forward[1], -1, 1))
    level = np.array([np.cos(yaw), 0.0, np.sin(yaw)])  # the face's x axis if it did not lean
    side = turn @ np.array([1.0, 0.0, 0.0])
    roll = np.arctan2(np.cross(level, side) @ -forward, level @ side)
    return np.degrees(np.array([yaw, pitch, roll]))


def pose_difference(a: np.ndarray, b: np.ndarray) -> float:
    """L2 distance of two poses (3,) in degrees, the shorter way round."""
    return float(np.linalg.norm((np.asarray(a) - b + 180) % 360 - 180))


def by_pose(sources: list[np.ndarray], target: np.ndarray) -> list[int]:
    """Indices of source meshes, the one whose head looks most nearly where the target's does first.

    Lean does not count: crops are upright.

    Args:
        sources: (468, 3) each.
        target: (468, 3).
    """
    mean = topology().mean
    wanted = pose(target, mean)[:2]
    away = [float(np.linalg.norm(pose(mesh, mean)[:2] - wanted)) for mesh in sources]
    return sorted(range(len(sources)), key=lambda k: away[k])
