"""Photograph -> identity, expression, camera and light of the face model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mattface.data.topology import SIXTY_EIGHT
from mattface.errors import InputError
from mattface.mesh import topology
from mattface.mesh.shape import similar
from mattface.training.studio import light
from mattface.training.studio.camera import Camera, from_vector
from mattface.training.studio.face_model import FACE, FaceModel
from mattface.training.studio.fitted_face import Fit
from mattface.training.studio.least_squares import minimise_bounded
from mattface.training.studio.texture import seen_colours

ROUNDS = 8
DISTANCE = 80.0
"""Centimetres from which a portrait is taken, unless stated."""
NOISE = 0.10
"""How exact a landmark is, centimetres: it weighs landmarks against the priors."""
IDENTITY_STD = 1.0
EXPRESSION_STD = 0.35
DENSE_WEIGHT = 0.05
"""Weight of a mesh point outside the 68."""
JAW_WEIGHT = 0.6
SLIDE = 0.15
"""How far a point of the outline is held along it, against 1 across it."""
BAND = 0.45
"""Half height in centimetres of the strip along which a landmark of the outline slides."""
HIDDEN_FROM = 0.1
"""A landmark of the outline slides when its normal's part towards the camera is smaller."""


class Fitter:
    """Lays a face model over faces. Build once per model.

    Args:
        model: the face model.
        dense: whether the mesh's points outside the 68 help too.
    """

    def __init__(self, model: FaceModel, dense: bool = True) -> None:
        self.model = model
        self.vertices = np.asarray(model.landmarks, np.int64)
        self.numbers = np.arange(68)
        self.weight = np.where(self.numbers < 17, JAW_WEIGHT, 1.0)
        self.bands = [self._band(int(v)) for v in model.landmarks[:17]]
        self.mesh_points = np.array(SIXTY_EIGHT)
        self._take_deltas()
        if dense:
            self._add_dense()

    def __call__(self, mesh: np.ndarray, rgb: np.ndarray | None = None, distance: float = DISTANCE) -> Fit:
        """Fits a face.

        Args:
            mesh: (468, 3) dense landmarks in pixels of the photograph.
            rgb: (H, W, 3) uint8 photograph for the light; None leaves it grey.
            distance: of the camera in centimetres; infinity gives weak perspective.

        Raises:
            InputError: landmarks of another shape, or not finite.
        """
        if mesh.shape != (468, 3) or not np.isfinite(mesh).all():
            raise InputError(f"expected a finite (468, 3) mesh of the landmark stage; got {mesh.shape}.")
        pixels = mesh[self.mesh_points, :2].astype(np.float64)
        gain = self._gains(pixels)
        identity = np.zeros(len(self.model.identity_deltas))
        expression = np.zeros(len(self.model.expression_deltas))
        camera = self._start(pixels, distance)
        chosen = self.vertices.copy()
        for turn in range(ROUNDS):
            points = self._points(chosen, identity, expression)
            camera = improve_camera(camera, points, pixels, gain, 2 if turn else 12)
            chosen = self._slid(camera, identity, expression)
            identity, expression = self._coefficients(camera, chosen, pixels, points)
        points = self._points(chosen, identity, expression)
        camera = improve_camera(camera, points, pixels, gain, 2)
        errors = self._errors(camera.project(points)[:68, :2] - pixels[:68], pixels)
        found = Fit(identity.astype(np.float32), expression.astype(np.float32), camera, light.GREY, errors)
        return found if rgb is None else replace(found, light=self.light(found, rgb))

    def corrected(self, fit: Fit, mesh: np.ndarray, more: tuple[np.ndarray, np.ndarray]) -> Fit:
        """The fit with the coefficients that also obey further normal equations; the camera stays.

        Args:
            fit: where to start.
            mesh: (468, 3) landmarks that it was made from.
            more: (I + E, I + E) matrix and (I + E,) right-hand side for identity and expression.
        """
        pixels = mesh[self.mesh_points, :2].astype(np.float64)
        chosen = self._slid(fit.camera, fit.identity, fit.expression)
        points = self._points(chosen, fit.identity, fit.expression)
        identity, expression = self._coefficients(fit.camera, chosen, pixels, points, more)
        points = self._points(chosen, identity, expression)[:68]
        errors = self._errors(fit.camera.project(points)[:, :2] - pixels[:68], pixels)
        return Fit(identity.astype(np.float32), expression.astype(np.float32), fit.camera, fit.light, errors)

    def light(self, fit: Fit, rgb: np.ndarray) -> np.ndarray:
        """(9, 3) light of a fitted face out of its photograph's pixels; hidden and turned-away skin does not count."""
        vertices = self.model.vertices(fit.identity, fit.expression)
        skin = np.flatnonzero(self.inner)
        colours, weight, normals = seen_colours(self.model, vertices, fit.camera, rgb, skin)
        return light.fit_light(normals, colours, weight)

    @property
    def inner(self) -> np.ndarray:
        """(N,) bool: skin between brows and chin, in front of the ears."""
        at = self.model.neutral
        box = at[self.model.landmarks]
        middle = (at[:, 0] > box[1, 0]) & (at[:, 0] < box[15, 0])
        height = box[19, 1] - box[8, 1]
        level = (at[:, 1] > box[8, 1]) & (at[:, 1] < box[19, 1] + 0.25 * height)
        return (self.model.part == FACE) & middle & level

    def _gains(self, pixels: np.ndarray) -> np.ndarray:
        """(K, 2, 2) what residuals are multiplied by: points of the outline count little along it, where they slide."""
        gain = np.sqrt(self.weight)[:, None, None] * np.eye(2)
        along = tangents(pixels)
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        gain[:17] = across[:, :, None] * across[:, None] + SLIDE * along[:, :, None] * along[:, None]
        gain[:17] *= np.sqrt(self.weight[:17])[:, None, None]
        return gain

    @staticmethod
    def _errors(off: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """(68,) distances; those of the outline are measured across it."""
        out = np.hypot(*off.T)
        along = tangents(pixels)
        out[:17] = np.abs(off[:17, 0] * along[:, 1] - off[:17, 1] * along[:, 0])
        return out

    def _start(self, pixels: np.ndarray, distance: float) -> Camera:
        """A camera that looks at the face from the front, as large as it is."""
        radius = np.sqrt(((pixels - pixels.mean(0)) ** 2).sum(1).mean())
        own = self.model.neutral[self.vertices, :2]
        size = np.sqrt(((own - own.mean(0)) ** 2).sum(1).mean())
        return Camera(np.eye(3), float(radius / size), pixels.mean(0), distance)

    def _take_deltas(self) -> None:
        """Keeps the offsets of the landmarks and of the strips that they slide on."""
        self.kept = np.unique(np.concatenate([self.vertices, *self.bands]))
        self.deltas = np.concatenate([self.model.identity_deltas, self.model.expression_deltas])[:, self.kept]

    def _rows(self, vertices: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.kept, vertices)

    def _points(self, vertices: np.ndarray, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(K, 3) float64 positions of vertices that are kept."""
        rows, coefficients = self._rows(vertices), np.concatenate([identity, expression])
        moved = np.tensordot(coefficients, self.deltas[:, rows].astype(np.float64), 1)
        return self.model.neutral[vertices].astype(np.float64) + moved

    def _band(self, vertex: int) -> np.ndarray:
        """Vertices of the face on the strip around a landmark of the outline, on its side of the face."""
        at = self.model.neutral
        x, y, _ = at[vertex]
        near = (self.model.part == FACE) & (np.abs(at[:, 1] - y) < BAND) & (at[:, 0] * np.sign(x) >= 0)
        return np.unique(np.append(np.flatnonzero(near & (np.abs(at[:, 0]) <= abs(x) + 0.5)), vertex))

    def _slid(self, camera: Camera, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Landmark vertices; those of the outline that the head hides move to where its silhouette is."""
        chosen = self.vertices.copy()
        yaw = camera.angles()[0]
        for k in range(17):
            side = np.sign(self.model.neutral[self.vertices[k], 0])
            if side * yaw < np.degrees(HIDDEN_FROM) or k == 8:  # the outline on the side it looks to is hidden
                continue
            seen = camera.project(self._points(self.bands[k], identity, expression))
            chosen[k] = self.bands[k][np.argmax(seen[:, 0] * side)]
        return chosen

    def _coefficients(
        self,
        camera: Camera,
        chosen: np.ndarray,
        pixels: np.ndarray,
        points: np.ndarray,
        more: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Most probable coefficients under a fixed camera: linear least squares with priors, expressions in [0, 1].

        `more` adds to the normal equations: their matrix and right-hand side.
        """
        turned = points @ camera.rotation.T
        near = camera.scale / (1 - turned[:, 2] / camera.distance)
        axes = camera.rotation[:2] * np.array([[1.0], [-1.0]])
        deltas = self.deltas[:, self._rows(chosen)].astype(np.float64)
        sure = self._gains(pixels) / (NOISE * camera.scale)
        moves = deltas @ axes.T * near[:, None]
        design = np.einsum("ekd,kad->eka", moves, sure, optimize=True).reshape(len(deltas), -1)
        start = self.model.neutral[chosen] @ axes.T * near[:, None] + camera.centre
        wanted = np.einsum("kd,kad->ka", pixels - start, sure).ravel()
        count = len(self.model.identity_deltas)
        hold = np.full(len(deltas), EXPRESSION_STD**-2)
        hold[:count] = IDENTITY_STD**-2
        normal, right = design @ design.T + np.diag(hold), design @ wanted
        if more is not None:
            normal, right = normal + more[0], right + more[1]
        solved = minimise_bounded(normal, right, count)
        return solved[:count], solved[count:]

    def _add_dense(self) -> None:
        """Finds a vertex for every mesh point outside the 68, by fitting the mesh's mean face in space."""
        mean = topology().mean * np.array([1.0, -1.0, -1.0])
        identity, placed = self._onto(mean)
        skin = np.flatnonzero(self.model.part == FACE)
        head = self.model.vertices(identity.astype(np.float32), np.zeros(len(self.model.expression_deltas)))[skin]
        others = np.setdiff1d(np.arange(len(mean)), SIXTY_EIGHT)
        apart = np.array([((head - placed[k]) ** 2).sum(1) for k in others])
        nearest, gap = skin[apart.argmin(1)], np.sqrt(apart.min(1))
        fits = gap < 0.6
        self.vertices = np.concatenate([self.vertices, nearest[fits]])
        self.mesh_points = np.concatenate([self.mesh_points, others[fits]])
        self.weight = np.concatenate([self.weight, np.full(int(fits.sum()), DENSE_WEIGHT)])
        self._take_deltas()

    def _onto(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Identity of the mean mesh by its 68 points, and the mesh in the model's place."""
        identity = np.zeros(len(self.model.identity_deltas))
        deltas = self.model.identity_deltas[:, self.model.landmarks].astype(np.float64)
        for _ in range(ROUNDS):
            own = self.model.neutral[self.model.landmarks] + np.tensordot(identity, deltas, 1)
            placed = similar(mean[list(SIXTY_EIGHT)], own, mean)
            design = deltas.reshape(len(deltas), -1) / (2 * NOISE)
            wanted = (placed[list(SIXTY_EIGHT)] - self.model.neutral[self.model.landmarks]).ravel() / (2 * NOISE)
            identity = np.linalg.solve(design @ design.T + np.eye(len(design)), design @ wanted)
        return identity, placed


def tangents(pixels: np.ndarray) -> np.ndarray:
    """(17, 2) unit directions along the outline, whose 17 points come first in (K, 2)."""
    way = np.gradient(pixels[:17], axis=0)
    return way / np.maximum(np.hypot(*way.T), 1e-9)[:, None]


def improve_camera(camera: Camera, points: np.ndarray, pixels: np.ndarray, gain: np.ndarray, steps: int) -> Camera:
    """Gauss-Newton steps of rotation, scale and centre.

    Args:
        camera: start.
        points: (K, 3) model points.
        pixels: (K, 2) where they are seen.
        gain: (K, 2, 2) what residuals are multiplied by.
        steps: how many.
    """
    for _ in range(steps):
        x, y, z = (points @ camera.rotation.T).T
        p = 1 - z / camera.distance
        s = camera.scale
        off = pixels - camera.project(points)[:, :2]
        zero, one = np.zeros_like(x), np.ones_like(x)
        pull = s / (p * p * camera.distance)  # change of the perspective division with depth
        turn_x = np.stack([pull * x * y, s * z / p - pull * y * y], 1)  # about x: y' = -z, z' = y
        turn_y = np.stack([s * z / p - pull * x * x, pull * y * x], 1)  # about y: x' = z, z' = -x
        turn_z = np.stack([-s * y / p, -s * x / p], 1)
        grow = np.stack([s * x / p, -s * y / p], 1)
        columns = (turn_x, turn_y, turn_z, grow, np.stack([one, zero], 1), np.stack([zero, one], 1))
        design, wanted = (np.einsum("...kd,kad->...ka", v, gain) for v in (np.stack(columns), off))
        step = np.linalg.lstsq(design.reshape(6, -1).T, wanted.ravel(), rcond=None)[0]
        step[:3] *= min(1.0, 0.5 / max(float(np.linalg.norm(step[:3])), 1e-9))
        rotation = from_vector(step[:3]) @ camera.rotation
        scale = s * float(np.exp(np.clip(step[3], -0.5, 0.5)))
        camera = Camera(rotation, scale, camera.centre + step[4:], camera.distance)
    return camera
