"""People who never train, and what networks see in swaps of them: one rule and one evaluator."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mattface import perception
from mattface.detect import Detector
from mattface.errors import InputError
from mattface.landmarks import Landmarker
from mattface.measure.faces import (
    expression_difference,
    identity_cosine,
    landmark_shift,
    retrieval,
)
from mattface.measure.recognition import Embed, load_scorer
from mattface.mesh import topology
from mattface.mesh.pose import pose, pose_difference
from mattface.vocabulary import Face

ONE_IN = 4
PAIRS = 12
"""Swaps per score of a training."""
Swap = Callable[[dict[str, Any], dict[str, Any]], torch.Tensor]
"""(source, target) batches of one to the result (1, 3, S, S) in [-1, 1]."""


def is_held_out(name: str, one_in: int = ONE_IN) -> bool:
    """Whether a person is one of those who never train, by a hash of the name.

    Args:
        name: of the person; where every picture is a person of its own, the file's stem.
        one_in: one person in so many is held out; 0 holds nobody out.
    """
    return bool(one_in) and zlib.crc32(name.encode()) % one_in == 0


def largest_face(find: Detector, locate: Landmarker, pixels: np.ndarray) -> Face | None:
    """The largest face of (H, W, 3) uint8 pixels with landmarks, found from scratch; None when there is none."""
    faces = find(pixels)
    return locate(pixels, faces[0]) if faces else None


class FaceEvaluator:
    """What networks see in a result.

    Args:
        embed: the scoring network.
        find, locate: detector and landmarker.
        gallery: (N, D) unit identities of all people.
        expression: (468, 3) mesh to (E,) coefficients; None leaves expression out.
    """

    def __init__(
        self,
        embed: Embed,
        find: Detector,
        locate: Landmarker,
        gallery: np.ndarray,
        expression: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.embed, self.find, self.locate = embed, find, locate
        self.gallery, self.expression = gallery, expression

    def __call__(
        self, image: np.ndarray, source: int, target: int, face: Face, expression: np.ndarray | None = None
    ) -> dict[str, float]:
        """Numbers of one result.

        Its face is found from scratch; if none is found, the identity is read at the place of the target's face, and
        pose, expression and landmarks are not measured.

        Args:
            image: (H, W, 3) uint8, the result.
            source, target: numbers of the people in the gallery.
            face: the target's.
            expression: (E,) coefficients of the target.

        Returns:
            "found" 1 or 0; "cosine" to the source; "untouched", the target's cosine to the source; "retrieved" 1 where
            the nearest of the gallery is the source; "pose" difference in degrees; "expression" difference; "shift" of
            landmarks in percent of the outer-eye distance. What is not measured is nan.
        """
        found = largest_face(self.find, self.locate, image)
        embedding = self.embed(image, found or face)
        numbers = {
            "found": float(found is not None),
            "cosine": float(identity_cosine(embedding, self.gallery[source])),
            "untouched": float(identity_cosine(self.gallery[target], self.gallery[source])),
            "retrieved": retrieval(embedding[None], self.gallery, np.array([source])),
            "pose": np.nan,
            "expression": np.nan,
            "shift": np.nan,
        }
        if found is None or found.mesh is None or face.mesh is None:
            return numbers
        mean = topology().mean
        numbers["pose"] = pose_difference(pose(found.mesh, mean), pose(face.mesh, mean))
        numbers["shift"] = landmark_shift(found.mesh, face.mesh)
        if self.expression is not None and expression is not None:
            numbers["expression"] = expression_difference(self.expression(found.mesh), expression)
        return numbers


class HeldOut:
    """Fixed pairs of people who never train.

    Args:
        faces: name -> {"image": (3, S, S) in [-1, 1], "mesh": (468, 3), "points": (5, 2)}, and what the swap takes.
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
        embed = load_scorer(scoring, trains_with)
        self.samples = list(faces.values())
        self.faces = [as_face(sample) for sample in self.samples]
        pixels = [as_pixels(sample["image"][None]) for sample in self.samples]
        gallery = np.stack([embed(p, face) for p, face in zip(pixels, self.faces, strict=True)])
        self.evaluate = FaceEvaluator(embed, perception.load("detector"), perception.load("landmarks"), gallery)
        order = np.random.default_rng(seed).permutation(len(self.faces))[: PAIRS + 1]
        self.pairs = list(zip(order[:-1].tolist(), order[1:].tolist(), strict=True))

    def __call__(self, swap: Swap) -> dict[str, float]:
        """Swaps all pairs; the means of what `FaceEvaluator` gives, without what was never measured."""
        rows = []
        for s, t in self.pairs:
            result = as_pixels(swap(as_batch(self.samples[s]), as_batch(self.samples[t])))
            rows.append(self.evaluate(result, s, t, self.faces[t]))
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return {name: float(np.nanmean(values)) for name, values in columns.items() if not np.isnan(values).all()}


def as_pixels(picture: torch.Tensor) -> np.ndarray:
    """(1, 3, S, S) in [-1, 1] to (S, S, 3) uint8."""
    values = ((picture[0].float().clamp(-1, 1) + 1) * 127.5).round()
    return np.ascontiguousarray(values.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def as_face(sample: dict[str, Any]) -> Face:
    """The face of a sample, with its landmarks."""
    mesh = np.asarray(sample["mesh"], np.float64)
    box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)])
    return replace(Face(box, 1.0, np.asarray(sample["points"], np.float64)), mesh=mesh, presence=1.0)


def as_batch(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as a batch of one."""
    return {k: torch.as_tensor(v)[None] if not isinstance(v, str) else [v] for k, v in sample.items()}
