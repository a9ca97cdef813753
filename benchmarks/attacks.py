"""What happens to pictures on their way through the world, on (H, W, 3) uint8 RGB."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

Attack = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FACE_MARGIN = 0.08
"""Around a face, when a picture is cropped to it."""


def coded(kind: str, quality: int) -> Attack:
    """Saved and opened again in a lossy format."""

    def attack(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, kind, quality=quality)
        return np.array(Image.open(buffer).convert("RGB"))

    return attack


def resized(factor: float = 1.0, side: int | None = None) -> Attack:
    """Resized by a factor, or so that the longer side has `side` pixels."""

    def attack(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
        scale = factor if side is None else side / max(rgb.shape[:2])
        return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)

    return attack


def toned(gain: float = 1.0, contrast: float = 1.0, gamma: float = 1.0) -> Attack:
    """Brightness times `gain`, contrast about the middle, and a power."""

    def attack(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
        values = np.clip((rgb / 255 * gain - 0.5) * contrast + 0.5, 0, 1) ** gamma
        return np.rint(values * 255).astype(np.uint8)

    return attack


def blurred(sigma: float) -> Attack:
    """A Gaussian blur."""
    return lambda rgb, _: cv2.GaussianBlur(rgb, (0, 0), sigma)


def noisy(sigma: float) -> Attack:
    """Gaussian noise, in levels."""
    return lambda rgb, rng: np.clip(np.rint(rgb + rng.normal(0, sigma, rgb.shape)), 0, 255).astype(np.uint8)


def border(part: float) -> Attack:
    """A part of the width and height cut away at every side."""

    def attack(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
        top, left = (int(n * part) for n in rgb.shape[:2])
        return np.ascontiguousarray(rgb[top : rgb.shape[0] - top, left : rgb.shape[1] - left])

    return attack


def to_face(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Cropped to the largest face."""
    from mattface import verification

    find, locate = verification.parts()
    found = find(rgb)
    if not found:
        return rgb
    points = locate(rgb, found[0]).mesh[:, :2]
    low, high = points.min(0), points.max(0)
    margin = (high - low) * FACE_MARGIN
    left, top = np.maximum(0, low - margin).astype(int)
    right, bottom = (high + margin).astype(int)
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def turned(degrees: float) -> Attack:
    """Rotated about the middle."""

    def attack(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
        height, width = rgb.shape[:2]
        move = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        return cv2.warpAffine(rgb, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)

    return attack


def flip(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Mirrored."""
    return np.ascontiguousarray(rgb[:, ::-1])


def screenshot(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shown smaller on a screen with other colours, and saved as JPEG 85."""
    small = resized(float(rng.uniform(0.55, 0.9)))(rgb, rng).astype(np.float32)
    shifted = small * rng.uniform(0.93, 1.07, 3).astype(np.float32) + rng.uniform(-6, 6, 3).astype(np.float32)
    return coded("JPEG", 85)(np.clip(np.rint(shifted), 0, 255).astype(np.uint8), rng)


def stretched(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Ten percent wider."""
    return cv2.resize(rgb, None, fx=1.1, fy=1.0, interpolation=cv2.INTER_CUBIC)


def half_hidden(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The lower half of the picture painted over."""
    painted = rgb.copy()
    painted[rgb.shape[0] // 2 :] = 127
    return painted


ATTACKS: dict[str, tuple[Attack, float | None]] = {
    "none, PNG, TIFF": (lambda rgb, _: rgb, 100),
    "JPEG 95": (coded("JPEG", 95), 99),
    "JPEG 85": (coded("JPEG", 85), 98),
    "JPEG 75": (coded("JPEG", 75), 95),
    "JPEG 50": (coded("JPEG", 50), 80),
    "WebP 80": (coded("WEBP", 80), 95),
    "resized to half": (resized(0.5), 98),
    "resized to 512 px": (resized(side=512), 95),
    "resized to 1.5 times": (resized(1.5), 98),
    "cropped to the face": (to_face, 95),
    "border of 10 % cut off": (border(0.1), 98),
    "brightness +20 %": (toned(gain=1.2), 98),
    "brightness -20 %": (toned(gain=0.8), 98),
    "contrast +20 %": (toned(contrast=1.2), 98),
    "contrast -20 %": (toned(contrast=0.8), 98),
    "gamma 0.8": (toned(gamma=0.8), 98),
    "gamma 1.25": (toned(gamma=1.25), 98),
    "blur, sigma 1": (blurred(1), 95),
    "noise, sigma 5": (noisy(5), 95),
    "flipped": (flip, 95),
    "screenshot": (screenshot, 90),
    "JPEG 30": (coded("JPEG", 30), None),
    "resized to 256 px": (resized(side=256), None),
    "blur, sigma 3": (blurred(3), None),
    "noise, sigma 15": (noisy(15), None),
    "rotated by 10 degrees": (turned(10), None),
    "rotated by 90 degrees": (lambda rgb, _: np.ascontiguousarray(np.rot90(rgb)), None),
    "stretched by 10 %": (stretched, None),
    "lower half painted over": (half_hidden, None),
}
"""Name -> (attack, percentage of pictures that must be read; None for what is only told)."""
