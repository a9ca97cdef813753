"""Face -> the same face with 468 dense landmarks, in pixels of the picture, at any rotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mattface import weights
from mattface.data.topology import FIVE_POINTS, LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS
from mattface.errors import UsageError
from mattface.vocabulary import Face

SIDE = 192
"""Side of the mesh network's input."""
MARGIN = 1.5
"""The network sees a square this many times as wide as the face."""
SURE = 22.0
"""Presence logit below which other rotations are tried: level faces give 33 and more, faces turned by over 45 degrees
less than 18 (measured on 20 portraits turned in steps of 15 degrees)."""
MOVED = 0.07
"""A square whose corners moved by more than this fraction of its side since the last look is looked at again."""
MOST = 5
"""Looks at most."""
PARTS = {"face-mesh": "face-mesh"}

Network = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""(192, 192, 3) float32 RGB in [0, 1] -> (mesh (468, 3) in input pixels, presence as a logit)."""


def _face_mesh() -> Network:
    import os

    from ai_edge_litert.interpreter import Interpreter

    threads = min(4, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    net = Interpreter(str(weights.find("face-mesh")), num_threads=threads)
    net.allocate_tensors()
    into = net.get_input_details()[0]["index"]
    dense, logit = sorted(net.get_output_details(), key=lambda d: -int(np.prod(d["shape"])))

    def run(image: np.ndarray) -> tuple[np.ndarray, float]:
        net.set_tensor(into, image[None])
        net.invoke()
        mesh = net.get_tensor(dense["index"]).reshape(468, 3).astype(np.float64)
        return mesh, float(net.get_tensor(logit["index"]).ravel()[0])

    return run


def square(centre: np.ndarray, side: float, angle: float) -> np.ndarray:
    """(3, 3) matrix from picture pixels to the network's square.

    Args:
        centre: (2,) middle of the square in picture pixels.
        side: side of the square in picture pixels.
        angle: direction of the face's own x axis in the picture, radians.
    """
    scale = SIDE / max(side, 1e-6)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = SIDE / 2 - matrix[:2, :2] @ centre
    return matrix


def sample(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The network's square out of a picture, shrunk without aliasing; float32 in [0, 1], black outside.

    Args:
        rgb: (H, W, 3) uint8.
        matrix: (3, 3) picture pixels to square pixels.
    """
    import cv2

    shrink = int(1 / np.hypot(*matrix[0, :2]))
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    if shrink > 1:
        corners = (np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]]) - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
        low = np.clip(np.floor(corners.min(0)), 0, rgb.shape[1::-1]).astype(int)
        high = np.clip(np.ceil(corners.max(0)), 0, rgb.shape[1::-1]).astype(int)
        high = low + (high - low) // shrink * shrink
        part = rgb[low[1] : high[1], low[0] : high[0]]
        if part.size:
            rgb = cv2.resize(part, tuple((high - low) // shrink), interpolation=cv2.INTER_AREA)
            matrix = matrix @ np.array([[shrink, 0, low[0]], [0, shrink, low[1]], [0, 0, 1.0]])
    move = (np.linalg.inv(half) @ matrix @ half)[:2]
    return cv2.warpAffine(rgb, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.float32) / 255


def _from_points(face: Face) -> tuple[np.ndarray, float, float]:
    """Centre, side and angle of the square around a detected face."""
    eyes, mouth = face.points[:2], face.points[3:]
    across = eyes[1] - eyes[0] + mouth[1] - mouth[0]
    down = mouth.sum(0) - eyes.sum(0)
    axis = across + np.array([down[1], -down[0]])
    side = MARGIN * float(np.max(face.box[2:] - face.box[:2]))
    return (face.box[:2] + face.box[2:]) / 2, side, float(np.arctan2(axis[1], axis[0]))


def _from_mesh(mesh: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, side and angle of the square around a known mesh."""
    left, right = mesh[LEFT_EYE_CORNERS, :2].mean(0), mesh[RIGHT_EYE_CORNERS, :2].mean(0)
    angle = float(np.arctan2(*(right - left)[::-1]))
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    own = mesh[:, :2] @ axes.T
    low, high = own.min(0), own.max(0)
    return (low + high) / 2 @ axes, MARGIN * float((high - low).max()), angle


def _moved(before: np.ndarray, now: np.ndarray) -> float:
    """Largest way of a corner between two squares, as a fraction of the side."""
    corners = np.array([[0, 0, 1], [SIDE, 0, 1], [0, SIDE, 1], [SIDE, SIDE, 1]], dtype=np.float64)
    moved = corners @ (now @ np.linalg.inv(before)).T
    return float(np.hypot(*(moved - corners)[:, :2].T).max()) / SIDE


def five_points(mesh: np.ndarray) -> np.ndarray:
    """(5, 2) eye centres, nose tip and mouth corners of a (468, 3) mesh, ordered as in `Face`."""
    return np.stack([mesh[list(index), :2].mean(0) for index in FIVE_POINTS])


class Landmarker:
    """Finds 468 landmarks. Build one with `load_landmarker`.

    Attributes:
        name: which part runs ("face-mesh").
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network

    def __call__(self, rgb: np.ndarray, face: Face, passes: int = 2) -> Face:
        """The face with `mesh`, `presence` and with `points` taken from the mesh.

        The first square comes from the five points, or from the mesh when there is one (tracking); the next ones come
        from the mesh just found, which is more exact. When the network is not sure, the first square is also tried
        turned in steps of 45 degrees and the surest answer is followed.

        Args:
            rgb: (H, W, 3) uint8 picture.
            face: detected face, or the same face in the frame before.
            passes: how often the network looks at least; 1 is enough for tracking.

        Returns:
            A new Face. A low `presence` says that there is probably no face.
        """
        centre, side, angle = _from_points(face) if face.mesh is None else _from_mesh(face.mesh)
        mesh, logit = self._once(rgb, centre, side, angle)
        if logit < SURE:
            angles = [angle + step * np.pi / 4 for step in range(8)]
            seen = [(mesh, logit)] + [self._once(rgb, centre, side, turned) for turned in angles[1:]]
            best = max(range(8), key=lambda k: seen[k][1])
            (mesh, logit), angle = seen[best], angles[best]
        done, seen_in = 1, square(centre, side, angle)
        while done < MOST:
            centre, side, angle = _from_mesh(mesh)
            wanted = square(centre, side, angle)
            if done >= passes and _moved(seen_in, wanted) < MOVED:
                break
            mesh, logit = self._once(rgb, centre, side, angle)
            done, seen_in = done + 1, wanted
        return replace(face, mesh=mesh, presence=float(1 / (1 + np.exp(-logit))), points=five_points(mesh))

    def _once(self, rgb: np.ndarray, centre: np.ndarray, side: float, angle: float) -> tuple[np.ndarray, float]:
        matrix = square(centre, side, angle)
        mesh, logit = self.network(sample(rgb, matrix))
        out = np.empty_like(mesh)
        out[:, :2] = (mesh[:, :2] - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
        out[:, 2] = mesh[:, 2] * side / SIDE
        return out, logit


def available() -> list[tuple[str, bool, str]]:
    """(part, usable, what to do if not) for every landmark part, strongest first."""
    states = [(name, weights.status(weight)) for name, weight in PARTS.items()]
    return [(name, state["note"] == "", state["note"]) for name, state in states]


def load_landmarker(name: str = "auto") -> Landmarker:
    """The dense landmark part.

    Args:
        name: "auto" or "face-mesh".

    Raises:
        UsageError: unknown name.
        WeightsError: its weights are not here.
    """
    if name not in ("auto", *PARTS):
        raise UsageError(f"expected a landmarker auto, {', '.join(PARTS)}; got {name!r}.")
    return Landmarker("face-mesh", _face_mesh())
