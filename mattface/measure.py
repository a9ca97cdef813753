"""Numbers about a swap: identity, pose, landmarks, background, seam. Pure functions on arrays.

The protocols are those of the field (FaceForensics++ retrieval; pose as the L2 distance of Euler angles); the network
that gives the embeddings is the caller's choice and must not be one that a method was trained with.
"""

from __future__ import annotations

import cv2
import numpy as np

OUTER_EYES = (33, 263)
STABLE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 93, 323, 109, 338, 67, 297)
"""Mesh points that expressions move little: forehead, bridge and tip of the nose, eye corners, temples."""


def identity_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between embeddings (..., D) and (..., D): 1 for the same direction, -1 for opposite ones."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / np.maximum(lengths, 1e-12)


def retrieval(results: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> float:
    """ID retrieval: share of results whose nearest gallery embedding (by cosine) is the true source.

    Args:
        results: (N, D) embeddings of swapped faces.
        gallery: (G, D) embeddings of all sources.
        truth: (N,) index of each result's source in the gallery.

    Returns:
        Share in [0, 1].
    """
    unit = [e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (results, gallery)]
    return float(((unit[0] @ unit[1].T).argmax(1) == truth).mean())


def pose(mesh: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Head pose by a rigid fit of a mean face (Kabsch 1976) to the points that expressions move little.

    Args:
        mesh: (468, 3): x right, y down, z away, all in one unit.
        mean: (468, 3) face that looks at the camera, in the same axes (`mattface.mesh.topology().mean`).

    Returns:
        (3,) yaw, pitch, roll in degrees. Yaw is positive when the face turns to the right of the picture, pitch when it
        looks down, roll when it leans clockwise as seen on the screen.
    """
    index = list(STABLE)
    reference, points = mean[index] - mean[index].mean(0), mesh[index] - mesh[index].mean(0)
    u, _, vt = np.linalg.svd(reference.T @ points)
    turn = (u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt).T  # points = turn @ reference
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


def landmark_shift(result: np.ndarray, target: np.ndarray) -> float:
    """Mean distance on the screen between the landmarks of result and target, in percent of the outer-eye distance.

    Args:
        result, target: (468, 2 or 3) meshes in pixels of the same picture.
    """
    eyes = np.linalg.norm(target[OUTER_EYES[0], :2] - target[OUTER_EYES[1], :2])
    return float(100 * np.linalg.norm(result[:, :2] - target[:, :2], axis=1).mean() / max(eyes, 1e-9))


def background_change(result: np.ndarray, target: np.ndarray, matte: np.ndarray) -> float:
    """Largest change of any value where the matte is 0, in units of the pixels. It has to be 0.

    Args:
        result, target: (H, W, 3) of one type.
        matte: (H, W) in [0, 1].
    """
    outside = matte == 0
    if not outside.any():
        return 0.0
    return float(np.abs(result[outside].astype(np.float64) - target[outside].astype(np.float64)).max())


def seam_score(result: np.ndarray, target: np.ndarray, matte: np.ndarray) -> float:
    """How much steeper the picture gets across the matte's edge than the target was there; 0 is no seam.

    The brightness gradient along the direction in which the matte falls, averaged where it falls; the excess over the
    target's own is given relative to the target's mean gradient within the face.

    Args:
        result, target: (H, W, 3) of one type.
        matte: (H, W) in [0, 1].
    """
    white = 1.0 if result.dtype.kind == "f" else float(np.iinfo(result.dtype).max)
    falls = gradient(matte.astype(np.float32))
    steep = np.hypot(*falls)
    across = [c / np.maximum(steep, 1e-9) for c in falls]
    change = []
    for image in (result, target):
        dx, dy = gradient(image.astype(np.float32).mean(-1) / white)
        change.append(np.abs(dx * across[0] + dy * across[1]))
    if steep.sum() <= 0:
        return 0.0
    weight = steep / steep.sum()
    usual = change[1][matte > 0].mean()
    return float(((change[0] - change[1]) * weight).sum() / max(usual, 1e-6))


def gradient(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives along x and y of (H, W) float32, slightly smoothed."""
    return cv2.Sobel(plane, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(plane, cv2.CV_32F, 0, 1, scale=1 / 8)
