"""Temporal filters of points and mattes: quiet at rest, never more than two frames behind.

The filter is the One-Euro filter (Casiez, Roussel and Vogel, 2012): a first-order low-pass whose cut-off frequency
grows with speed. Two things differ. Speed is measured against the filtered value, so that lag itself opens the filter.
And a face's mesh is split into pose and shape, filtered apart: while a head moves, its features stay as quiet as at
rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mattface.geometry import similarity
from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.vocabulary import Face

SHORTEST, LONGEST = 1 / 240, 0.5
"""Seconds between frames: shorter ones are taken for this, after longer ones a filter begins anew."""
POSE = (2.0, 12.0)
SHAPE = (1.2, 8.0)
"""Cut-off at rest in Hz, and its growth per face radius a second."""
REST, SWAYED = 0.36, 0.08
"""Share of a new matte that counts while the face keeps its shape, and the way of its points, in face radii, from which
the new matte counts alone. 0.36 is 1.8 frames behind a even change."""


class OneEuro:
    """One-Euro filter of rows of numbers; a row's coordinates share one speed.

    Args:
        cutoff: cut-off frequency at rest, Hz.
        growth: its growth with speed, Hz per unit a second.
    """

    def __init__(self, cutoff: float, growth: float) -> None:
        self.cutoff, self.growth = cutoff, growth
        self.value: np.ndarray | None = None
        self.time = 0.0

    def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
        """Filters the next value.

        Args:
            value: (N, D).
            time: seconds, growing.

        Returns:
            (N, D).
        """
        gap = time - self.time
        self.time = time
        if self.value is None or self.value.shape != value.shape or not 0 <= gap <= LONGEST:
            self.value = value.astype(np.float64)
            return self.value
        gap = max(gap, SHORTEST)
        change = value - self.value
        speed = np.linalg.norm(change, axis=1, keepdims=True) / gap
        share = 1 / (1 + 1 / (2 * np.pi * gap * (self.cutoff + self.growth * speed)))
        self.value = self.value + share * change
        return self.value


@dataclass(frozen=True)
class Pose:
    """Where the mean face lies in the picture: (N, 2) face units -> pixels by turn and scale (2, 2), then `centre`."""

    turn: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, mesh: np.ndarray) -> Pose:
        """The similarity that fits the mean face to a mesh (468, 3) best."""
        matrix = similarity(topology().mean[:, :2], mesh[:, :2])
        return cls(matrix[:2, :2], matrix[:2, 2])

    @property
    def scale(self) -> float:
        """Pixels per face radius."""
        return float(np.hypot(*self.turn[:, 0]))

    def to_face_units(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2 or 3) to face units."""
        flat = (points[:, :2] - self.centre) @ np.linalg.inv(self.turn).T
        return np.column_stack([flat, points[:, 2:] / self.scale])

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Face units (N, 2 or 3) to pixels."""
        return np.column_stack([points[:, :2] @ self.turn.T + self.centre, points[:, 2:] * self.scale])


class LandmarkFilter:
    """Filters the landmarks of one face."""

    def __init__(self) -> None:
        self._pose, self._shape = OneEuro(*POSE), OneEuro(*SHAPE)

    def __call__(self, face: Face, time: float) -> Face:
        """The face with filtered mesh, points and box.

        Args:
            face: with a mesh, as this frame's landmarks say.
            time: of the frame, seconds.
        """
        mesh = np.asarray(face.mesh, np.float64)
        seen = Pose.of(mesh)
        rows = np.stack([seen.centre / seen.scale, seen.turn[:, 0] / seen.scale, [np.log(seen.scale), 0.0]])
        place, axis, size = self._pose(rows, time)
        scale = float(np.exp(size[0]))
        cosine, sine = axis / max(float(np.hypot(*axis)), 1e-6) * scale
        pose = Pose(np.array([[cosine, -sine], [sine, cosine]]), place * scale)
        own = np.array_equal(face.points, five_points(mesh))  # a sparse network's points are filtered on their own
        points = np.zeros((0, 3)) if own else np.column_stack([seen.to_face_units(face.points), np.zeros(5)])
        shape = self._shape(np.concatenate([seen.to_face_units(mesh), points]), time)
        filtered = pose.to_pixels(shape[:468])
        five = five_points(filtered) if own else pose.to_pixels(shape[468:, :2])
        box = np.concatenate([filtered[:, :2].min(0), filtered[:, :2].max(0)])
        return replace(face, mesh=filtered, points=five, box=box)


class TemporalMatteFilter:
    """The `MatteFilter` of one followed face, whose crops are aligned, so that its mattes hardly move.

    `observe` gets every crop's mesh before the matte is made; what a turning face moves is followed at once.
    """

    def __init__(self) -> None:
        self._matte: np.ndarray | None = None
        self._mesh: np.ndarray | None = None
        self._share = 1.0
        self._visible: np.ndarray | None = None
        self._age = 0

    def observe(self, mesh: np.ndarray, time_gap: float) -> None:
        """Sets how far the next matte counts.

        Args:
            mesh: (468, 2 or 3) in face units (`Pose.to_face_units`).
            time_gap: seconds since the frame before.
        """
        if self._mesh is None or not 0 <= time_gap <= LONGEST:
            self._matte, self._share, self._visible = None, 1.0, None
        else:
            sway = float(np.linalg.norm(mesh[:, :2] - self._mesh[:, :2], axis=1).mean()) / SWAYED
            self._share = min(1.0, REST + (1 - REST) * sway)
        self._mesh = mesh

    def __call__(self, matte: np.ndarray) -> np.ndarray:
        """(S, S) float32 matte of this frame to the one to use."""
        before = self._matte
        if before is not None and before.shape != matte.shape:
            before = cv2.resize(before, matte.shape[::-1], interpolation=cv2.INTER_LINEAR)
        if before is None or self._share >= 1:
            self._matte = matte
        else:
            self._matte = cv2.addWeighted(before, 1 - self._share, matte, self._share, 0)
        return self._matte

    def visible(self, every: int, look: Callable[[], np.ndarray]) -> np.ndarray:
        """See `MatteFilter`: the face is looked at in every `every`-th frame; what lies before it moves with it."""
        if self._visible is None or self._age >= every:
            self._visible, self._age = look(), 0
        self._age += 1
        return self._visible
