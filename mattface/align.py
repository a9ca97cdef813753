"""Face -> crop: aligned squares cut out of a picture, and the matrices that say where they were.

Matrices take picture pixels to crop pixels, x before y, pixel centres at +0.5.
"""

from __future__ import annotations

import numpy as np
import torch

from mattface.data.templates import arcface_template
from mattface.data.topology import SIXTY_EIGHT
from mattface.errors import UsageError
from mattface.geometry import apply, block_means, extent, shift, similarity
from mattface.geometry import warp as warp_affine
from mattface.vocabulary import Crop, Face

SMALLEST, LARGEST, STEP = 256, 4096, 32
"""Bounds and step of a crop that keeps the picture's own resolution."""
RANGES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


def quad_from_centres(left_eye: np.ndarray, right_eye: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """The FFHQ square from the middles of eyes and mouth (Karras et al., 2019, arXiv 1812.04948, appendix A).

    Its x axis runs along the eyes, averaged with the normal of the line from eyes to mouth; half its side is the larger
    of twice the eye distance and 1.8 times the distance from eyes to mouth.

    Args:
        left_eye, right_eye, mouth: (2,) each; left as seen in the picture.

    Returns:
        (4, 2) corners: top left, bottom left, bottom right, top right.
    """
    eyes = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, mouth - eyes
    x = across + np.array([down[1], -down[0]])
    x = x / max(float(np.hypot(*x)), 1e-12) * max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    y = np.array([-x[1], x[0]])
    centre = eyes + down * 0.1
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def ffhq_quad(landmarks: np.ndarray) -> np.ndarray:
    """The FFHQ square of 68 landmarks (iBUG order).

    Args:
        landmarks: (68, 2).

    Returns:
        (4, 2) corners: top left, bottom left, bottom right, top right, in the landmarks' own convention.
    """
    if landmarks.shape != (68, 2):
        raise UsageError(f"expected 68 landmarks (68, 2); got {landmarks.shape}. For a mesh see ffhq_matrix.")
    points = landmarks.astype(np.float64)
    return quad_from_centres(points[36:42].mean(0), points[42:48].mean(0), (points[48] + points[54]) / 2)


def sixty_eight(mesh: np.ndarray) -> np.ndarray:
    """(68, 2) landmarks in iBUG order out of a (468, 3) mesh."""
    return mesh[list(SIXTY_EIGHT), :2]


def quad_matrix(quad: np.ndarray, size: int) -> np.ndarray:
    """(3, 3) that takes a square's corners (top left, bottom left, bottom right, top right) to those of [0, size]^2."""
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]) * size
    return similarity(quad, corners)


def face_quad(face: Face) -> np.ndarray:
    """(4, 2) FFHQ square of a face, from its five points (middles of the eye rims, mouth corners)."""
    points = face.points
    return quad_from_centres(points[0], points[1], (points[3] + points[4]) / 2)


def ffhq_matrix(face: Face, size: int) -> np.ndarray:
    """(3, 3) from picture pixels to the pixels of an FFHQ crop of `size`."""
    return quad_matrix(face_quad(face), size)


def crop_matrix(face: Face, template: str, size: int) -> np.ndarray:
    """(3, 3) `image_to_crop` for "ffhq" or "arcface"."""
    if template == "ffhq":
        return ffhq_matrix(face, size)
    if template == "arcface":
        return similarity(face.points, arcface_template(size) + 0.5)
    raise UsageError(f"expected crop template ffhq or arcface; got {template!r}.")


def native_size(face: Face, template: str) -> int:
    """Side of a crop that keeps the picture's resolution: rounded to 32, within [256, 4096]."""
    unit = 1024 if template == "ffhq" else 896  # both scale freely; 896 is divisible by 112 and 128
    side = unit / np.hypot(*crop_matrix(face, template, unit)[0, :2])
    return int(np.clip(round(side / STEP) * STEP, SMALLEST, LARGEST))


def cut(pixels: np.ndarray, face: Face, template: str = "ffhq", size: int | None = None) -> Crop:
    """Cuts an aligned square out of a picture.

    Shrinking is free of aliasing. Beyond the picture's border the picture is mirrored, blurred and faded towards its
    median colour, as in the FFHQ recipe; unlike there, nothing inside the picture is touched.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1].
        face: a face with points, better with a mesh, in pixels of this picture.
        template: "ffhq" or "arcface".
        size: side of the crop; None keeps the picture's own resolution.

    Raises:
        UsageError: wrong shape, type, template or size.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in RANGES:
        raise UsageError(f"expected HxWx3 uint8, uint16 or float32; got {pixels.shape} {pixels.dtype}.")
    if size is None:
        size = native_size(face, template)
        if template == "arcface":
            size = max(SMALLEST, round(size / 128) * 128)
    matrix = crop_matrix(face, template, size)
    image = warp(pixels, matrix, size)
    image = np.clip(image * np.float32(2 / RANGES[pixels.dtype]) - 1, -1, 1)  # cubic sampling overshoots at edges
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    scale = float(np.hypot(*matrix[0, :2]))
    mesh = None
    if face.mesh is not None:
        mesh = np.concatenate([apply(matrix, face.mesh[:, :2]), face.mesh[:, 2:] * scale], axis=1)
    return Crop(tensor, matrix, mesh, apply(matrix, face.points))


def warp(pixels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) float32 square in the picture's own range.

    Args:
        pixels: (H, W, 3) of any supported type.
        matrix: (3, 3) similarity from picture to crop pixels.
        size: side of the square.
    """
    import cv2

    region, offset = _region(pixels, np.linalg.inv(matrix), size)
    matrix = matrix @ shift(*offset)
    shrink = 1 / np.hypot(*matrix[0, :2])
    whole = max(1, int(shrink))
    region, matrix = block_means(region, matrix, whole)
    rest = shrink / whole
    if rest > 1.02:  # half a pixel of the crop, less what a pixel of the picture blurs by itself
        region = cv2.GaussianBlur(region, (0, 0), 0.5 * np.sqrt(rest**2 - 1), borderType=cv2.BORDER_REFLECT_101)
    return warp_affine(region, matrix, (size, size), cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)


def _region(pixels: np.ndarray, inverse: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the picture that a crop needs, as float32 with the border made up, and its top-left (x, y)."""
    import cv2

    first, last = extent(inverse, size)
    margin = 4 + 2 * np.hypot(*inverse[0, :2])
    low, high = np.floor(first - margin).astype(int), np.ceil(last + margin).astype(int)
    limits = np.array(pixels.shape[1::-1])
    inner_low = np.clip(low, 0, limits - 1)
    inner_high = np.clip(high, inner_low + 1, limits)
    before, after = inner_low - low, high - inner_high
    part = pixels[inner_low[1] : inner_high[1], inner_low[0] : inner_high[0]].astype(np.float32)
    if max(before.max(), after.max()) <= 0:
        return part, low
    top, bottom, left, right = sides = [int(max(0, n)) for n in (before[1], after[1], before[0], after[0])]
    padded = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    side = size * np.hypot(*inverse[0, :2])
    return _fade(padded, sides, side), inner_low - np.array([left, top])


def _fade(padded: np.ndarray, sides: list[int], side: float) -> np.ndarray:
    """Blurs and fades made-up pixels the more the farther they are outside; sides: top, bottom, left, right.

    The blur is 2 % of the crop's side; the distance over which it all happens is 30 % of it or the border, if larger.
    """
    import cv2

    reach = [max(n, 0.3 * side, 1.0) for n in sides]
    height, width = padded.shape[:2]
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    down = np.maximum((sides[0] - y) / reach[0], (y - (height - 1 - sides[1])) / reach[1])
    over = np.maximum((sides[2] - x) / reach[2], (x - (width - 1 - sides[3])) / reach[3])
    inside = padded[sides[0] : height - sides[1], sides[2] : width - sides[3]]
    step = max(1, int(side * 0.02 / 4))  # a wide blur of a smaller copy is the same blur, sooner
    small = cv2.resize(padded, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(0.5, side * 0.02 / step), borderType=cv2.BORDER_REFLECT_101)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    sample = inside[:: max(1, inside.shape[0] // 64), :: max(1, inside.shape[1] // 64)]
    median = np.median(sample, axis=(0, 1)).astype(np.float32)
    whole, middle = slice(None), slice(sides[0], height - sides[1])
    strips = [
        (slice(0, sides[0]), whole),
        (slice(height - sides[1], height), whole),
        (middle, slice(0, sides[2])),
        (middle, slice(width - sides[3], width)),
    ]
    for rows, columns in strips:  # inside, the depth is 0 and nothing changes
        part = padded[rows, columns]
        depth = np.clip(np.maximum(down[rows], over[:, columns]), 0, 1)[..., None].astype(np.float32)
        part += (soft[rows, columns] - part) * np.clip(depth * 3, 0, 1)
        part += (median - part) * depth
    return padded
