"""A small head in place of a real face model: an ellipsoid with a nose and eyes, three identities, five expressions.

Its 68 landmarks are the vertices nearest to those of the mesh's mean face.
"""

from __future__ import annotations

import numpy as np

from mattface.data.topology import SIXTY_EIGHT
from mattface.mesh import topology
from mattface.training.studio.face_model import EYE, FACE, HEAD, FaceModel, check_model
from mattface.vocabulary import Face

ROWS, COLUMNS = 48, 64
SCALE = 6.3
"""Centimetres per unit of the mean face."""
EXPRESSIONS = ("jawOpen", "mouthSmile_L", "mouthSmile_R", "eyeBlink_L", "eyeBlink_R")


def mean_face() -> np.ndarray:
    """(468, 3) the mesh's mean face in centimetres, y up, z towards the viewer."""
    return topology().mean * np.array([SCALE, -SCALE, -SCALE]) + np.array([0.0, 0.0, 5.0])


def sphere(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows * columns, 3) unit sphere that faces +z, and its quads, counter-clockwise from outside.

    Columns run around the y axis from the back, so that none is at the seam in front.
    """
    up = np.linspace(np.pi / 2 * 0.98, -np.pi / 2 * 0.98, rows)[:, None]
    around = np.linspace(-np.pi, np.pi, columns)[None]
    points = np.stack(np.broadcast_arrays(np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)), -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    return points.reshape(-1, 3), quads


def synthetic_model() -> FaceModel:
    """The head as a face model."""
    ball, quads = sphere(ROWS, COLUMNS)
    skin = ball * np.array([7.6, 11.0, 9.0])
    skin[:, 2] += 3.0 * np.exp(-((skin[:, 0] / 1.4) ** 2) - (skin[:, 1] / 2.0) ** 2) * (ball[:, 2] > 0)
    eye, eye_quads = sphere(12, 16)
    mean = mean_face()
    eyes = [eye * 1.3 + mean[list(SIXTY_EIGHT)][k].mean(0) + [0, 0, 1.2] for k in (slice(36, 42), slice(42, 48))]
    neutral = np.concatenate([skin, *eyes])
    part = np.concatenate([np.where(ball[:, 2] > -0.2, FACE, HEAD), np.full(2 * len(eye), EYE)])
    every = np.concatenate([quads, eye_quads + len(skin), eye_quads + len(skin) + len(eye)])
    flat = np.concatenate([skin[:, :2] / 24, eye[:, :2] / 2.2, eye[:, :2] / 2.2]) + 0.5
    flat[part == HEAD, 0] += 1
    behind = part[every].max(1) == HEAD
    uv = np.concatenate([flat, flat + np.array([1, 0])])
    corner = np.where(behind[:, None] & (part[every] == FACE), every + len(flat), every)
    chosen = np.flatnonzero(part == FACE)
    marks = [chosen[((neutral[chosen] - p) ** 2).sum(1).argmin()] for p in mean[list(SIXTY_EIGHT)]]
    model = FaceModel(
        neutral=neutral.astype(np.float32),
        identity_deltas=identities(neutral),
        expression_deltas=expressions(neutral, part),
        expression_names=EXPRESSIONS,
        quads=every.astype(np.int32),
        uv=uv.astype(np.float32),
        quad_uv=corner.astype(np.int32),
        landmarks=np.array(marks, np.int32),
        part=part.astype(np.uint8),
    )
    return check_model(model, "synthetic")


def identities(at: np.ndarray) -> np.ndarray:
    """(3, N, 3): wider, longer, a larger nose."""
    nose = np.exp(-((at[:, :1] / 2) ** 2) - (at[:, 1:2] / 3) ** 2) * (at[:, 2:] > 0)
    deltas = [at * [0.06, 0, 0], at * [0, 0.06, 0], nose * [0, 0, 0.8]]
    return np.stack(deltas).astype(np.float32)


def expressions(at: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(5, N, 3): the jaw down, each corner of the mouth up and out, each eye's region down."""
    x, y, _ = at.T
    face = (part == FACE) & (at[:, 2] > 0)
    jaw = np.clip((-3.5 - y) / 3, 0, 1)[:, None] * face[:, None] * [0, -1.5, -0.3]
    corners = [np.exp(-((x - s * 2.5) ** 2) - (y + 3.5) ** 2)[:, None] * face[:, None] * [s, 0.8, 0] for s in (1, -1)]
    lids = [np.exp(-((x - s * 3.2) ** 2 + (y - 3.4) ** 2))[:, None] * face[:, None] * [0, -0.3, 0] for s in (1, -1)]
    return np.stack([jaw, *corners, *lids]).astype(np.float32)


def portrait(size: int, shift: float, seed: int) -> tuple[np.ndarray, Face]:
    """(size, size, 3) uint8 picture of nobody, skin-coloured with noise, and the mean face's mesh laid over it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 6, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
    axis = np.linspace(-1, 1, noise.shape[0])
    light = 1 + 0.25 * axis[None, :, None] - 0.1 * axis[:, None, None]
    rgb = np.clip((np.array([190, 140, 115]) + noise) * light, 0, 255).astype(np.uint8)
    scale = size / 34
    mesh = mean_face() * [scale, -scale, -scale] + [size / 2 + shift, size / 2, 0]
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    from mattface.landmarks import five_points

    return rgb, Face(np.concatenate([low, high]), 1.0, five_points(mesh), mesh, 1.0)
