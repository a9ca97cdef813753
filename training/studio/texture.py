"""Photograph -> albedo in the model's texture space: unwrapped, completed, without its light.

Layer 0 holds the FACE tile, layer 1 the HEAD tile (with the sockets and the mouth's inside), layer 2 the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mattface.training.studio import light, raster
from mattface.training.studio.camera import Camera
from mattface.training.studio.face_model import FaceModel
from mattface.training.studio.fitted_face import Fit

FACE_LAYER, HEAD_LAYER, EYE_LAYER = range(3)
LAYER_OF_PART = np.array([FACE_LAYER, HEAD_LAYER, -1, -1, -1, -1, EYE_LAYER, -1])
"""Layer of a triangle by its part; -1: the colour of its vertices alone."""
GRAZING, FACING = 0.25, 0.6
"""Share of a normal towards the camera from which a photograph is used, and from which it is used wholly."""
DEPTH_SLACK = 0.35
"""Centimetres behind the nearest surface that still count as seen."""
BORDER = 4.0
"""Texels that a tile is continued over its edge."""
LEAST_SHADE = 0.35
"""Light is divided by no less than this."""
SKIN = np.array([0.46, 0.27, 0.19])
"""Linear albedo where nothing is known."""


@dataclass(frozen=True)
class Unwrapped:
    """What a photograph shows of a head's surface. L = 2 layers (face, head).

    Attributes:
        albedo: (2, U, U, 3) float32 linear, light removed; meaningless where weight is 0.
        weight: (2, U, U) float32 in [0, 1]: how well the photograph shows it.
    """

    albedo: np.ndarray
    weight: np.ndarray


class Atlas:
    """The texture space of a model: which point of the surface every texel is.

    Args:
        model: the face model.
        side: U, texels.
    """

    def __init__(self, model: FaceModel, side: int = 512) -> None:
        self.model, self.side = model, side
        self.layer = LAYER_OF_PART[model.triangle_part]
        self.corners = np.zeros((2, side, side, 3), np.int32)
        self.share = np.zeros((2, side, side, 3), np.float32)
        self.covered = np.zeros((2, side, side), bool)
        for layer in (FACE_LAYER, HEAD_LAYER):
            self._draw(layer)

    def _draw(self, layer: int) -> None:
        """Rasterises the triangles of a layer in texture space, whichever way they run."""
        chosen = np.flatnonzero(self.layer == layer)
        flat = self.model.triangle_uv[chosen].reshape(-1, 2).astype(np.float64) * self.side
        own = np.arange(len(flat), dtype=np.int32).reshape(-1, 3)
        both = np.concatenate([own, own[:, [0, 2, 1]]])
        xy = raster.snap_corners(flat, 1)
        ids, nearest = raster.cover(xy, np.zeros(len(flat)), both, self.side, self.side)
        weights = np.eye(3)[np.tile([0, 1, 2], len(own))]
        share, seen = raster.surface(ids, nearest, xy, both, weights, 1)
        corners = self.model.triangles[chosen][np.maximum(seen, 0) % max(1, len(own))]
        self.covered[layer], self.share[layer], self.corners[layer] = repeat_border(seen >= 0, share, corners)

    def at(self, values: np.ndarray) -> np.ndarray:
        """(2, U, U, C) float32 vertex values (N, C) over the texture."""
        out = np.zeros((2, self.side, self.side, values.shape[1]), np.float32)
        for k in range(3):
            out += values[self.corners[..., k]] * self.share[..., k : k + 1]
        return out


def repeat_border(
    covered: np.ndarray, share: np.ndarray, corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A layer whose texels just outside repeat the nearest ones inside, for sampling across the edge of a tile."""
    away, labels = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(int(labels.max()) + 1, np.int64)
    place[labels[covered]] = np.flatnonzero(covered)
    nearest = place[labels]
    return away < BORDER, share.reshape(-1, 3)[nearest], corners.reshape(-1, 3)[nearest]


def seen_depth(model: FaceModel, screen: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) float32 depth in pixels of the nearest surface, infinite where there is none."""
    xy = raster.snap_corners(screen, 1)
    return raster.cover(xy, screen[:, 2].copy(), model.triangles, height, width)[1].astype(np.float32)


def sample_image(image: np.ndarray, at: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Values of (H, W, C) at (..., 2) pixel positions, centres at +0.5, linear."""
    x, y = np.ascontiguousarray((at.reshape(-1, 2) - 0.5).T.astype(np.float32))[..., None]
    tiles = zip(pieces(x), pieces(y), strict=True)
    out = [cv2.remap(image, a, b, cv2.INTER_LINEAR, borderMode=border) for a, b in tiles]
    return np.concatenate(out).reshape(*at.shape[:-1], *image.shape[2:])


def pieces(flat: np.ndarray) -> list[np.ndarray]:
    """Parts of a long column that OpenCV takes at once."""
    return [flat[k : k + 30000] for k in range(0, len(flat), 30000)]


def visibility(
    screen: np.ndarray, facing: np.ndarray, depth: np.ndarray, scale: float, shape: tuple[int, ...]
) -> np.ndarray:
    """How well a photograph shows points: 0 behind others, outside the picture or turned away, else up to 1.

    Args:
        screen: (..., 3) pixels and depth.
        facing: (...) share of the normal towards the camera.
        depth: (H, W) of the nearest surface.
        scale: pixels per centimetre.
        shape: (H, W) of the photograph.
    """
    shallow = cv2.erode(np.nan_to_num(depth, posinf=1e9), np.ones((3, 3), np.uint8))
    rows = np.clip(screen[..., 1].astype(int), 0, shape[0] - 1)
    columns = np.clip(screen[..., 0].astype(int), 0, shape[1] - 1)
    front = screen[..., 2] - shallow[rows, columns] < DEPTH_SLACK * scale
    inside = (screen[..., :2] > 1).all(-1) & (screen[..., 0] < shape[1] - 1) & (screen[..., 1] < shape[0] - 1)
    return (ramp(facing, GRAZING, FACING) * front * inside).astype(np.float32)


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 below low to 1 above high."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def seen_colours(
    model: FaceModel, vertices: np.ndarray, camera: Camera, rgb: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear colours (K, 3), visibility (K,) and normals (K, 3) in the camera's axes of chosen vertices in a photo."""
    screen = camera.project(vertices)
    normals = raster.normals(vertices, model.triangles) @ camera.rotation.T.astype(np.float32)
    depth = seen_depth(model, screen, *rgb.shape[:2])
    weight = visibility(screen[chosen], normals[chosen, 2], depth, camera.scale, rgb.shape[:2])
    blur = cv2.GaussianBlur(rgb, (0, 0), max(0.3, 0.1 * camera.scale))
    return light.to_linear(sample_image(blur, screen[chosen, :2]) / np.float32(255)), weight, normals[chosen]


def unwrap(atlas: Atlas, fit: Fit, rgb: np.ndarray) -> Unwrapped:
    """Takes the surface out of a photograph and divides by the fitted light.

    Args:
        atlas: texture space.
        fit: the model fitted to the photograph.
        rgb: (H, W, 3) uint8.
    """
    model, camera = atlas.model, fit.camera
    vertices = model.vertices(fit.identity, fit.expression)
    screen = camera.project(vertices)
    normals = raster.normals(vertices, model.triangles) @ camera.rotation.T.astype(np.float32)
    shade = light.irradiance(fit.light, normals)
    maps = atlas.at(np.concatenate([screen, normals[:, 2:], shade], 1).astype(np.float32))
    depth = seen_depth(model, screen, *rgb.shape[:2])
    weight = visibility(maps[..., :3], maps[..., 3], depth, camera.scale, rgb.shape[:2]) * atlas.covered
    colours = light.to_linear(sample_image(rgb, maps[..., :2]) / np.float32(255))
    return Unwrapped(colours / np.maximum(maps[..., 4:7], LEAST_SHADE), weight)


def fill_gaps(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooth field that equals (U, U, C) values where weight (U, U) is 1 and continues them where it is 0.

    A pyramid of weighted means, coarse ones filling what finer ones have not seen (push-pull; Gortler et al. 1996).
    """
    total: np.ndarray = values * weight[..., None]
    density: np.ndarray = weight.astype(np.float32)
    levels = [(total, density)]
    while min(density.shape) > 2:
        total, density = cv2.pyrDown(total), cv2.pyrDown(density)
        levels.append((total.reshape(*density.shape, -1), density))
    field: np.ndarray = levels[-1][0].sum((0, 1), keepdims=True) / max(float(levels[-1][1].sum()), 1e-6)
    for total, density in reversed(levels):
        field = cv2.resize(field, density.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(*density.shape, -1)
        known = np.clip(density * 4, 0, 1)[..., None]
        field += known * (total / np.maximum(density, 1e-4)[..., None] - field)
    return field


def complete_albedo(atlas: Atlas, seen: Unwrapped, mean: np.ndarray | None) -> np.ndarray:
    """(2, U, U, 3) albedo: what is hidden comes from the other side, else from the mean, fitted to what is seen.

    Args:
        atlas: texture space; its tiles mirror left to right.
        seen: from `unwrap`.
        mean: (2, U, U, 3) learned mean albedo, or None for plain skin.
    """
    base = np.broadcast_to(SKIN.astype(np.float32), seen.albedo.shape) if mean is None else mean
    out = np.empty_like(seen.albedo)
    for layer in (FACE_LAYER, HEAD_LAYER):
        own, weight = seen.albedo[layer], seen.weight[layer]
        other, other_weight = own[:, ::-1], weight[:, ::-1]
        ratio = np.log(np.maximum(own, 0.004) / np.maximum(base[layer], 0.004))
        trusted = weight + 0.2 * other_weight * (1 - weight)
        joined = np.where((weight > 0)[..., None], ratio, ratio[:, ::-1])
        field = cv2.GaussianBlur(fill_gaps(joined, np.clip(trusted, 0, 1)), (0, 0), atlas.side / 64)
        guess = base[layer] * np.exp(field)
        mirrored = other_weight[..., None] * other + (1 - other_weight[..., None]) * guess
        out[layer] = weight[..., None] * own + (1 - weight[..., None]) * mirrored
    return np.clip(out, 0.003, 1.2)


def mean_albedo(people: list[Unwrapped]) -> np.ndarray:
    """(2, U, U, 3) mean of what photographs show, geometric, filled smoothly where none shows anything."""
    total = np.zeros_like(people[0].albedo)
    count = np.zeros_like(people[0].weight)
    for person in people:
        total += np.log(np.maximum(person.albedo, 0.004)) * person.weight[..., None]
        count += person.weight
    mean = total / np.maximum(count, 1e-3)[..., None]
    known = np.clip(count / max(3.0, 0.1 * len(people)), 0, 1)
    both = [fill_gaps(layer, part) for layer, part in zip(mean, known, strict=True)]
    return np.exp(np.where(known[..., None] > 0.99, mean, np.stack(both)))


def make_symmetric(texture: np.ndarray) -> np.ndarray:
    """A texture (2, U, U, 3) averaged with its mirror image, geometrically."""
    return np.sqrt(texture * texture[:, :, ::-1])
