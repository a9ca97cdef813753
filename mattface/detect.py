"""Picture -> faces: boxes, scores and five points, at any rotation of the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mattface import insight, weights
from mattface.errors import UsageError
from mattface.geometry import apply, area_means, warp
from mattface.vocabulary import Face
from mattface.weights.parts import Status, choose, states

THRESHOLD = 0.5
"""Score from which a candidate counts as a face."""
OVERLAP = 0.3
"""Intersection over union above which two boxes are one face."""
SIDES = (640, 320, 160, 1280, 1920)
"""Longest side of the picture as the network sees it: the first is the usual one, the smaller ones look for faces that
fill the picture (in profile they are missed at the usual side), the larger ones for small faces."""
TINY = 24
"""Height of a face in the network's input below which its points are not to be trusted."""
STRIDE = 32
PARTS = {"scrfd": "insightface-detector", "centerface": "centerface"}
"""Detector name -> weight name, strongest first; before them comes insightface's FaceAnalysis, see `insight`."""


@dataclass(frozen=True)
class Candidates:
    """What a network saw: boxes (N, 4), scores (N,), points (N, 5, 2), in pixels of the array it was given."""

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray

    def take(self, index: np.ndarray) -> Candidates:
        """The candidates at `index`."""
        return Candidates(self.boxes[index], self.scores[index], self.points[index])


Network = Callable[[np.ndarray], Candidates]
"""(H, W, 3) uint8 RGB with sides divisible by 32 -> candidates."""


def decode_centerface(heat: np.ndarray, size: np.ndarray, offset: np.ndarray, points: np.ndarray) -> Candidates:
    """Faces of CenterFace's four maps (Xu et al., 2019, arXiv 1911.03599, section 3; stride 4).

    Args:
        heat: (1, 1, h, w) probability that a face has its centre in this cell.
        size: (1, 2, h, w) logarithm of height and width in cells.
        offset: (1, 2, h, w) centre inside the cell, y then x, from the middle of the cell.
        points: (1, 10, h, w) y, x of five points as fractions of the box.
    """
    rows, columns = np.nonzero(heat[0, 0] > THRESHOLD)
    at = (slice(None), rows, columns)
    height, width = np.exp(size[0][at]) * 4
    y, x = offset[0][at] + 0.5
    top, left = (rows + y) * 4 - height / 2, (columns + x) * 4 - width / 2
    boxes = np.stack([left, top, left + width, top + height], -1)
    yx = points[0][at].reshape(5, 2, -1)
    xy = np.stack([yx[:, 1] * width + left, yx[:, 0] * height + top], -1).transpose(1, 0, 2)
    return Candidates(boxes, heat[0, 0][rows, columns], xy)


def decode_scrfd(outputs: list[np.ndarray], shape: tuple[int, int]) -> Candidates:
    """Faces of SCRFD's nine outputs (Guo et al., 2021, arXiv 2105.04714; strides 8, 16, 32, two anchors per cell).

    Args:
        outputs: scores (N, 1) of the three strides, then distances to the box's sides (N, 4), then points (N, 10),
            all in strides from the cell's origin.
        shape: height and width of the network's input.
    """
    boxes, scores, points = [], [], []
    for level, stride in enumerate((8, 16, 32)):
        score, sides, offsets = (outputs[level + 3 * kind].reshape(-1, n) for kind, n in enumerate((1, 4, 10)))
        rows, columns = np.mgrid[: shape[0] // stride, : shape[1] // stride]
        origin = np.repeat(np.stack([columns, rows], -1).reshape(-1, 2), 2, axis=0) * float(stride)
        keep = np.nonzero(score[:, 0] > THRESHOLD)[0]
        origin, sides = origin[keep], sides[keep] * stride
        boxes.append(np.concatenate([origin - sides[:, :2], origin + sides[:, 2:]], -1))
        points.append(origin[:, None] + offsets[keep].reshape(-1, 5, 2) * stride)
        scores.append(score[keep, 0])
    return Candidates(np.concatenate(boxes), np.concatenate(scores), np.concatenate(points))


def _centerface(device: torch.device) -> Network:
    from mattface.weights.onnx_graph import free_sizes, session

    net = session(free_sizes(weights.find("centerface").read_bytes()), device.type)
    name = net.get_inputs()[0].name

    def run(rgb: np.ndarray) -> Candidates:
        image = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)  # RGB 0..255
        return decode_centerface(*net.run(None, {name: image}))

    return run


def _scrfd(device: torch.device) -> Network:
    from mattface.weights.onnx_graph import session

    net = session(weights.find(PARTS["scrfd"]).read_bytes(), device.type)
    name = net.get_inputs()[0].name

    def run(rgb: np.ndarray) -> Candidates:
        image = (rgb.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
        return decode_scrfd(net.run(None, {name: image}), rgb.shape[:2])

    return run


def _face_analysis(device: torch.device) -> Network:
    """insightface's own detector, whatever the model pack holds."""
    found = insight.open_pack(device, ("detection",)).det_model

    def run(rgb: np.ndarray) -> Candidates:
        boxes, points = found.detect(np.ascontiguousarray(rgb[..., ::-1]))  # (N, 5) with the score last, (N, 5, 2)
        return Candidates(boxes[:, :4], boxes[:, 4], points)

    return run


NETWORKS: dict[str, Callable[[torch.device], Network]] = {
    insight.NAME: _face_analysis,
    "scrfd": _scrfd,
    "centerface": _centerface,
}


def suppress(found: Candidates) -> Candidates:
    """Keeps the best of overlapping candidates (greedy non-maximum suppression)."""
    order = np.argsort(-found.scores)
    area = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(found.boxes[best, :2], found.boxes[rest, :2])
        high = np.minimum(found.boxes[best, 2:], found.boxes[rest, 2:])
        common = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[common <= OVERLAP * (area[best] + area[rest] - common)]
    return found.take(np.asarray(kept, dtype=np.intp))


def plausible(points: np.ndarray) -> bool:
    """Whether five points can be a face: not mirrored, and mouth below the eyes in the face's own frame.

    Args:
        points: (5, 2) as in `Face`.
    """
    across = points[1] - points[0] + points[4] - points[3]
    down = points[3] + points[4] - points[0] - points[1]
    turn = across[0] * down[1] - across[1] * down[0]
    return bool(turn > 0.5 * np.hypot(*across) * np.hypot(*down))


class Detector:
    """Finds faces. `mattface.perception.load("detector")` builds one.

    Attributes:
        name: which part runs (a key of `NETWORKS`).
        device: where it runs.
    """

    def __init__(self, name: str, network: Network, device: torch.device | None = None) -> None:
        self.name = name
        self.network = network
        self.device = device or torch.device("cpu")

    def __call__(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """Faces of a picture, largest first.

        Looks upright first, at the usual size, then smaller for faces that fill the picture and larger for small ones;
        when that finds nothing, or only points that cannot be a face, it looks at copies turned by quarters, then by
        eighths.

        Args:
            rgb: (H, W, 3) uint8.
            thorough: False looks once, upright and at the usual size (video: the next frame is another chance).

        Returns:
            Faces in pixels of the picture; empty when there is none.

        Raises:
            UsageError: another shape or type.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise UsageError(f"expected HxWx3 uint8 RGB; got {rgb.shape} {rgb.dtype}. Convert the picture first.")
        found = self._upright(rgb, SIDES if thorough else SIDES[:1])
        if thorough and not any(plausible(points) for points in found.points):
            for angles in ((90, 180, 270), (45, 135, 225, 315)):
                turned = self._turned(rgb, angles)
                if len(turned.scores):
                    found = turned
                    break
        faces = [Face(b, float(s), p) for b, s, p in zip(found.boxes, found.scores, found.points, strict=True)]
        return sorted(faces, key=lambda face: -float(np.prod(face.box[2:] - face.box[:2])))

    def _upright(self, rgb: np.ndarray, sides: tuple[int, ...]) -> Candidates:
        """Faces of the picture as it is; smaller sizes are tried if there is none, larger ones if all are tiny."""
        longest = max(rgb.shape[:2])
        found = Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        for side in sides:
            if side < SIDES[0] and len(found.scores):
                continue
            scale = min(side / longest, max(1.0, side / SIDES[0]))
            seen = self._at(rgb, np.eye(3), rgb.shape[:2], scale)
            if len(seen.scores):
                found = seen
                if (seen.boxes[:, 3] - seen.boxes[:, 1]).max() * scale >= TINY:
                    break
        return found

    def _turned(self, rgb: np.ndarray, angles: tuple[int, ...]) -> Candidates:
        """Plausible faces of turned copies, mapped back; overlapping ones keep the surest copy."""
        parts = []
        for angle in angles:
            matrix, shape = turn(rgb.shape[:2], angle)
            found = self._at(rgb, matrix, shape, min(SIDES[0] / max(shape), 1.0))
            parts.append(found.take(np.asarray([i for i, p in enumerate(found.points) if plausible(p)], dtype=np.intp)))
        joined = Candidates(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("boxes", "scores", "points")))
        return suppress(joined)

    def _at(self, rgb: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], scale: float) -> Candidates:
        """Runs the network on the picture moved by `matrix` to `shape`, then scaled; results in picture pixels."""
        import cv2

        height, width = (max(1, round(n * scale)) for n in shape)
        if np.array_equal(matrix, np.eye(3)):
            small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        else:
            first, move = area_means(rgb, np.diag([width / shape[1], height / shape[0], 1.0]) @ matrix, scale)
            small = warp(first, move, (width, height))
        pad = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        found = suppress(self.network(np.pad(small, pad)))
        back = np.linalg.inv(np.diag([width / shape[1], height / shape[0], 1.0]) @ matrix)
        corners = apply(back, found.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        return Candidates(_boxes(corners, matrix), found.scores, apply(back, found.points))


def _boxes(corners: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 4) boxes of turned rectangles, with the same area (not the larger hull of a rectangle at 45 degrees)."""
    centre = corners.mean(axis=1)
    half = (corners.max(axis=1) - corners.min(axis=1)) / 2
    cosine, sine = np.abs(matrix[0, :2])
    half /= cosine + sine
    return np.concatenate([centre - half, centre + half], axis=1)


def turn(shape: tuple[int, int], degrees: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Matrix that turns a picture counter-clockwise about its middle, and the (height, width) that holds all of it.

    Args:
        shape: (height, width).
        degrees: angle.

    Returns:
        ((3, 3) picture pixels to turned pixels, (height, width)).
    """
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    height, width = shape
    size = np.array([abs(cosine) * width + abs(sine) * height, abs(sine) * width + abs(cosine) * height])
    size = np.ceil(size - 1e-6)
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    matrix = np.eye(3)
    matrix[:2, :2] = rotation
    matrix[:2, 2] = size / 2 - rotation @ np.array([width / 2, height / 2])
    return matrix, (int(size[1]), int(size[0]))


def available() -> list[Status]:
    """The state of every detector, strongest first."""
    return [insight.status(), *states(PARTS)]


def build(
    name: str = "auto", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Detector:
    """Builds a detector for `mattface.perception.load`.

    Args:
        name: "auto" for the strongest that can run here, or a key of `NETWORKS`.
        device: where it runs. On "cuda" without onnxruntime-gpu it runs on the CPU, as its `device` says.
        dtype: has no effect; the graphs have a dtype of their own.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights or its package are not here.
    """
    from mattface.weights.onnx_graph import on_cuda

    where = torch.device(device)
    where = where if where.type == "cpu" or on_cuda() else torch.device("cpu")
    name = choose("a detector", available(), name)
    return Detector(name, NETWORKS[name](where), where)
