"""The imperceptible mark: 48 bits in the light of a face, inside the matte only.

A classical spread-spectrum mark with informed embedding, no network. The face is seen in a frame of 192 px that its
own landmarks place, so that resizing, cropping and moving leave it where it was. There, every bit of the codeword
(`mattface.provenance.code`) is the sum of 24 DCT coefficients of medium frequency with signs, by a published key. The
values that a picture shows already are turned towards the codeword, as far as an error of `DECIBELS` allows and more
where texture hides it (Cox, Miller and Bloom, Digital Watermarking, chapters 5 and 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import cv2
import numpy as np

from mattface.geometry import to_opencv
from mattface.provenance import code

SIDE = 192
"""Of the frame, in pixels."""
FILLED = 0.9
"""Part of the frame's side that the mean face takes."""
LOWEST, HIGHEST = 16, 96
"""Index radii of the DCT coefficients in use: 3 to 19 periods over a face's width."""
TILT = 1.75
"""Weight of a coefficient: its index radius to this power. Faces have less of high frequencies, and hide less there."""
BACKGROUND, SURROUND = 6.0, 8.0
"""Standard deviations in frame pixels: of what counts as a pixel's background, and of where texture is measured."""
FLOOR = 4.0
"""Texture, in 8-bit levels, below which the eye sees no less."""
STRONGEST = 6.0
"""A textured place takes at most this many times the change of a smooth one."""
MASKING = 1.5
"""Power by which texture raises the change that is allowed."""
SCALE_OF_GOALS, GOALS = (0.7, 1.5), (0.93, 0.77)
"""Picture pixels in a frame pixel, and the correlation to reach there: small faces lose more on their way. The first
holds for faces of about 110 px and less, the last from 230 px on."""
KEY = b"mattface mark 1"
DECIBELS = 44.5
"""PSNR inside the matte that embedding keeps to; what is needed is mostly less."""
NOISE = 0.3
"""Disturbance to expect, as a part of a picture's own values."""
FALSE_POSITIVES = 1e-6
"""Of a whole search in one face, by the bound of the code."""
SCALES, TURNS, SHIFTS = (-0.012, -0.006, 0.0, 0.006, 0.012), (-0.012, -0.006, 0.0, 0.006, 0.012), (-0.4, 0.4)
"""Corrections of the landmarks' frame that are tried: relative, radians, frame pixels."""
NEAR, BESIDE, REFINEMENTS = 0.003, 0.3, 2
"""Finer corrections, relative or radians, and frame pixels; how often they are tried around the best place so far."""
TRIALS = 2 * (1 + len(SCALES) * len(TURNS) + len(SHIFTS) ** 2 + 8 * REFINEMENTS)
"""Sets of values that a search decodes at most, in a picture and in its mirror image."""


@dataclass(frozen=True)
class Found:
    """What a search for the mark saw in one face.

    Attributes:
        payload: the 48 bits; None when there is no mark.
        correlation: cosine between what is there and the best codeword.
        chance: how often an unmarked face would look so, at most (bound of the code).
    """

    payload: int | None
    correlation: float
    chance: float


def embed(pixels: np.ndarray, matte: np.ndarray, meshes: Sequence[np.ndarray], payload: int) -> np.ndarray:
    """Marks the faces of a picture.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16, or float32 where 1 is white.
        matte: (H, W) in [0, 1].
        meshes: (468, 3) landmarks of the faces as this picture shows them.
        payload: 48 bits.

    Returns:
        A picture of the same type; where the matte is 0 it equals the given one bit for bit.
    """
    rows, columns = np.flatnonzero((matte > 0).any(1)), np.flatnonzero((matte > 0).any(0))
    if not len(rows) or not len(meshes):
        return pixels
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    marked, inside = pixels.copy(), np.ascontiguousarray(matte[top:bottom, left:right], np.float32)
    part = marked[top:bottom, left:right]
    level = _level(pixels.dtype)
    for mesh in meshes:
        matrix = frame(mesh - np.array([left, top, 0.0]))
        change = _change(_light(part), inside, matrix, payload)
        added = part.astype(np.float32) + np.where(inside > 0, change, 0)[..., None] * np.float32(level)
        if pixels.dtype == np.float32:
            part[...] = np.where((inside > 0)[..., None], added, part)
        else:
            part[...] = np.clip(np.rint(added), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return marked


def search(pixels: np.ndarray, mesh: np.ndarray) -> Found:
    """Looks for the mark in one face: where the landmarks say, then a little beside.

    A flipped picture has to be flipped back by the caller, before its landmarks are found.

    Args:
        pixels: (H, W, 3) RGB of any type that `embed` takes.
        mesh: (468, 3) landmarks of the face in this picture.
    """
    light, matrix = _light(pixels), frame(mesh)
    best, move = _best(light, matrix, [np.eye(3)])
    wide = [_moved(scale, turn) for scale in SCALES for turn in TURNS]
    wide += [_moved(0, 0, x, y) for x in SHIFTS for y in SHIFTS]
    for tried in (wide, *[_neighbours()] * REFINEMENTS):
        if best.payload is not None:
            break
        again, there = _best(light, matrix, [one @ move for one in tried])
        if again.correlation > best.correlation:
            best, move = again, there
    return best


def frame(mesh: np.ndarray) -> np.ndarray:
    """(3, 3) from picture pixels to the frame's: the similarity that lays a mesh over the mean face best."""
    place = _place()[0]
    a, b = (points @ np.array([1, 1j]) for points in (mesh[:, :2], place))
    turn = ((b - b.mean()) * (a - a.mean()).conj()).sum() / (abs(a - a.mean()) ** 2).sum()
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])


def values(light: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(1, 288) what a picture's light says about each bit of the codeword.

    Args:
        light: (H, W) float32, 255 is white.
        matrix: (3, 3) to the frame.
    """
    detail, gain, _ = _view(warp(light, matrix))
    return _project(detail * gain)[None]


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(192, 192) float32 frame of an (H, W) image, shrunk without aliasing."""
    shrink = 1 / np.hypot(*matrix[0, :2])
    whole = max(1, int(shrink))
    if whole > 1:
        height, width = (n // whole * whole for n in image.shape)
        image = cv2.resize(image[:height, :width], (width // whole, height // whole), interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([whole, whole, 1.0])
    if shrink / whole > 1.02:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt((shrink / whole) ** 2 - 1))
    move = to_opencv(matrix)
    return cv2.warpAffine(image, move, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _change(light: np.ndarray, matte: np.ndarray, matrix: np.ndarray, payload: int) -> np.ndarray:
    """(H, W) what to add to the light, in 8-bit levels."""
    detail, gain, texture = _view(warp(light, matrix))
    inside = np.clip(warp(matte, matrix), 0, 1)
    shown = _project(detail * gain)
    codeword = code.encode(code.decode(shown[None], payload)[0])
    room = (np.minimum((1 + texture / FLOOR) ** MASKING, STRONGEST) * inside) ** 2
    limit, scale = 255 * 10 ** (-DECIBELS / 20), 1 / float(np.hypot(*matrix[0, :2]))
    reach = _needed(shown, codeword, float(np.interp(scale, SCALE_OF_GOALS, GOALS)))
    for _ in range(3):
        change = _least(_aim(shown, codeword, reach)[0], gain, room)
        size = float(np.sqrt((change[inside > 0.02] ** 2).mean())) if (inside > 0.02).any() else 0.0
        if size <= 1.02 * limit:
            break
        reach *= limit / size
    back = to_opencv(np.linalg.inv(matrix))
    return cv2.warpAffine(change, back, light.shape[::-1], flags=cv2.INTER_CUBIC)


def _needed(shown: np.ndarray, codeword: np.ndarray, goal: float) -> float:
    """Length of the step after which values and codeword correlate by `goal`."""
    low, high = 0.0, 2 * float(np.linalg.norm(shown))
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if _aim(shown, codeword, middle)[1] < goal else (low, middle)
    return high


def _aim(shown: np.ndarray, codeword: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """The step of length `reach` that turns the values nearest to the codeword, `NOISE` on top; and the correlation
    after it."""
    towards = codeword / np.sqrt(len(codeword))
    along = float(shown @ towards)
    across = shown - along * towards
    length = float(np.linalg.norm(across))
    angle = np.linspace(0, np.pi / 2, 91)
    after = along + reach * np.cos(angle), length - reach * np.sin(angle)
    noise = NOISE * np.linalg.norm(shown)
    alike = after[0] / np.sqrt(after[0] ** 2 + after[1] ** 2 + noise**2)
    best = int(np.argmax(alike))
    step = np.cos(angle[best]) * towards - np.sin(angle[best]) * across / max(length, 1e-12)
    return reach * step, float(alike[best])


def _least(step: np.ndarray, gain: np.ndarray, room: np.ndarray, rounds: int = 8) -> np.ndarray:
    """(192, 192) the change of least energy, weighted by 1 / room, that moves the values by `step`: conjugate gradients
    on the normal equations."""
    answer, rest = np.zeros_like(step), step.copy()
    towards, energy = rest.copy(), float(rest @ rest)
    for _ in range(rounds):
        if energy <= 1e-6 * float(step @ step):
            break
        seen = _project(room * _spread(towards, gain) * gain)
        far = energy / max(float(towards @ seen), 1e-12)
        answer, rest = answer + far * towards, rest - far * seen
        energy, before = float(rest @ rest), energy
        towards = rest + energy / before * towards
    return room * _spread(answer, gain)


def _project(image: np.ndarray) -> np.ndarray:
    """(288,) sums of signed coefficients of a (192, 192) float32 image."""
    index, weight = _layout()
    spectrum = _cosines() @ image @ _cosines().T
    return (spectrum.ravel()[index] * weight).reshape(code.LENGTH, -1).sum(1)


def _spread(step: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Transpose of `_project`, times the gain."""
    index, weight = _layout()
    spectrum = np.zeros(HIGHEST * HIGHEST, np.float32)
    spectrum[index] = np.repeat(step, len(index) // code.LENGTH) * weight
    return (_cosines().T @ spectrum.reshape(HIGHEST, HIGHEST) @ _cosines()) * gain


def _view(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detail, the gain that makes it equally strong everywhere on the face and 0 beside it, and the texture."""
    detail = seen - cv2.GaussianBlur(seen, (0, 0), BACKGROUND)
    texture = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), SURROUND))
    return detail, _place()[1] / (texture + np.float32(FLOOR)), texture


def _best(light: np.ndarray, matrix: np.ndarray, moves: Sequence[np.ndarray]) -> tuple[Found, np.ndarray]:
    """The surest sight of the mark in a frame and its neighbours, and where it was."""
    soft = np.concatenate([values(light, move @ matrix) for move in moves])
    words = code.decode(soft)
    alike = code.correlation(soft, words)
    k = int(alike.argmax())
    found = float(alike[k]) >= code.threshold(TRIALS, FALSE_POSITIVES)
    payload = code.payload_of(words[k]) if found else None
    return Found(payload, float(alike[k]), code.chance(float(alike[k]), TRIALS)), moves[k]


def _moved(scale: float, turn: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """(3, 3) a small similarity about the frame's middle."""
    a, b, middle = (1 + scale) * np.cos(turn), (1 + scale) * np.sin(turn), SIDE / 2
    shift = middle - a * middle + b * middle + x, middle - b * middle - a * middle + y
    return np.array([[a, -b, shift[0]], [b, a, shift[1]], [0, 0, 1]])


def _neighbours() -> list[np.ndarray]:
    """Eight small similarities around none."""
    signs = (-1, 1)
    sizes = [_moved(sign * NEAR, 0) for sign in signs] + [_moved(0, sign * NEAR) for sign in signs]
    shifts = [_moved(0, 0, sign * BESIDE, 0) for sign in signs] + [_moved(0, 0, 0, sign * BESIDE) for sign in signs]
    return sizes + shifts


def _light(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32 luma, 255 is white."""
    weights = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(_level(pixels.dtype))
    return cv2.transform(pixels.astype(np.float32), weights[None])


def _level(dtype: np.dtype) -> float:
    """One 8-bit level in a dtype."""
    return {"uint8": 1.0, "uint16": 257.0, "float32": 1 / 255}[np.dtype(dtype).name]


@cache
def _layout() -> tuple[np.ndarray, np.ndarray]:
    """Coefficients in the key's order, and their signed weights; equally many for every bit of the codeword."""
    radius = np.hypot(*np.mgrid[:HIGHEST, :HIGHEST]).ravel()
    index = np.flatnonzero((radius >= LOWEST) & (radius < HIGHEST))
    stream = np.frombuffer(hashlib.shake_256(KEY).digest(8 * len(index)), "<u8")
    order = np.argsort(stream, kind="stable")[: len(index) // code.LENGTH * code.LENGTH]
    sign = 1.0 - 2.0 * (stream[order] & np.uint64(1)).astype(np.float64)
    return index[order], (sign * (radius[index[order]] / HIGHEST) ** TILT).astype(np.float32)


@cache
def _cosines() -> np.ndarray:
    """(96, 192) float32: the lowest rows of the orthonormal DCT-II."""
    order, at = np.arange(HIGHEST)[:, None], np.arange(SIDE)[None] + 0.5
    rows = np.cos(np.pi / SIDE * order * at) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


@cache
def _place() -> tuple[np.ndarray, np.ndarray]:
    """The mean face in the frame (468, 2), and a soft oval (192, 192) of where the mark may be."""
    packed = np.load(BytesIO(files("mattface").joinpath("data/face_mesh.npz").read_bytes()))
    mean = packed["mean"][:, :2].astype(np.float64)
    low, high = mean.min(0), mean.max(0)
    place = (mean - (low + high) / 2) * (FILLED * SIDE / (high - low).max()) + SIDE / 2
    oval = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(oval, np.rint(place[packed["oval"].astype(int)]).astype(np.int32), 1)
    inner = cv2.erode(oval, np.ones((9, 9), np.uint8)).astype(np.float32)
    return place, cv2.GaussianBlur(inner, (0, 0), 3.0)
