"""A landmark fit made better by pixels: the mean skin is drawn over the photograph and shape follows what differs.

Landmarks say where eyes and mouth are; brows, lips and the nose's edges are where the picture is. Both pictures are
compared by the logarithm of their brightness less its local mean, so that skin colour and light hardly count.
"""

from __future__ import annotations

import cv2
import numpy as np

from mattface.training.studio import light
from mattface.training.studio.anatomy import Anatomy
from mattface.training.studio.camera import Camera
from mattface.training.studio.face_model import FACE
from mattface.training.studio.fit import Fitter
from mattface.training.studio.fitted_face import Fit
from mattface.training.studio.render import Head, Renderer, over
from mattface.training.studio.texture import EYE_LAYER, sample_image, seen_depth, visibility

SCALE = 14.0
"""Pixels per centimetre of the pictures that are compared."""
FINE, COARSE = 0.12, 0.9
"""Centimetres of the blurs whose difference is compared."""
ROUNDS = 3
NOISE = 0.35
"""How far pictures of well fitted faces differ, in units of their own standard deviation."""
INDEPENDENT = 400.0
"""So many of the compared points count as independent of each other."""


class Refiner:
    """Improves fits by pixels.

    Args:
        fitter: fitted the model to the photograph by landmarks.
        anatomy: says where the face is.
        mean: (2, U, U, 3) linear albedo of the mean face.
    """

    def __init__(self, fitter: Fitter, anatomy: Anatomy, mean: np.ndarray) -> None:
        self.fitter, self.model = fitter, fitter.model
        self.renderer = Renderer(self.model)
        eyes = anatomy.eyes((0.05, 0.03, 0.02))
        self.texture = np.concatenate([mean, eyes[None]]).astype(np.float32)
        self.texture[EYE_LAYER] = eyes
        self.chosen = np.flatnonzero((self.model.part == FACE) & (anatomy.face > 0.95) & fitter.inner)[::2]
        deltas = np.concatenate([self.model.identity_deltas, self.model.expression_deltas])
        self.deltas = np.ascontiguousarray(deltas[:, self.chosen])

    def __call__(self, fit: Fit, mesh: np.ndarray, rgb: np.ndarray) -> Fit:
        """The fit with shape and expression improved; the camera stays.

        Args:
            fit: by landmarks, with its light.
            mesh: (468, 3) landmarks that it was made from.
            rgb: (H, W, 3) uint8 photograph.
        """
        side, move = self._window(fit)
        photo = cv2.warpAffine(rgb, move[:2], (side, side), flags=cv2.INTER_AREA | cv2.INTER_LINEAR)
        seen = features(light.to_linear(photo / np.float32(255)), SCALE)
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = half @ move @ np.linalg.inv(half)
        camera = fit.camera.moved(matrix)
        for _ in range(ROUNDS):
            fit = self._step(fit, mesh, seen, camera, side)
        return fit

    def _window(self, fit: Fit) -> tuple[int, np.ndarray]:
        """Side of the square that is compared, and the (3, 3) matrix to it for OpenCV's pixel centres."""
        side = int(SCALE * 26)
        size = SCALE / fit.camera.scale
        middle = fit.camera.centre
        return side, np.array(
            [[size, 0, side / 2 - size * middle[0]], [0, size, side / 2 - size * middle[1]], [0, 0, 1]]
        )

    def _step(self, fit: Fit, mesh: np.ndarray, seen: np.ndarray, camera: Camera, side: int) -> Fit:
        """One Gauss-Newton step of the coefficients on pixels, landmarks and priors together."""
        vertices = self.model.vertices(fit.identity, fit.expression)
        head = Head(vertices, self.texture, np.ones(len(vertices), np.float32))
        drawing = self.renderer(head, camera, fit.light, side)
        drawn = features(over(drawing, np.full(3, 0.2)), SCALE)
        screen = drawing.screen[self.chosen]
        depth = seen_depth(self.model, drawing.screen, side, side)
        weight = visibility(screen, drawing.facing[self.chosen], depth, SCALE, (side, side))
        here, there = sample_image(drawn, screen[:, :2]), sample_image(seen, screen[:, :2])
        total = max(float(weight.sum()), 1e-6)
        std = [np.sqrt((weight * (v - weight @ v / total) ** 2).sum() / total) + 1e-6 for v in (here, there)]
        off = here / std[0] - there / std[1]
        weight = weight / (1 + (off / 1.5) ** 2)  # Cauchy: hair and shadows pull little
        slope = np.stack([cv2.Sobel(seen, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1))], -1)
        slope = sample_image(slope, screen[:, :2]) / std[1]
        near = SCALE / (1 + screen[:, 2] / SCALE / camera.distance)
        axes = camera.rotation[:2] * np.array([[1.0], [-1.0]])
        way = (slope @ axes * (near * np.sqrt(weight))[:, None]).astype(np.float32)  # (K, 3)
        design = np.einsum("ekd,kd->ek", self.deltas, way, optimize=True).astype(np.float64)
        sure = INDEPENDENT / total / NOISE**2
        now = np.concatenate([fit.identity, fit.expression]).astype(np.float64)
        wanted = np.sqrt(weight) * off + now @ design
        return self.fitter.corrected(fit, mesh, (sure * design @ design.T, sure * design @ wanted))


def features(image: np.ndarray, scale: float) -> np.ndarray:
    """(S, S) float32 logarithm of the brightness of a linear picture, less its local mean."""
    grey = np.log(image.mean(-1).astype(np.float32) + 0.02)
    return cv2.GaussianBlur(grey, (0, 0), FINE * scale) - cv2.GaussianBlur(grey, (0, 0), COARSE * scale)
