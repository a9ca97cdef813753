"""Dense correspondence between two faces from their 468-point meshes: where in the source is this target pixel?

Both meshes share one triangulation (`data/face_mesh.npz`, made by `training/tools/face_layout.py`), so the flow
is affine inside every triangle, continuous across edges, and lightly smoothed so that no crease shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import cv2
import numpy as np

from mattface.gaussian import blur

SKIN, MOUTH, LEFT_EYE, RIGHT_EYE, LIPS = range(5)
POINTS = 468
SUBPIXEL_BITS = 8  # of cv2's fixed-point polygon corners


@dataclass(frozen=True)
class Topology:
    """What all meshes have in common. V = 468 points, T triangles.

    Attributes:
        mean: (V, 3) mean face, exactly symmetric, looking at the camera: x right, y down, z away; RMS radius 1.
        triangles: (T, 3) point indices, clockwise on the screen where the triangle faces the camera.
        region: (T,) SKIN, MOUTH (between the lips), LEFT_EYE, RIGHT_EYE (as seen on the screen) or LIPS.
        mirror: (V,) index of each point's mirror image.
        oval: (36,) outline from the middle of the forehead, clockwise on the screen.
        eyes: (2, 16) outlines of the eye openings, left on the screen first.
        lip_rings: (4, 20) rings of lip points, outermost first, each from the left mouth corner over the top.
    """

    mean: np.ndarray
    triangles: np.ndarray
    region: np.ndarray
    mirror: np.ndarray
    oval: np.ndarray
    eyes: np.ndarray
    lip_rings: np.ndarray


@cache
def topology() -> Topology:
    """The mesh topology, read once from the package's data."""
    packed = np.load(BytesIO(files("mattface").joinpath("data/face_mesh.npz").read_bytes()))
    integer = {name: packed[name].astype(np.int64) for name in packed.files if name != "mean"}
    return Topology(mean=packed["mean"].astype(np.float64), **integer)


def flow(
    source_mesh: np.ndarray,
    target_mesh: np.ndarray,
    size: int,
    source_visible: np.ndarray | None = None,
    drawing: Drawing | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Source position of every target pixel, and how far to trust it.

    Args:
        source_mesh: (468, 3) in pixels of the source crop; z in the same unit, smaller is nearer.
        target_mesh: (468, 3) in pixels of the target crop.
        size: side S of the target crop in pixels.
        source_visible: (468,) of `self_visibility(source_mesh)`, where it is known already.
        drawing: `Drawing.of(target_mesh, size)`, where it is known already.

    Returns:
        (S, S, 2) float32 source x, y (pixel centres at +0.5; may point outside the source crop) and (S, S) float32
        visibility in [0, 1]: 0 outside the target's mesh, falling softly to 0 where the source hides the surface or
        shows it at a grazing angle, or where the target turns it away. Outside the mesh the flow continues smoothly.

    Raises:
        ValueError: a mesh is not (468, 3) or not finite, or size is not positive.
    """
    source, target = checked(source_mesh, "source_mesh"), checked(target_mesh, "target_mesh")
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels; got {size}")
    shown = self_visibility(source) if source_visible is None else source_visible
    attributes = np.column_stack([source[:, :2], vertex_visibility(source, target, shown)])
    drawing = Drawing.of(target, size) if drawing is None else drawing
    return settle(drawing.interpolate(attributes), drawing.covered, crease_sigma(target))


def checked(mesh: np.ndarray, name: str) -> np.ndarray:
    """The mesh as float64, or ValueError."""
    mesh = np.asarray(mesh, np.float64)
    if mesh.shape != (POINTS, 3) or not np.isfinite(mesh).all():
        raise ValueError(f"{name} must be a finite ({POINTS}, 3) array from the landmark stage; got shape {mesh.shape}")
    return mesh


def crease_sigma(mesh: np.ndarray) -> float:
    """Blur (pixels) that hides triangle edges without moving features: 0.8 % of the face's height."""
    oval = mesh[topology().oval, :2]
    return 0.008 * float(np.linalg.norm(oval[0] - oval[18]))


def signed_areas(xy: np.ndarray) -> np.ndarray:
    """(T,) twice the area of every triangle on the screen; negative where it faces away."""
    a, b, c = (xy[topology().triangles[:, k]] for k in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def triangle_ids(mesh: np.ndarray, size: int, chosen: np.ndarray | None = None) -> np.ndarray:
    """Which triangle is seen at every pixel, nearest on top (painter's algorithm).

    Args:
        mesh: (468, 3) in pixels.
        size: side of the picture in pixels.
        chosen: (T,) bool, triangles to draw; default those that face the camera.

    Returns:
        (size, size) int32, -1 where there is none.
    """
    triangles = topology().triangles
    chosen = signed_areas(mesh[:, :2]) > 1e-9 if chosen is None else chosen
    order = np.flatnonzero(chosen)
    order = order[np.argsort(-mesh[triangles[order], 2].mean(1), kind="stable")]
    corners = np.rint((mesh[:, :2] - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    ids = np.full((size, size), -1, np.int32)
    for k, polygon in zip(order.tolist(), corners[triangles[order]], strict=True):
        cv2.fillConvexPoly(ids, polygon, k, cv2.LINE_8, SUBPIXEL_BITS)
    return ids


def barycentric(mesh: np.ndarray, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, 3) weights of the corners of triangle ids (N,) at x, y (N,).

    cv2 draws a triangle up to a pixel too large: weights may leave [0, 1], but not far, or slivers would run away.
    """
    triangles = topology().triangles
    a, b, c = (mesh[triangles[:, k], :2] for k in range(3))
    area = signed_areas(mesh[:, :2])
    area = np.where(np.abs(area) < 1e-9, 1e-9, area)
    gradient_b = np.stack([(c - a)[:, 1], -(c - a)[:, 0]], 1) / area[:, None]
    gradient_c = np.stack([-(b - a)[:, 1], (b - a)[:, 0]], 1) / area[:, None]
    table = np.column_stack([gradient_b, gradient_c, a]).astype(np.float32)[ids]  # (N, 6)
    dx, dy = x - table[:, 4], y - table[:, 5]
    weights = np.empty((len(ids), 3), np.float32)
    weights[:, 1] = table[:, 0] * dx + table[:, 1] * dy
    weights[:, 2] = table[:, 2] * dx + table[:, 3] * dy
    weights[:, 0] = 1 - weights[:, 1] - weights[:, 2]
    np.clip(weights, -0.5, 1.5, out=weights)
    return weights / weights.sum(1, keepdims=True)


@dataclass(frozen=True)
class Drawing:
    """A mesh drawn in a square: which pixels it covers, and how each mixes three points of it. N covered pixels.

    Attributes:
        ids: (S, S) int32 triangle seen at every pixel, -1 for none.
        rows, columns: (N,) covered pixels.
        corners: (N, 3) points mixed there.
        weights: (N, 3) float32, they sum to 1.
    """

    ids: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    corners: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, mesh: np.ndarray, size: int) -> Drawing:
        """Draws a mesh (468, 3) in pixels of a square of `size`."""
        ids = triangle_ids(mesh, size)
        rows, columns = np.nonzero(ids >= 0)
        seen = ids[rows, columns]
        weights = barycentric(mesh, seen, columns.astype(np.float32) + 0.5, rows.astype(np.float32) + 0.5)
        return cls(ids, rows, columns, topology().triangles[seen], weights)

    @property
    def covered(self) -> np.ndarray:
        """(S, S) bool."""
        return self.ids >= 0

    def interpolate(self, attributes: np.ndarray) -> np.ndarray:
        """Per-point attributes (468, A) as (S, S, A) float32, 0 where nothing is covered."""
        mixed = np.einsum("nk,nka->na", self.weights, attributes.astype(np.float32)[self.corners])
        drawn = np.zeros((*self.ids.shape, attributes.shape[1]), np.float32)
        drawn[self.rows, self.columns] = mixed
        return drawn


def vertex_visibility(source: np.ndarray, target: np.ndarray, source_visible: np.ndarray) -> np.ndarray:
    """(468,) in [0, 1]: is the surface around each point seen well enough in the source to be drawn in the target?

    The product of three soft tests: the source does not show it at a far more grazing angle than the target needs, no
    nearer part of the source hides it, and the target's own surface faces the camera.
    """
    facing_source, facing_target = facing(source), facing(target)
    stretch = facing_source / np.maximum(facing_target, 0.15)
    seen = ramp(stretch, 0.3, 0.75) * ramp(facing_source, 0.0, 0.12)
    return close_pits(seen * source_visible) * close_pits(ramp(facing_target, -0.05, 0.1))


def facing(mesh: np.ndarray) -> np.ndarray:
    """(468,) cosine between the surface normal at each point and the direction to the camera."""
    triangles = topology().triangles
    a, b, c = (mesh[triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)  # length = twice the area: averaging weights by area
    summed = np.stack(
        [sum(np.bincount(triangles[:, k], normals[:, axis], len(mesh)) for k in range(3)) for axis in range(3)], axis=1
    )
    return summed[:, 2] / np.maximum(np.linalg.norm(summed, axis=1), 1e-12)


def self_visibility(mesh: np.ndarray, size: int = 192, tolerance: float = 0.06) -> np.ndarray:
    """(468,) in [0, 1]: 0 where a nearer part of the same face covers the point (depth buffer of `size` pixels).

    Args:
        mesh: (468, 3).
        size: side of the depth buffer.
        tolerance: depth difference taken for measuring noise, relative to the face's extent.
    """
    lowest, extent = mesh.min(0), float(np.ptp(mesh[:, :2], axis=0).max())
    scaled = (mesh - lowest) * ((size - 2) / extent) + [1, 1, 0]
    everything = np.ones(len(topology().triangles), bool)
    ids = triangle_ids(scaled, size, everything)
    column, row = np.clip(scaled[:, :2].astype(int), 0, size - 1).T
    front = np.where(ids >= 0, scaled[topology().triangles, 2].mean(1)[ids], np.inf)[row, column]
    behind = (scaled[:, 2] - front) / (size - 2)
    return 1 - ramp(behind, tolerance, 2 * tolerance)


def ramp(value: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Smooth step: 0 below low, 1 above high, 3t^2 - 2t^3 between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def close_pits(values: np.ndarray) -> np.ndarray:
    """Morphological closing over mesh neighbours: fills pits of a few points (nostrils, mouth corners), keeps areas."""
    near = neighbours()
    for extreme in (np.max, np.max, np.min, np.min):
        values = extreme(values[near], axis=1)
    return values


@cache
def neighbours() -> np.ndarray:
    """(V, N) every point and its neighbours on the mesh, filled up with the point itself."""
    near: list[set[int]] = [{k} for k in range(POINTS)]
    for triangle in topology().triangles:
        for k in triangle:
            near[k] |= {int(n) for n in triangle}
    most = max(map(len, near))
    return np.array([[*sorted(n), *[k] * (most - len(n))] for k, n in enumerate(near)])


def settle(mapped: np.ndarray, covered: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooths flow and visibility (H, W, 3) inside the mesh, continues the flow outside it; visibility is 0 there."""
    weight = covered.astype(np.float32)
    if not covered.any():
        return np.zeros((*covered.shape, 2), np.float32), weight
    affine = fitted_affine(mapped, covered)
    residual = (mapped - affine) * weight[..., None]
    smooth = np.zeros_like(residual)
    step = max(1, int(5 * sigma / 3))  # the wide ones need not be made at full resolution
    for shrink, widths in ((step, (20 * sigma, 5 * sigma)), (1, (sigma,))):
        smooth = refined(smooth, residual, weight, shrink, widths)
    smooth += affine
    return np.ascontiguousarray(smooth[..., :2]), np.clip(smooth[..., 2], 0, 1) * weight


def refined(
    smooth: np.ndarray, residual: np.ndarray, weight: np.ndarray, shrink: int, widths: tuple[float, ...]
) -> np.ndarray:
    """Normalised convolutions of (H, W, 3), each finer one counting where it has seen enough, made at 1 / `shrink`."""
    height, width = weight.shape
    if shrink > 1:
        small = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        smooth, residual, weight = (
            cv2.resize(m, small, interpolation=cv2.INTER_AREA) for m in (smooth, residual, weight)
        )
    for sigma in widths:
        total, density = blur(residual, sigma / shrink), blur(weight, sigma / shrink)
        trust = ramp(density, 0.0, 0.3)
        smooth = smooth * (1 - trust)[..., None] + total * (trust / np.maximum(density, 1e-4))[..., None]
    return cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC) if shrink > 1 else smooth


def fitted_affine(mapped: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """(H, W, C): the affine map that fits the covered pixels best, everywhere."""
    height, width = covered.shape
    step = max(1, round(np.sqrt(covered.sum() / 4096)))
    rows, columns = np.nonzero(covered[::step, ::step])
    if not len(rows):
        step, (rows, columns) = 1, np.nonzero(covered)
    rows, columns = rows * step, columns * step
    place = np.stack([columns, rows], axis=1) + 0.5
    middle, values = place.mean(0), mapped[rows, columns].astype(np.float64)
    moved = place - middle
    covariance = moved.T @ moved + 1e-9 * np.eye(2)  # one pixel, or a line of them, has no slope of its own
    slope = np.linalg.solve(covariance, moved.T @ values)
    affine = np.concatenate([slope, values.mean(0, keepdims=True) - middle @ slope]).astype(np.float32)
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    return x[None, :, None] * affine[0] + y[:, None, None] * affine[1] + affine[2]
