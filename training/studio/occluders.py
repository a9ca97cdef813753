"""Things before a face: hands, glasses, microphones, playing cards, hair, as simple shapes with their masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mattface.training.studio.face_model import FaceModel
from mattface.training.studio.people import HAIRS
from mattface.training.studio.render import Drawing

FINE = 2
"""Shapes are drawn this many times as large, then shrunk."""
SHIFT = 4
"""Binary places of OpenCV's fixed-point corners."""
STRANDS = 220
"""Of a fringe."""

Layer = tuple[np.ndarray, np.ndarray]
"""(S, S, 3) float32 linear colour, multiplied by cover, and (S, S) float32 cover in [0, 1]."""


def to_fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixel positions (centres at +0.5) on the fine canvas as OpenCV's fixed-point corners."""
    return np.rint((points * FINE - 0.5) * 2**SHIFT).astype(np.int32).reshape(-1, 1, 2)


def canvas(size: int) -> np.ndarray:
    """Empty fine mask."""
    return np.zeros((size * FINE, size * FINE), np.uint8)


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """(S, S) float32 cover of a fine mask."""
    size = len(mask) // FINE
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def polygon(size: int, points: np.ndarray) -> np.ndarray:
    """(S, S) cover of a polygon (K, 2)."""
    mask = canvas(size)
    cv2.fillPoly(mask, [to_fixed_point(points)], 255, cv2.LINE_AA, SHIFT)
    return shrink_mask(mask)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of pixel centres, (1, S) and (S, 1) float32."""
    axis = np.arange(size, dtype=np.float32) + 0.5
    return axis[None], axis[:, None]


def over(layer: Layer, other: Layer) -> Layer:
    """The second layer composited over the first."""
    clear = 1 - other[1]
    return other[0] + layer[0] * clear[..., None], other[1] + layer[1] * clear


def capsule(size: int, start: np.ndarray, end: np.ndarray, radius: float, colour: np.ndarray) -> Layer:
    """A round rod between two points, lit from above and before."""
    x, y = grid(size)
    way = end - start
    along = np.clip(((x - start[0]) * way[0] + (y - start[1]) * way[1]) / max(float(way @ way), 1e-6), 0, 1)
    dx, dy = x - start[0] - along * way[0], y - start[1] - along * way[1]
    away = np.sqrt(dx * dx + dy * dy)
    cover = np.clip(radius - away + 0.5, 0, 1).astype(np.float32)
    side = np.clip(away / radius, 0, 1)
    lit = 0.35 + 0.65 * np.sqrt(1 - side * side) - 0.2 * dy / radius * (side < 1)
    return (cover * np.clip(lit, 0.15, 1.2))[..., None].astype(np.float32) * colour.astype(np.float32), cover


def hand(size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator) -> Layer:
    """A hand with a forearm that comes from a side or from below and lies on the face."""
    colour = np.array([0.50, 0.30, 0.21]) * np.exp(rng.normal(-0.5, 0.45)) * np.exp(rng.normal(0, 0.05, 3))
    scale = drawing.camera.scale
    marks = drawing.screen[model.landmarks, :2]
    palm = marks[[8, 4, 12, 48, 54, 2, 14][rng.integers(7)]] + rng.normal(0, 1.5 * scale, 2)
    angle = rng.uniform(-np.pi * 0.95, -np.pi * 0.05)  # fingers point upwards, more or less
    ahead = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-ahead[1], ahead[0]]) * rng.choice([-1, 1])
    layer = capsule(size, palm - ahead * 20 * scale, palm - ahead * 3 * scale, 2.4 * scale, colour)
    layer = over(layer, capsule(size, palm - ahead * 3 * scale, palm + ahead * 1.5 * scale, 3.3 * scale, colour))
    thumb = palm + across * 3 * scale
    layer = over(layer, capsule(size, thumb - ahead * scale, thumb + (ahead + across) * 2 * scale, scale, colour))
    for k in range(4):
        base = palm + across * (2.6 - 1.75 * k) * scale + ahead * 2.5 * scale
        spread = ahead + across * (0.18 - 0.12 * k + rng.normal(0, 0.05))
        length = (5.0, 6.0, 5.5, 4.2)[k] * rng.uniform(0.5, 1.05)
        layer = over(layer, capsule(size, base, base + spread * length * scale, 0.88 * scale, colour))
    return layer


def glasses(size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator) -> Layer:
    """Glasses on the nose, turned with the head; one pair in seven is dark."""
    marks = model.neutral[model.landmarks]
    wide, high, power = rng.uniform(2.3, 2.9), rng.uniform(1.6, 2.3), rng.uniform(2.0, 5.0)
    turn = np.linspace(0, 2 * np.pi, 49)[:-1]
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    ring /= (np.abs(ring) ** power).sum(1, keepdims=True) ** (1 / power)
    dark = rng.random() < 0.15
    frame = np.array([0.02, 0.02, 0.02]) + rng.random() ** 2 * rng.uniform(0, 0.4, 3)
    tint = rng.uniform(0.8, 0.95) if dark else rng.uniform(0.0, 0.12)
    thick = max(1, round(rng.uniform(0.15, 0.45) * drawing.camera.scale * FINE))
    lens, rim = canvas(size), canvas(size)
    for eye in (marks[36:42], marks[42:48]):
        x, y, _ = eye.mean(0)
        bend = -0.045 * (x + ring[:, 0] * wide) ** 2
        place = np.column_stack([x + ring[:, 0] * wide, y - 0.3 + ring[:, 1] * high, marks[28, 2] + 0.9 + bend])
        seen = drawing.camera.project(place)[:, :2]
        cv2.fillPoly(lens, [to_fixed_point(seen)], 255, cv2.LINE_AA, SHIFT)
        cv2.polylines(rim, [to_fixed_point(seen)], True, 255, thick, cv2.LINE_AA, SHIFT)
        outer = place[(np.sign(x) * place[:, 0]).argmax()]
        ear = np.array([np.sign(x) * 7.9, outer[1], marks[0, 2]])
        _visible_line(rim, drawing, outer, ear, thick)
    bridge = np.array([[-1.0, marks[28, 1] + 0.4, marks[28, 2] + 1.0], [1.0, marks[28, 1] + 0.4, marks[28, 2] + 1.0]])
    cv2.polylines(rim, [to_fixed_point(drawing.camera.project(bridge)[:, :2])], False, 255, thick, cv2.LINE_AA, SHIFT)
    glass, border = shrink_mask(lens) * tint, shrink_mask(rim)
    shine = np.array([0.02, 0.02, 0.025]) if dark else np.array([0.35, 0.38, 0.42])
    return over((glass[..., None] * shine, glass), (border[..., None] * frame, border))


def _visible_line(mask: np.ndarray, drawing: Drawing, start: np.ndarray, end: np.ndarray, thick: int) -> None:
    """Draws those pieces of a line in model space that the head does not hide."""
    way = np.linspace(0, 1, 17)[:, None]
    seen = drawing.camera.project(start + (end - start) * way)
    size = len(drawing.coverage)
    columns, rows = (np.clip(seen[:, k].astype(int), 0, size - 1) for k in (0, 1))
    free = seen[:, 2] / drawing.camera.scale < drawing.depth[rows, columns] + 0.6
    for k in range(16):
        if free[k] and free[k + 1]:
            cv2.polylines(mask, [to_fixed_point(seen[k : k + 2, :2])], False, 255, thick, cv2.LINE_AA, SHIFT)


def microphone(size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator) -> Layer:
    """A microphone held before mouth or chin from below."""
    scale = drawing.camera.scale
    mouth = drawing.screen[model.landmarks[[48, 54, 57]], :2].mean(0)
    head = mouth + np.array([rng.normal(0, 2.0), rng.uniform(0.5, 4.0)]) * scale
    angle = rng.normal(np.pi / 2, 0.5)
    down = np.array([np.cos(angle), np.sin(angle)])
    grey = np.full(3, rng.uniform(0.01, 0.08))
    layer = capsule(size, head + down * 2 * scale, head + down * 18 * scale, 1.2 * scale, grey)
    radius = rng.uniform(1.9, 2.7) * scale
    ball = capsule(size, head, head + down * 1e-3, radius, np.full(3, rng.uniform(0.05, 0.35)))
    x, y = grid(size)
    pitch = max(2.0, 0.28 * scale)
    mesh = 0.75 + 0.25 * np.sin(2 * np.pi * (x + y) / pitch) * np.sin(2 * np.pi * (x - y) / pitch)
    return over(layer, (ball[0] * mesh[..., None].astype(np.float32), ball[1]))


def card(size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator) -> Layer:
    """A playing card, tilted, over some part of the face."""
    scale = drawing.camera.scale
    middle = drawing.screen[model.landmarks, :2][rng.integers(0, 68)] + rng.normal(0, 1.5 * scale, 2)
    turn, squeeze = rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.0)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * scale
    axes[0] *= squeeze
    paper = np.full(3, rng.uniform(0.6, 0.85))
    ink = np.array([0.45, 0.02, 0.03]) if rng.random() < 0.5 else np.full(3, 0.015)
    corners = np.array([[-3.1, -4.4], [3.1, -4.4], [3.1, 4.4], [-3.1, 4.4]])
    cover = polygon(size, middle + corners @ axes)
    colour = cover[..., None] * (paper * rng.uniform(0.6, 1.1))
    pip = np.array([[0.0, -0.75], [0.55, 0.0], [0.0, 0.75], [-0.55, 0.0]])
    for place in np.array([[-1.3, -2.8], [1.3, -2.8], [-1.3, 0], [1.3, 0], [-1.3, 2.8], [1.3, 2.8]]):
        mark = polygon(size, middle + (pip + place) @ axes)[..., None]
        colour = colour * (1 - mark) + mark * ink
    return colour.astype(np.float32), cover


def fringe(
    size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator, hair: np.ndarray | None = None
) -> Layer:
    """Hair that falls over the forehead and the brows, in strands of a linear colour; None draws one."""
    hair = HAIRS[int(rng.integers(len(HAIRS)))] if hair is None else hair
    marks, scale = model.neutral[model.landmarks], drawing.camera.scale
    brow, front = float(marks[17:27, 1].mean()), float(marks[27, 2])
    lean, length = rng.normal(0, 1.2), rng.uniform(-0.2, 0.9)
    fine = [canvas(size) for _ in range(4)]
    way = np.linspace(0, 1, 13)
    for strand in range(STRANDS):
        start = rng.uniform(-6.2, 6.2)
        x = start + lean * way**1.5 + rng.normal(0, 0.35) * way
        y = brow + 6.0 - (6.0 + length + rng.normal(0, 0.35)) * way
        z = front + 1.0 - 0.055 * x**2 - 0.09 * np.maximum(y - brow, 0) ** 2
        seen = drawing.camera.project(np.column_stack([x, y, z]))
        rows, columns = (np.clip(seen[:, k].astype(int), 0, size - 1) for k in (1, 0))
        free = seen[:, 2] / scale < drawing.depth[rows, columns] + 1.0
        thick = max(1, round(rng.uniform(0.08, 0.22) * scale * FINE))
        for k in np.flatnonzero(free[:-1] & free[1:]):
            piece = [to_fixed_point(seen[k : k + 2, :2])]
            cv2.polylines(fine[strand % 4], piece, False, 255, thick, cv2.LINE_AA, SHIFT)
    layer: Layer = (np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
    for shade, mask in zip((0.6, 1.0, 0.8, 1.5), fine, strict=True):
        cover = shrink_mask(mask)
        layer = over(layer, (cover[..., None] * (hair * shade).astype(np.float32), cover))
    return layer


KINDS: dict[str, Callable[[int, Drawing, FaceModel, np.random.Generator], Layer]] = {
    "glasses": glasses,
    "hand": hand,
    "microphone": microphone,
    "card": card,
    "fringe": fringe,
}


def draw_occluders(
    size: int, drawing: Drawing, model: FaceModel, rng: np.random.Generator, share: float
) -> tuple[Layer, tuple[str, ...]]:
    """Occluders of one picture: each kind comes with its share of `share`; none most of the time.

    Returns:
        The layer and the names of what is in it.
    """
    layer: Layer = (np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
    chances = {"glasses": 0.35, "hand": 0.2, "microphone": 0.15, "card": 0.1, "fringe": 0.2}
    names = tuple(name for name in KINDS if rng.random() < share * chances[name])
    for name in names:
        layer = over(layer, KINDS[name](size, drawing, model, rng))
    return layer, names
