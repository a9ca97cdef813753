"""Face -> the same face with 468 dense landmarks, in pixels of the picture, at any rotation."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mattface import weights
from mattface.data.topology import FIVE_POINTS, LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS
from mattface.errors import WeightsError
from mattface.geometry import block_means, extent, shift, warp
from mattface.vocabulary import Face
from mattface.weights.parts import Status, choose, states

if TYPE_CHECKING:
    import torch

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
PARTS = {"fan": "face-alignment-2dfan4", "face-mesh": "face-mesh"}
"""Landmark part -> weight name, strongest first. "fan" is the mesh with five points out of 68 sparse landmarks."""
FAN_SIDE = 256
"""Side of the sparse network's input."""
FAN_MARGIN = 200 / 195
"""Its square is this many times as wide as the face's width plus height."""
FAN_RAISE = 0.12
"""The square's middle lies above the face's by this fraction of the face's height."""
FIVE_OF_68 = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
INSTALL_FAN = "Type: pip install face-alignment"

Network = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""(192, 192, 3) float32 RGB in [0, 1] -> (mesh (468, 3) in input pixels, presence as a logit)."""
Sparse = Callable[[np.ndarray], np.ndarray]
"""(256, 256, 3) float32 RGB in [0, 1] -> 68 landmarks (68, 2) in input pixels."""


def _face_mesh() -> Network:
    import os

    from ai_edge_litert.interpreter import Interpreter

    threads = min(4, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    net = Interpreter(str(weights.find("face-mesh")), num_threads=threads)
    net.allocate_tensors()
    into = net.get_input_details()[0]["index"]
    dense, logit = sorted(net.get_output_details(), key=lambda d: -int(np.prod(d["shape"])))
    one_at_a_time = threading.Lock()  # an interpreter keeps its input and output in itself

    def run(image: np.ndarray) -> tuple[np.ndarray, float]:
        with one_at_a_time:
            net.set_tensor(into, image[None])
            net.invoke()
            mesh = net.get_tensor(dense["index"]).reshape(468, 3).astype(np.float64)
            return mesh, float(net.get_tensor(logit["index"]).ravel()[0])

    return run


def decode_heatmaps(heat: np.ndarray) -> np.ndarray:
    """Peaks of heat maps, moved a quarter of a cell towards the higher neighbour.

    Args:
        heat: (N, h, w).

    Returns:
        (N, 2) x, y in cells, centres at +0.5.
    """
    count, height, width = heat.shape
    rows, columns = np.unravel_index(heat.reshape(count, -1).argmax(1), (height, width))
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), mode="edge")
    n, r, c = np.arange(count), rows + 1, columns + 1
    x = columns + 0.5 + 0.25 * np.sign(padded[n, r, c + 1] - padded[n, r, c - 1])
    y = rows + 0.5 + 0.25 * np.sign(padded[n, r + 1, c] - padded[n, r - 1, c])
    return np.stack([x, y], -1)


def _fan(device: torch.device) -> Sparse:
    """The four-stack face alignment network (Bulat and Tzimiropoulos, 2017, arXiv 1703.07332)."""
    import torch

    try:
        from face_alignment.models import FAN
    except ImportError as error:
        raise WeightsError(f"the fan landmarks need the package face-alignment ({error}). {INSTALL_FAN}") from error
    net = FAN(4)
    weights.load_strictly(net, weights.load_checkpoint(weights.find(PARTS["fan"])), "2DFAN-4")
    net.eval().to(device)

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            heat = net(torch.from_numpy(image.transpose(2, 0, 1)[None]).to(device))[-1][0].cpu().numpy()
        return decode_heatmaps(heat) * (FAN_SIDE / heat.shape[-1])

    return run


def square(centre: np.ndarray, side: float, angle: float, pixels: int = SIDE) -> np.ndarray:
    """(3, 3) matrix from picture pixels to the network's square.

    Args:
        centre: (2,) middle of the square in picture pixels.
        side: side of the square in picture pixels.
        angle: direction of the face's own x axis in the picture, radians.
        pixels: side of the network's input.
    """
    scale = pixels / max(side, 1e-6)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = pixels / 2 - matrix[:2, :2] @ centre
    return matrix


def sample(rgb: np.ndarray, matrix: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The network's square out of a picture, shrunk without aliasing; float32 in [0, 1], black outside.

    Args:
        rgb: (H, W, 3) uint8.
        matrix: (3, 3) picture pixels to square pixels.
        side: of the square.
    """
    shrink = int(1 / np.hypot(*matrix[0, :2]))
    if shrink > 1:
        first, last = extent(np.linalg.inv(matrix), side)
        low = np.clip(np.floor(first), 0, rgb.shape[1::-1]).astype(int)
        high = np.clip(np.ceil(last), 0, rgb.shape[1::-1]).astype(int)
        if (high - low).min() >= shrink:
            part = rgb[low[1] : high[1], low[0] : high[0]]
            rgb, matrix = block_means(part, matrix @ shift(*low), shrink)
    return warp(rgb, matrix, (side, side)).astype(np.float32) / 255


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
    """Finds 468 landmarks. `mattface.perception.load("landmarks")` builds one.

    Attributes:
        name: which part runs ("face-mesh", "fan").
    """

    def __init__(self, name: str, network: Network, sparse: Sparse | None = None) -> None:
        self.name = name
        self.network = network
        self.sparse = sparse

    def __call__(self, rgb: np.ndarray, face: Face, passes: int = 2) -> Face:
        """The face with `mesh`, `presence` and with `points` taken from the mesh.

        The first square comes from the five points, or from the mesh when there is one (tracking); the next ones come
        from the mesh just found, which is more exact. When the network is not sure, the first square is also tried
        turned in steps of 45 degrees, and the most confident result is taken.

        Args:
            rgb: (H, W, 3) uint8 picture.
            face: detected face, or the same face in the frame before.
            passes: how often the network runs at least; 1 is enough for tracking.

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
        return replace(face, mesh=mesh, presence=float(1 / (1 + np.exp(-logit))), points=self._points(rgb, mesh))

    def _points(self, rgb: np.ndarray, mesh: np.ndarray) -> np.ndarray:
        """Five points out of the mesh, or out of 68 sparse landmarks where that network runs."""
        if self.sparse is None:
            return five_points(mesh)
        matrix = fan_square(mesh)
        found = self.sparse(sample(rgb, matrix, FAN_SIDE))
        points = (found - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
        return np.stack([points[list(index)].mean(0) for index in FIVE_OF_68])

    def _once(self, rgb: np.ndarray, centre: np.ndarray, side: float, angle: float) -> tuple[np.ndarray, float]:
        matrix = square(centre, side, angle)
        mesh, logit = self.network(sample(rgb, matrix))
        out = np.empty_like(mesh)
        out[:, :2] = (mesh[:, :2] - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
        out[:, 2] = mesh[:, 2] * side / SIDE
        return out, logit


def fan_square(mesh: np.ndarray) -> np.ndarray:
    """(3, 3) from picture pixels to the sparse network's square around a (468, 3) mesh."""
    _, _, angle = _from_mesh(mesh)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    own = mesh[:, :2] @ axes.T
    low, high = own.min(0), own.max(0)
    width, height = high - low
    centre = (low + high) / 2 - np.array([0.0, FAN_RAISE * height])
    return square(centre @ axes, FAN_MARGIN * float(width + height), angle, FAN_SIDE)


def available() -> list[Status]:
    """The state of every landmark part, strongest first."""
    fan, *others = states(PARTS)
    if fan.usable and importlib.util.find_spec("face_alignment") is None:
        note = f"the package face-alignment is not installed. {INSTALL_FAN}"
        fan = fan._replace(usable=False, note=note)
    return [fan, *others]


def build(
    name: str = "auto", device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Landmarker:
    """Builds a landmark part for `mattface.perception.load`.

    Args:
        name: "auto" for the strongest that can run here, or a key of `PARTS`.
        device: where the sparse network runs; the dense one has no runtime but the CPU's.
        dtype: has no effect; both compute in single precision.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights or its package are not here.
    """
    import torch

    name = choose("a landmarker", available(), name)
    return Landmarker(name, _face_mesh(), _fan(torch.device(device)) if name == "fan" else None)
