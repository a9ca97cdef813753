"""Cameras: from the model's centimetres to a picture's pixels, and back into an FFHQ crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mattface.align import ffhq_quad, quad_matrix


@dataclass(frozen=True)
class Camera:
    """A camera that looks at the model's origin.

    A point v goes to X = rotation v, then to (centre_x + scale X_x / p, centre_y - scale X_y / p) with
    p = 1 - X_z / distance.

    Attributes:
        rotation: (3, 3) from the model to the camera's axes (x right, y up, z towards the camera).
        scale: pixels per centimetre in the plane of the origin.
        centre: (2,) pixel where the origin is seen.
        distance: centimetres from camera to origin; infinity gives weak perspective.
    """

    rotation: np.ndarray
    scale: float
    centre: np.ndarray
    distance: float = math.inf

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) model points -> (N, 3) float64: x, y in pixels, and depth in pixels, smaller is nearer."""
        turned = points @ self.rotation.T.astype(points.dtype)
        near = self.scale / (1 - turned[:, 2] / self.distance)
        out = np.empty((len(points), 3))
        out[:, 0] = self.centre[0] + turned[:, 0] * near
        out[:, 1] = self.centre[1] - turned[:, 1] * near
        out[:, 2] = -turned[:, 2] * self.scale
        return out

    def moved(self, matrix: np.ndarray) -> Camera:
        """The camera whose pictures are this one's, moved by a similarity (3, 3) of pixels."""
        size = float(np.hypot(*matrix[0, :2]))
        turn = np.eye(3)
        turn[:2, :2] = matrix[:2, :2] / size * np.array([[1, -1], [-1, 1]])  # y up here, down there
        centre = matrix[:2, :2] @ self.centre + matrix[:2, 2]
        return Camera(turn @ self.rotation, self.scale * size, centre, self.distance)

    def angles(self) -> np.ndarray:
        """(3,) yaw (positive: looks to the right of the picture), pitch (up) and roll in degrees; see `rotation`."""
        r = self.rotation
        yaw, pitch = -math.asin(float(np.clip(r[2, 0], -1, 1))), -math.atan2(r[2, 1], r[2, 2])
        return np.degrees([yaw, pitch, math.atan2(r[1, 0], r[0, 0])])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) head pose out of degrees: pitch, then yaw, then roll (counter-clockwise in the picture).

    Yaw lies within 90 degrees of the camera; at 90 pitch and roll are one.
    """
    a, b, c = math.radians(yaw), -math.radians(pitch), math.radians(roll)
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    nod = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    tilt = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return tilt @ turn @ nod


def from_vector(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation about a (3,) vector by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def frame_as_ffhq(head_pose: np.ndarray, landmarks: np.ndarray, size: int, distance: float) -> Camera:
    """The camera that sees a posed head as its FFHQ crop: eyes and mouth where that crop has them.

    Args:
        head_pose: (3, 3) rotation.
        landmarks: (68, 3) model points.
        size: side of the crop in pixels.
        distance: centimetres.
    """
    loose = Camera(head_pose, 1.0, np.zeros(2), distance)
    seen = loose.project(landmarks)[:, :2]
    crop = loose.moved(quad_matrix(ffhq_quad(seen), size))
    return replace(crop, centre=crop.centre.astype(np.float64))
