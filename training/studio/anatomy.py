"""What a head has beside its skin: where the face ends and hair begins, hair's volume, eyes.

All places are told by the landmarks of the neutral head, in units of the distance from the nose's root to the chin (11.3
centimetres in the ICT model), so that they hold for any model.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from mattface.training.studio import raster
from mattface.training.studio.face_model import FACE, HEAD, FaceModel
from mattface.training.studio.texture import EYE_LAYER, FACE_LAYER, LAYER_OF_PART, Atlas, ramp

UNIT = 11.3
"""Nose root to chin of the head that the numbers below were measured on, centimetres."""
HAIRLINE = ((-9.0, -3.0), (-5.5, -4.2), (-2.7, -5.5), (1.5, -4.6), (2.6, 1.1), (5.0, 3.8), (7.4, 6.3), (8.4, 10.0))
"""(height above the nose's root, place of the hairline towards the viewer from the ear's front) of a head seen aside."""
IRIS, PUPIL, LIMBUS = 0.60, 0.22, 0.06
"""Radii and the width of the iris's dark rim, centimetres."""


class Anatomy:
    """Maps of one model.

    Args:
        atlas: its texture space.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.model = atlas, atlas.model
        marks = self.model.neutral[self.model.landmarks]
        self.unit = float(np.linalg.norm(marks[27] - marks[8])) / float(np.linalg.norm([11.3, 0.3]))
        self.root = marks[27]
        self.ear = float(marks[[0, 16], 2].mean())
        self.marks = marks

    @cached_property
    def scalp(self) -> np.ndarray:
        """(N,) float32 signed distance in units inside the hair: positive on the scalp."""
        at = self.model.neutral
        height = (at[:, 1] - self.root[1]) / self.unit
        line = np.interp(height, *np.array(HAIRLINE).T)
        behind = line - (at[:, 2] - self.ear) / self.unit
        outside = ~np.isin(self.model.part, (FACE, HEAD))
        low = height + 7.0  # the nape below it is bare
        return np.where(outside, -9.0, np.minimum(behind, low)).astype(np.float32)

    @cached_property
    def face(self) -> np.ndarray:
        """(N,) float32: 1 inside the face (eyes and mouth too), falling to 0 at ears, hair and neck."""
        at, marks, unit = self.model.neutral, self.marks, self.unit
        front = (at[:, 2] - self.ear) / unit
        height = (at[:, 1] - self.root[1]) / unit
        aside = ramp(front, -0.4, 2.2)
        brow = float(marks[17:27, 1].mean() - self.root[1]) / unit
        above = 1 - ramp(height, brow + 2.5, brow + 6.0)
        chin = float(marks[8, 1] - self.root[1]) / unit
        under = ramp(height - 0.35 * (at[:, 2] - marks[8, 2]) / unit, chin - 1.5, chin + 0.3)  # the throat recedes
        skin = np.isin(self.model.part, (FACE, HEAD))
        return np.where(skin, aside * above * under, 1.0).astype(np.float32)

    @cached_property
    def face_map(self) -> np.ndarray:
        """(2, U, U) float32: `face` over the texture."""
        return self.atlas.at(self.face[:, None])[..., 0]

    @cached_property
    def scalp_map(self) -> np.ndarray:
        """(2, U, U) float32: `scalp` over the texture."""
        return self.atlas.at(self.scalp[:, None])[..., 0]

    @cached_property
    def lift(self) -> np.ndarray:
        """(N, 3) float32 way that one unit of hair lifts the surface, softly beginning at the hairline."""
        out = raster.normals(self.model.neutral, self.model.triangles)
        return out * ramp(self.scalp, -0.2, 2.5)[:, None].astype(np.float32)

    @cached_property
    def eye_place(self) -> np.ndarray:
        """(U, U, 2) float32 centimetres to the right of and above the middle of the iris, over the eyes' texture."""
        model, side = self.model, self.atlas.side
        at = model.neutral
        chosen = np.flatnonzero((LAYER_OF_PART[model.triangle_part] == EYE_LAYER))
        one = chosen[at[model.triangles[chosen]][:, :, 0].mean(1) > 0]
        out = np.full((side, side, 2), 9.0, np.float32)
        if not len(one):
            return out
        flat = model.triangle_uv[one].reshape(-1, 2).astype(np.float64) * side
        own = np.arange(len(flat), dtype=np.int32).reshape(-1, 3)
        both = np.concatenate([own, own[:, [0, 2, 1]]])
        xy = raster.snapped(flat, 1)
        ids, nearest = raster.cover(xy, np.zeros(len(flat)), both, side, side)
        place = at[model.triangles[one]].reshape(-1, 3).astype(np.float64)
        vertices = at[np.unique(model.triangles[one])]
        middle = (vertices.max(0) + vertices.min(0)) / 2
        place[place[:, 2] < middle[2], :2] += 100.0  # the back of the eyeball
        found, seen = raster.surface(ids, nearest, xy, both, place[:, :2] - middle[:2], 1)
        return np.where((seen >= 0)[..., None], found, 9.0).astype(np.float32)

    def eyes(self, iris: np.ndarray) -> np.ndarray:
        """(U, U, 3) float32 linear texture of an eyeball with an iris of a linear colour (3,)."""
        x, y = self.eye_place[..., 0] / self.unit, self.eye_place[..., 1] / self.unit
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        white = np.array([0.62, 0.56, 0.52]) - ramp(radius, 0.7, 1.5)[..., None] * np.array([0.10, 0.20, 0.20])
        rays = 1 + 0.25 * np.sin(angle * 37 + 3 * np.sin(angle * 5)) * ramp(radius, 0.2, 0.4)
        colour = iris * (rays * (0.7 + 0.6 * ramp(radius, 0.5, 0.25)))[..., None]
        rim = ramp(radius, IRIS - 3 * LIMBUS, IRIS - LIMBUS)[..., None]
        colour = colour * (1 - 0.75 * rim)
        out = white + (colour - white) * (1 - ramp(radius, IRIS - LIMBUS, IRIS + LIMBUS))[..., None]
        out = out * ramp(radius, PUPIL - 0.03, PUPIL + 0.03)[..., None]
        glint = np.exp(-((x - 0.16) ** 2 + (y - 0.2) ** 2) / (2 * 0.06**2))
        return (out + 0.9 * glint[..., None]).astype(np.float32)

    def strands(self, rng: np.random.Generator) -> np.ndarray:
        """(2, U, U) float32 brightness of hair about 1: streaks that run over the head from front to back."""
        side = self.atlas.side
        noise = rng.standard_normal((2, side, side)).astype(np.float32)
        fine = np.stack([cv2.GaussianBlur(n, (0, 0), 0.6, sigmaY=side / 40) for n in noise])
        coarse = np.stack([cv2.GaussianBlur(n, (0, 0), side / 120, sigmaY=side / 12) for n in noise])
        return np.exp(0.35 * fine / fine.std() + 0.25 * coarse / coarse.std()).astype(np.float32)

    def hairy(self, texture: np.ndarray, hair: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
        """A texture (2, U, U, 3) with hair of a linear colour (3,) painted over the scalp; amount 0 leaves it bare."""
        strands = self.strands(rng)
        ragged = self.scalp_map + 0.8 * np.log(strands)
        share = (ramp(ragged, 0.0, 1.0) * amount)[..., None].astype(np.float32)
        return texture + share * (hair.astype(np.float32) * strands[..., None] - texture)


def tone(texture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3,) geometric mean colour of the face layer of a texture under weights (U, U)."""
    logs = np.log(np.maximum(texture[FACE_LAYER], 0.004))
    return np.exp((logs * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6))
