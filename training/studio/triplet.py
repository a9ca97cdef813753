"""One swap with its ground truth. Reading it from a shard needs neither the face model nor a renderer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Triplet:
    """A swap and its ground truth. S: side; positions in pixels, centres at +0.5.

    Attributes:
        source, target, swap: (S, S, 3) uint8.
        flow: (S, S, 2) float32 position in the source of what the swap shows; 0 where there is none.
        visible: (S, S) float32: 1 where the source shows that very point.
        matte: (S, S) float32: where the swap differs from the target by more than rounding, softly; 0 means equal.
        mask: (S, S) float32: the target's face, without what lies before it.
        occluder: (S, S) float32 cover of what lies before the target's face.
        depth: (S, S) float32 of the swap in centimetres from the head's middle, smaller is nearer; infinite behind it.
        landmarks: name of the picture -> (68, 3) float32 pixels and depth.
        coefficients: what was drawn: identities, expression, poses in degrees, lights.
        kind: one of `mattface.training.studio.shots.KINDS`.
        seed: what it was made from.
    """

    source: np.ndarray
    target: np.ndarray
    swap: np.ndarray
    flow: np.ndarray
    visible: np.ndarray
    matte: np.ndarray
    mask: np.ndarray
    occluder: np.ndarray
    depth: np.ndarray
    landmarks: dict[str, np.ndarray]
    coefficients: dict[str, np.ndarray]
    kind: str
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def exact(self) -> bool:
        """Whether the swap is the truth, not an estimate."""
        return self.kind != "inexact"
