"""Early numbers: swaps of people who never train, scored by networks that do not train, with `mattface.measure`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mattface import measure
from mattface.embed import load_embedder
from mattface.errors import InputError, UsageError
from mattface.geometry import similarity
from mattface.vocabulary import Face
from mattface.weights.onnx_graph import session

TEMPLATE = np.array([[30.29, 51.70], [65.53, 51.50], [48.03, 71.74], [33.55, 92.37], [62.73, 92.20]])
"""Eyes, nose tip, mouth corners in the 96x112 crop, centre of the first pixel at 0."""
PAIRS = 12
"""Swaps per score."""
Swap = Callable[[dict[str, Any], dict[str, Any]], torch.Tensor]
"""(source, target) batches of one to the result (1, 3, S, S) in [-1, 1]."""


class Scorer:
    """An ONNX face recognition network that no method trains with, on the CPU.

    Its input is (n, 3, 112, 96) RGB, (x - 127.5) / 128, aligned to `TEMPLATE`.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.session = session(path.read_bytes())
        self.input = self.session.get_inputs()[0].name

    def __call__(self, pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Unit vector of a face: outputs for the crop and its mirror image, concatenated."""
        matrix = similarity(points - 0.5, TEMPLATE)
        crop = cv2.warpAffine(shrunk(pixels, matrix), rescaled(pixels, matrix), (96, 112), flags=cv2.INTER_LINEAR)
        both = np.stack([crop, crop[:, ::-1]]).astype(np.float32).transpose(0, 3, 1, 2)
        out = self.session.run(None, {self.input: (both - 127.5) / 128})[0].ravel()
        return out / np.linalg.norm(out)


def factor(matrix: np.ndarray) -> int:
    """Whole number by which a picture can be shrunk before it is warped down by `matrix`."""
    return max(1, int(1 / np.hypot(*matrix[0, :2])))


def shrunk(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture, area-averaged by `factor`."""
    k = factor(matrix)
    height, width = (n // k * k for n in pixels.shape[:2])
    return cv2.resize(pixels[:height, :width], (width // k, height // k), interpolation=cv2.INTER_AREA)


def rescaled(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(2, 3) `matrix` for the shrunk picture; both with the centre of the first pixel at 0."""
    k = factor(matrix)
    return (matrix @ np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1.0]]))[:2]


Embed = Callable[[np.ndarray, Face], np.ndarray]


def load_scorer(name: str, trains_with: str) -> Embed:
    """(pixels (H, W, 3) uint8, face) -> unit vector.

    Args:
        name: an embedder of `mattface.embed`, or FILE.onnx for `Scorer`.
        trains_with: the embedder that the training asks.

    Raises:
        UsageError: the same network trains and scores.
        InputError: no such file.
    """
    if name.endswith(".onnx"):
        if not Path(name).is_file():
            raise InputError(f"expected a scoring network; {name} is no file.")
        scorer = Scorer(Path(name))
        return lambda pixels, face: scorer(pixels, face.points)
    embedder = load_embedder(name)
    if embedder.name == trains_with or trains_with == "auto":
        raise UsageError(f"{embedder.name} trains, so it cannot score. Give another: --scoring FILE.onnx")
    return embedder


class HeldOut:
    """Fixed pairs of people who never train.

    Args:
        faces: name -> sample of `mattface.training.data.feed.face_sample` with a mesh.
        scoring: see `load_scorer`.
        trains_with: see `load_scorer`.
        seed: of the choice of pairs.

    Raises:
        InputError: fewer than two people.
    """

    def __init__(self, faces: dict[str, dict[str, Any]], scoring: str, trains_with: str, seed: int) -> None:
        if len(faces) < 2:
            raise InputError(
                f"scoring needs at least two held-out people with landmarks; found {len(faces)}. "
                "Run mattface data prepare on the data, or leave --scoring out."
            )
        from mattface.detect import load_detector
        from mattface.landmarks import load_landmarker

        self.embed = load_scorer(scoring, trains_with)
        self.detector, self.landmarker = load_detector(), load_landmarker()
        self.faces = list(faces.values())
        self.pixels = [as_pixels(f["image"][None]) for f in self.faces]
        known = [as_face(f) for f in self.faces]
        self.gallery = np.stack([self.embed(p, face) for p, face in zip(self.pixels, known, strict=True)])
        order = np.random.default_rng(seed).permutation(len(self.faces))[: PAIRS + 1]
        self.pairs = list(zip(order[:-1].tolist(), order[1:].tolist(), strict=True))

    def __call__(self, swap: Swap) -> dict[str, float]:
        """Swaps all pairs.

        Returns:
            "found" share of results with a face; over those "cosine" to the source, "untouched" cosine of the target,
            "retrieved" share, "pose" difference in degrees, "shift" of landmarks in percent of the outer-eye distance.
        """
        rows, embeddings, truth = [], [], []
        for s, t in self.pairs:
            result = as_pixels(swap(batched(self.faces[s]), batched(self.faces[t])))
            face = self._face(result)
            if face is None or face.mesh is None:
                continue
            embedding, mesh = self.embed(result, face), self.faces[t]["mesh"]
            embeddings.append(embedding)
            truth.append(s)
            rows.append(
                {
                    "cosine": float(measure.identity_cosine(embedding, self.gallery[s])),
                    "untouched": float(measure.identity_cosine(self.gallery[t], self.gallery[s])),
                    "pose": pose_between(face.mesh, mesh),
                    "shift": measure.landmark_shift(face.mesh, mesh),
                }
            )
        numbers = {"found": len(rows) / len(self.pairs)}
        if rows:
            numbers |= {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
            numbers["retrieved"] = measure.retrieval(np.stack(embeddings), self.gallery, np.array(truth))
        return numbers

    def _face(self, pixels: np.ndarray) -> Face | None:
        """The largest face, found from scratch."""
        found = self.detector(pixels)
        return self.landmarker(pixels, found[0]) if found else None


def pose_between(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between the poses of two meshes."""
    from mattface.mesh import topology

    mean = topology().mean
    return measure.pose_difference(measure.pose(a, mean), measure.pose(b, mean))


def as_pixels(picture: torch.Tensor) -> np.ndarray:
    """(1, 3, S, S) in [-1, 1] to (S, S, 3) uint8."""
    values = ((picture[0].float().clamp(-1, 1) + 1) * 127.5).round()
    return np.ascontiguousarray(values.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def as_face(sample: dict[str, Any]) -> Face:
    """The face of a sample, with its landmarks."""
    mesh = np.asarray(sample["mesh"], np.float64)
    box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)])
    return replace(Face(box, 1.0, np.asarray(sample["points"], np.float64)), mesh=mesh, presence=1.0)


def batched(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as a batch of one."""
    values = {k: torch.as_tensor(v)[None] if not isinstance(v, str) else [v] for k, v in sample.items()}
    return values
