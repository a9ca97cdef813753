"""What a head has beside its skin: where the face ends and hair begins, hair's volume, eyes.

All positions are given by the landmarks of the neutral head, in units of which the nose's root is 11.3 from
the chin (centimetres in the ICT model), so that they hold for any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from mattface.training.studio import raster
from mattface.training.studio.face_model import FACE, HEAD
from mattface.training.studio.texture import EYE_LAYER, FACE_LAYER, LAYER_OF_PART, Atlas, ramp, sample_image

HAIRLINE = ((-9.0, -3.0), (-5.5, -4.2), (-2.7, -5.5), (1.5, -4.6), (2.6, 1.1), (5.0, 3.8), (7.4, 6.3), (8.4, 10.0))
"""(height above the nose's root, place of the hairline towards the viewer from the ear's front), seen from aside."""
STRANDS = (96, 1024)
"""Cells of the field of hair: from the crown down, and around."""
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
        self._eyes: dict[tuple[float, float, float], np.ndarray] = {}

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
    def face_below_hair(self) -> np.ndarray:
        """(N,) float32: `face` where painted hair leaves it free."""
        return (self.face * (1 - ramp(self.scalp, 0.5, 2.0))).astype(np.float32)

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
        chosen = np.flatnonzero(LAYER_OF_PART[model.triangle_part] == EYE_LAYER)
        one = chosen[at[model.triangles[chosen]][:, :, 0].mean(1) > 0]
        out = np.full((side, side, 2), 9.0, np.float32)
        if not len(one):
            return out
        flat = model.triangle_uv[one].reshape(-1, 2).astype(np.float64) * side
        own = np.arange(len(flat), dtype=np.int32).reshape(-1, 3)
        both = np.concatenate([own, own[:, [0, 2, 1]]])
        xy = raster.snap_corners(flat, 1)
        ids, nearest = raster.cover(xy, np.zeros(len(flat)), both, side, side)
        place = at[model.triangles[one]].reshape(-1, 3).astype(np.float64)
        vertices = at[np.unique(model.triangles[one])]
        middle = (vertices.max(0) + vertices.min(0)) / 2
        place[place[:, 2] < middle[2], :2] += 100.0  # the back of the eyeball
        found, seen = raster.surface(ids, nearest, xy, both, place[:, :2] - middle[:2], 1)
        return np.where((seen >= 0)[..., None], found, 9.0).astype(np.float32)

    def eyes(self, iris: tuple[float, float, float]) -> np.ndarray:
        """(U, U, 3) float32 linear texture of an eyeball with an iris of a linear colour; made once per colour."""
        if iris not in self._eyes:
            self._eyes[iris] = self._eye(np.array(iris))
        return self._eyes[iris]

    def _eye(self, iris: np.ndarray) -> np.ndarray:
        x, y = self.eye_place[..., 0] / self.unit, self.eye_place[..., 1] / self.unit
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        white = np.array([0.46, 0.41, 0.38]) - ramp(radius, 0.7, 1.5)[..., None] * np.array([0.08, 0.15, 0.15])
        rays = 1 + 0.25 * np.sin(angle * 37 + 3 * np.sin(angle * 5)) * ramp(radius, 0.2, 0.4)
        colour = iris * (rays * (0.7 + 0.6 * ramp(radius, 0.5, 0.25)))[..., None]
        rim = ramp(radius, IRIS - 3 * LIMBUS, IRIS - LIMBUS)[..., None]
        colour = colour * (1 - 0.75 * rim)
        out = white + (colour - white) * (1 - ramp(radius, IRIS - LIMBUS, IRIS + LIMBUS))[..., None]
        out = out * ramp(radius, PUPIL - 0.03, PUPIL + 0.03)[..., None]
        glint = np.exp(-((x - 0.16) ** 2 + (y - 0.2) ** 2) / (2 * 0.045**2))
        return (out + 0.9 * glint[..., None]).astype(np.float32)

    @cached_property
    def core(self) -> np.ndarray:
        """(2, U, U) float32: 1 from brows to chin before the ears, where whatever is seen belongs to the face."""
        at, unit = self.model.neutral, self.unit
        front = (at[:, 2] - self.ear) / unit
        height = (at[:, 1] - self.root[1]) / unit
        brow = float(self.marks[17:27, 1].mean() - self.root[1]) / unit
        chin = float(self.marks[8, 1] - self.root[1]) / unit
        level = ramp(height, chin, chin + 1.5) * (1 - ramp(height, brow + 0.6, brow + 1.8))
        own = ramp(front, 3.0, 4.4) * level
        return self.atlas.at((self.face * own)[:, None].astype(np.float32))[..., 0]

    @cached_property
    def beard(self) -> np.ndarray:
        """(2, U, U) float32: 1 where a beard may grow."""
        height = (self.model.neutral[:, 1] - self.root[1]) / self.unit
        front = (self.model.neutral[:, 2] - self.ear) / self.unit
        own = (1 - ramp(height, -4.5, -3.0)) * ramp(self.face, 0.0, 0.3) * ramp(front, 3.5, 5.0)
        return self.atlas.at(own[:, None].astype(np.float32))[..., 0]

    @cached_property
    def _scalp_texels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texels that hair may cover (flat), how far inside the hair they are, and their place in the field of strands.

        Strands run down from the crown: the field's x is the direction around it, its y the angle from it.
        """
        chosen = np.flatnonzero((self.scalp_map > -1.5) & self.atlas.covered)
        at = self.atlas.at(self.model.neutral).reshape(-1, 3)[chosen]
        top = self.model.neutral[self.model.part == HEAD]
        middle = np.array([0.0, self.root[1], top[:, 2].mean() if len(top) else 0.0])
        x, y, z = (at - middle).T
        around = (np.arctan2(x, z + 0.25 * y) / (2 * np.pi) + 0.5) * STRANDS[1]
        down = np.arctan2(np.hypot(x, z + 0.25 * y), y) / np.pi * STRANDS[0]
        place = np.stack([around, down], 1).astype(np.float32)
        return chosen, self.scalp_map.ravel()[chosen], place

    def strands(self, rng: np.random.Generator) -> np.ndarray:
        """(K,) float32 logarithm of the brightness of the texels that hair may cover."""
        noise = np.tile(rng.standard_normal(STRANDS).astype(np.float32), (1, 2))
        fine = cv2.GaussianBlur(noise, (0, 0), 0.7, sigmaY=STRANDS[0] / 7)
        coarse = cv2.GaussianBlur(noise, (0, 0), 9.0, sigmaY=STRANDS[0] / 6)
        locks = cv2.GaussianBlur(noise, (0, 0), 3.0, sigmaY=STRANDS[0] / 10)
        field = sum(part / part.std() * share for part, share in ((fine, 0.22), (locks, 0.15), (coarse, 0.12)))
        _, _, place = self._scalp_texels
        wave = np.sin(place[:, 1] * rng.uniform(0.1, 0.5) + rng.uniform(0, 6)) * rng.uniform(0, 8)
        at = np.stack([place[:, 0] + wave + STRANDS[1] / 2, place[:, 1]], 1)
        return sample_image(field.astype(np.float32), at + np.float32(0.5))

    def hair(self, colour: np.ndarray, rng: np.random.Generator) -> Hair:
        """Hair of a linear colour (3,) over the scalp, with a ragged line."""
        chosen, inside, _ = self._scalp_texels
        strands = self.strands(rng)
        share = ramp(inside + 2.5 * strands, -0.3, 0.9)[:, None].astype(np.float32)
        return Hair(chosen, share, colour.astype(np.float32) * np.exp(strands)[:, None])


@dataclass(frozen=True)
class Hair:
    """Hair as paint: (K,) flat texels, (K, 1) how far it covers them, (K, 3) its linear colour there."""

    texels: np.ndarray
    share: np.ndarray
    colour: np.ndarray

    def paint(self, texture: np.ndarray) -> None:
        """Lays the hair over a texture (2, U, U, 3), in place."""
        flat = texture.reshape(-1, 3)
        skin = flat[self.texels]
        flat[self.texels] = skin + self.share * (self.colour - skin)


def skin_likeness(albedo: np.ndarray, skin: np.ndarray, beard: np.ndarray) -> np.ndarray:
    """(U, U) in [0, 1]: how much texels (U, U, 3) look like skin of a linear colour (3,), by brightness and hue.

    Where a beard may grow, (U, U) in [0, 1], darker will do.
    """
    soft = cv2.GaussianBlur(albedo, (0, 0), len(albedo) / 250)
    apart = np.log(np.maximum(soft, 0.004)) - np.log(skin).astype(np.float32)
    bright = apart.mean(-1, keepdims=True)
    hue = np.abs(apart - bright).max(-1)
    dark = 1 - ramp(-bright[..., 0] / (1 + 3 * beard), 0.5, 0.9)
    return dark * (1 - ramp(bright[..., 0], 0.5, 0.9)) * (1 - ramp(hue / (1 + 0.5 * beard), 0.2, 0.4))


def tone(texture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3,) geometric mean colour of the face layer of a texture under weights (U, U)."""
    logs = np.log(np.maximum(texture[FACE_LAYER], 0.004))
    return np.exp((logs * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6))


def match_tone(albedo: np.ndarray, own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Albedo (U, U, 3) of mean colour own (3,) with the mean colour wanted (3,), nothing driven beyond white.

    A channel that becomes darker is multiplied; one that becomes lighter goes to x^(log wanted / log own).
    """
    gain = np.minimum(wanted / own, 1).astype(np.float32)
    exponent = np.clip(np.log(np.minimum(wanted, 0.9)) / np.log(np.minimum(own, 0.9)), 0.2, 1).astype(np.float32)
    out = albedo * gain
    for k in np.flatnonzero(exponent < 1):
        out[..., k] = cv2.pow(albedo[..., k], float(exponent[k]))
    return out
