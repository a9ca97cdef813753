"""Parts of a drawn face: skin, mouth, eyes, and the border where hair may lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mattface.mesh import LEFT_EYE, MOUTH, RIGHT_EYE, SKIN, Drawing, ramp, topology


@dataclass(frozen=True)
class Regions:
    """Parts of the target's face, (S, S) float32 in [0, 1].

    Attributes:
        face: everything within the oval.
        skin: skin without eyes and lips.
        mouth: between the lips.
        eyes: inside of each eye, left on the screen first.
        border: above the brows and at the sides, where hair may lie over the face (beard further in is swapped).
    """

    face: np.ndarray
    skin: np.ndarray
    mouth: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    border: np.ndarray

    @classmethod
    def draw(cls, drawing: Drawing) -> Regions:
        """Draws the regions of a mesh."""
        shape, ids = topology(), drawing.ids
        region = np.where(ids >= 0, shape.region[ids], -1)
        mouth, left, right = ((region == k).astype(np.float32) for k in (MOUTH, LEFT_EYE, RIGHT_EYE))
        across, down = np.abs(shape.mean[:, 0]), shape.mean[:, 1]  # eyes at -0.6, brows at -1
        upper = ramp(-down, 1.03, 1.25)
        from_centre = np.select([down < -0.75, down < -0.4], [1.05, 0.95], 0.68)
        sides = ramp(across, from_centre, from_centre + 0.2)
        border = drawing.interpolate(np.maximum(upper, sides)[:, None])
        face, skin = (ids >= 0).astype(np.float32), (region == SKIN).astype(np.float32)
        return cls(face, skin, mouth, (left, right), np.clip(border[..., 0], 0, 1))
