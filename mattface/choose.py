"""Faces of a target -> the faces to swap, and what is worth knowing about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mattface.errors import NoFaceError, UsageError
from mattface.vocabulary import Face

UNSURE = 0.5
"""Presence of the landmark stage below which a note is made."""
SMALL = 80
"""Pixels between the sides of a face's box below which a note is made."""


def choose(faces: Sequence[Face], which: str | int) -> list[tuple[int, Face]]:
    """The chosen faces with their indices.

    Raises:
        UsageError: `which` is neither "largest", "all" nor a whole number.
        NoFaceError: no face of that index.
    """
    if which == "largest":
        return [(0, faces[0])]
    if which == "all":
        return list(enumerate(faces))
    if isinstance(which, bool) or not isinstance(which, int | np.integer):
        raise UsageError(f'face must be "largest", "all" or a whole number from 0; got {which!r}.')
    if not 0 <= which < len(faces):
        sizes = ", ".join(f"{k}: {face.box[2] - face.box[0]:.0f} px wide" for k, face in enumerate(faces))
        raise NoFaceError(f"expected a face {which} in the target; it has {len(faces)} ({sizes}). Use one of those.")
    return [(int(which), faces[which])]


def without_doubtful(found: Sequence[tuple[int, Face]]) -> tuple[list[tuple[int, Face]], list[str]]:
    """Leaves out what the landmark part takes for no face at all, and says so; never the last one."""
    sure = [(index, face) for index, face in found if face.presence is None or face.presence >= UNSURE]
    if not sure:
        return list(found), []
    left = sorted({index for index, _ in found} - {index for index, _ in sure})
    return sure, [f"face {index} left out: the landmark part sees none there; ask for it by number" for index in left]


def remarks(index: int, face: Face, size: tuple[int, int]) -> list[str]:
    """What is worth knowing about a target face before one looks at the result."""
    notes = []
    width = float(face.box[2] - face.box[0])
    if width < SMALL:
        notes.append(f"face {index} is only {width:.0f} pixels wide: its landmarks are coarse")
    if face.presence is not None and face.presence < UNSURE:
        notes.append(f"face {index}: the landmark part is not sure ({face.presence:.2f}); look at the result")
    points = face.points if face.mesh is None else face.mesh[:, :2]
    if (points < 0).any() or (points > size).any():
        notes.append(f"face {index} is cut by the frame: what lies beyond it was made up by mirroring")
    return notes


def as_face(face: Any) -> Face:
    """A `Face` from ours or from insightface's (`bbox`, `kps`, `det_score`)."""
    if isinstance(face, Face):
        return face
    box, points = getattr(face, "bbox", None), getattr(face, "kps", None)
    if box is None or points is None or np.shape(points) != (5, 2):
        raise UsageError(
            f"target_face must be a Face or have bbox (4,) and kps (5, 2); got {type(face).__name__}. "
            "Pass what the detector returns."
        )
    score = getattr(face, "det_score", None)
    return Face(np.asarray(box, np.float64)[:4], 1.0 if score is None else float(score), np.asarray(points, np.float64))
