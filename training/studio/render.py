"""A head under a camera and a light -> its picture, with coverage, masks and depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from mattface.errors import UsageError
from mattface.training.studio import light as lighting
from mattface.training.studio import raster
from mattface.training.studio.camera import Camera
from mattface.training.studio.face_model import EYE, GUMS, MOUTH, SOCKET, TEETH, FaceModel
from mattface.training.studio.texture import LAYER_OF_PART, ramp

Backend = Literal["cpu", "torch"]
GRID = 2
"""Samples per pixel and side."""
INSIDE = {MOUTH: (0.20, 0.055, 0.045), SOCKET: (0.30, 0.13, 0.10), GUMS: (0.36, 0.12, 0.11), TEETH: (0.62, 0.56, 0.45)}
"""Linear colour of the parts that no photograph gives."""


@dataclass(frozen=True)
class Head:
    """A head ready to be drawn.

    Attributes:
        vertices: (N, 3) float32.
        texture: (3, U, U, 3) float32 linear albedo: face, head, eyes.
        face: (N,) float32 in [0, 1]: how far a vertex belongs to the face that a swap replaces.
    """

    vertices: np.ndarray
    texture: np.ndarray
    face: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """A drawn head before it is composited. S: side in pixels.

    Attributes:
        colour: (S, S, 3) float32 linear light, multiplied by coverage.
        coverage: (S, S) float32 share of every pixel that the head covers.
        face: (S, S) float32 share that the face covers, weighted by how far it belongs to what a swap replaces.
        camera: it was seen with.
        screen: (N, 3) vertices in pixels, with depth.
        facing: (N,) share of every vertex's normal towards the camera.
        ids, nearest: triangle and depth of every sample.
    """

    colour: np.ndarray
    coverage: np.ndarray
    face: np.ndarray
    camera: Camera
    screen: np.ndarray
    facing: np.ndarray
    ids: np.ndarray
    nearest: np.ndarray

    @cached_property
    def depth(self) -> np.ndarray:
        """(S, S) float32 depth in centimetres, smaller is nearer, of the nearest sample; infinite where nothing is."""
        side = len(self.coverage)
        samples = self.nearest.reshape(side, GRID, side, GRID)
        return (samples.min((1, 3)) / self.camera.scale).astype(np.float32)


class Renderer:
    """Draws heads of one model.

    Args:
        model: the face model.
        backend: "cpu" (numba) or "torch".
        device: where torch draws.
    """

    def __init__(self, model: FaceModel, backend: Backend = "cpu", device: str = "cpu") -> None:
        if backend not in ("cpu", "torch"):
            raise UsageError(f"expected a renderer cpu or torch; got {backend!r}.")
        self.model, self.backend, self.device = model, backend, device
        self.layer = LAYER_OF_PART[model.triangle_part].astype(np.int64)
        self.tint = self._tint()

    def __call__(self, head: Head, camera: Camera, light: np.ndarray, size: int) -> Drawing:
        """Draws a head.

        Args:
            head: what to draw.
            camera: from the model to pixels of the picture.
            light: (9, 3) spherical harmonics in the camera's axes.
            size: side S of the picture in pixels.
        """
        screen = camera.project(head.vertices)
        normals = raster.normals(head.vertices, self.model.triangles) @ camera.rotation.T.astype(np.float32)
        lit = lighting.irradiance(light, normals) * self.tint
        values = np.concatenate([lit, head.face[:, None]], 1).astype(np.float32)
        xy = raster.snap_corners(screen, GRID)
        draw = self._on_cpu if self.backend == "cpu" else self._in_torch
        sums, ids, nearest = draw(xy, np.ascontiguousarray(screen[:, 2]), values, head.texture, size * GRID)
        return Drawing(sums[..., :3], sums[..., 4], sums[..., 3], camera, screen, normals[:, 2], ids, nearest)

    def _on_cpu(
        self, xy: np.ndarray, depth: np.ndarray, values: np.ndarray, texture: np.ndarray, side: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        model = self.model
        ids, nearest = raster.cover(xy, depth, model.triangles, side, side)
        sums = raster.shade(ids, xy, model.triangles, values, model.triangle_uv, self.layer, texture, GRID)
        return sums, ids, nearest

    def _in_torch(
        self, xy: np.ndarray, depth: np.ndarray, values: np.ndarray, texture: np.ndarray, side: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import torch

        from mattface.training.studio import raster_torch

        arrays = (xy, depth, values, texture)
        points, z, at, paint = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in arrays)
        triangles, uv, layer = self._surface
        ids, nearest = raster_torch.cover(points, z, triangles, side, side)
        sums = raster_torch.shade(ids, points, triangles, at, uv, layer, paint, GRID)
        return sums.cpu().numpy(), ids.int().cpu().numpy(), nearest.cpu().numpy()

    @cached_property
    def _surface(self) -> tuple:
        """Triangles, texture coordinates and layers as tensors on the device."""
        import torch

        arrays = (self.model.triangles, self.model.triangle_uv, self.layer)
        return tuple(torch.from_numpy(a).to(self.device) for a in arrays)

    def _tint(self) -> np.ndarray:
        """(N, 3) float32 colour of vertices: their own where no texture gives it, darker towards the throat."""
        at, part = self.model.neutral, self.model.part
        tint = np.ones((len(at), 3), np.float32)
        lips = at[self.model.landmarks[48:68]]
        height = float(at[self.model.landmarks[27], 1] - at[self.model.landmarks[8], 1]) / 11.3
        behind = (lips[:, 2].mean() - at[:, 2]) / height
        open_to_light = 0.05 + 0.85 * (1 - ramp(behind, 0.0, 6.0))
        for name, colour in INSIDE.items():
            chosen = part == name
            tint[chosen] = np.array(colour)
            if name != SOCKET:
                tint[chosen] *= open_to_light[chosen, None]
        eye = at[part == EYE]
        if len(eye):  # lids shade the eyeball's upper part
            high = (eye[:, 1] - (eye[:, 1].max() + eye[:, 1].min()) / 2) / height
            tint[part == EYE] = (0.95 - 0.45 * ramp(high, -0.1, 0.6))[:, None]
        return tint


def over(drawing: Drawing, background: np.ndarray) -> np.ndarray:
    """(S, S, 3) linear picture of a drawing before a linear background."""
    return drawing.colour + (1 - drawing.coverage[..., None]) * background


def flow(model: FaceModel, source: Drawing, target: Drawing, face_slack: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Where the source picture shows what every pixel of the target shows.

    Args:
        source, target: drawings of heads with the same vertices.
        face_slack: centimetres behind the source's nearest surface that still count as seen.

    Returns:
        (S, S, 2) float32 positions in source pixels (centres at +0.5; 0 where the target shows no head), and (S, S)
        float32 visibility: 1 where the source shows that very point.
    """
    xy = raster.snap_corners(target.screen, GRID)
    values = np.concatenate([source.screen, source.facing[:, None]], 1)
    found, seen = raster.surface(target.ids, target.nearest, xy, model.triangles, values, GRID)
    side = len(source.coverage)
    rows = np.clip(found[..., 1].astype(int), 0, side - 1)
    columns = np.clip(found[..., 0].astype(int), 0, side - 1)
    far = cv2.dilate(np.where(np.isfinite(source.depth), source.depth, -1e3).astype(np.float32), np.ones((3, 3)))
    front = found[..., 2] / source.camera.scale - far[rows, columns] < face_slack
    inside = ((found[..., :2] >= 0) & (found[..., :2] < side)).all(-1)
    visible = (seen >= 0) & front & inside & (found[..., 3] > 0.05)
    return found[..., :2] * (seen >= 0)[..., None], visible.astype(np.float32)
