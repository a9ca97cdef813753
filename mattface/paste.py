"""Swap -> picture: the swapped crop goes back where it came from; outside the matte nothing changes, not by one bit.

The swapped pixels themselves are pasted, not their difference to the target's crop: with crops coarser than the picture
the difference keeps the target's grain, but also its lashes and wrinkles (measured on three portraits at a third of
their resolution: 1 to 4 dB further from the swap made at full resolution).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from mattface.checks import PIXEL_TYPES
from mattface.errors import UsageError
from mattface.geometry import apply, shift, warp
from mattface.geometry import box as box_of
from mattface.vocabulary import Crop, Picture, Swap

LOBES = 3
"""Of the filter that shrinks a crop."""
FAINTEST = 1e-3
"""Matte values below this become exactly 0."""
Finish = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Mixed picture (H, W, 3) and target (H, W, 3), float32 in [0, 1], and matte (H, W) -> the picture, touched up."""


@dataclass(frozen=True)
class Pasted:
    """A picture with one swapped crop in it.

    Attributes:
        picture: the new picture; the given one where the matte reaches no pixel.
        box: left, top, right, bottom of what the matte can reach; None for nothing.
        matte: (bottom - top, right - left) float32 inside the box, in [0, 1]; None without a box.
    """

    picture: Picture
    box: tuple[int, int, int, int] | None = None
    matte: np.ndarray | None = None

    def whole_matte(self) -> np.ndarray:
        """(H, W) float32 matte in the picture's pixels."""
        width, height = self.picture.size
        whole = np.zeros((height, width), np.float32)
        if self.box is not None:
            left, top, right, bottom = self.box
            whole[top:bottom, left:right] = self.matte
        return whole


def onto_crop(swap: Swap, target: Crop) -> torch.Tensor:
    """(B, 3, S, S) float32 in [-1, 1] on the CPU: the swap over the crop that it was made for."""
    matte = swap.matte.float().cpu()
    return matte * swap.pixels.float().cpu() + (1 - matte) * target.pixels.cpu()


def paste_part(picture: Picture, swap: Swap, image_to_crop: np.ndarray, finish: Finish | None = None) -> Pasted:
    """Pastes one swapped crop.

    Arithmetic is float32 inside the matte's box only: out = target + matte (swap - target), rounded for integer types.
    Alpha and metadata are passed on.

    Args:
        picture: uint8, uint16 or float32 in [0, 1].
        swap: one crop (batch of one).
        image_to_crop: (3, 3) picture pixels to the swap's pixels.
        finish: touches up what was mixed before it is rounded.

    Returns:
        The new picture and its matte; where that is 0, pixels are the picture's own.

    Raises:
        UsageError: another pixel type, more than one crop, or a matrix that cannot be inverted.
    """
    pixels = picture.pixels
    if pixels.dtype not in PIXEL_TYPES:
        raise UsageError(f"expected uint8, uint16 or float32 pixels; got {pixels.dtype}. Read it with picture_io.")
    if swap.pixels.shape[0] != 1 or swap.matte.shape[0] != 1:
        raise UsageError(f"expected one swapped crop; got a batch of {swap.pixels.shape[0]}. Paste them one by one.")
    matrix = np.asarray(image_to_crop, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise UsageError(f"expected an invertible (3, 3) image_to_crop; got {matrix.tolist()}.")
    crop = (swap.pixels[0].detach().float().cpu().permute(1, 2, 0).numpy() + 1) / 2
    crop_matte = swap.matte[0, 0].detach().float().cpu().numpy()
    box = matte_box(crop_matte, matrix, picture.size)
    if box is None:
        return Pasted(picture)
    left, top, right, bottom = box
    local = matrix @ shift(left, top)
    size = (right - left, bottom - top)
    inside = np.clip(unwarp(crop_matte, local, size, cv2.INTER_LINEAR), 0, 1)
    inside[inside < FAINTEST] = 0
    result = pixels.copy()
    part = result[top:bottom, left:right]
    part[...] = composite(part, unwarp(crop, local, size, cv2.INTER_CUBIC), inside, finish)
    return Pasted(replace(picture, pixels=result), box, inside)


def matte_box(matte: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in the picture of what the crop's matte can reach; None when there is nothing."""
    found = box_of(matte)
    if found is None:
        return None
    corners = np.array([(x, y) for y in found[1::2] for x in found[::2]], np.float64)
    inverse = np.linalg.inv(matrix)
    moved = apply(inverse, corners)
    margin = 2 + 2 * np.hypot(*inverse[0, :2])  # what interpolation and the blur before it can reach
    left, top = np.clip(np.floor(moved.min(0) - margin).astype(int), 0, size)
    right, bottom = np.clip(np.ceil(moved.max(0) + margin).astype(int), 0, size)
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None


def unwarp(crop: np.ndarray, image_to_crop: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """The crop seen on the picture's grid, shrunk without aliasing where it is finer than the picture.

    Args:
        crop: (S, S) or (S, S, 3) float32.
        image_to_crop: (3, 3) from pixels of the wanted part to crop pixels.
        size: (width, height) of the wanted part.
        interpolation: cv2 flag.

    Returns:
        (height, width[, 3]) float32; beyond the crop its border is repeated, a matte is 0.
    """
    finer = float(np.hypot(*image_to_crop[:2, 0]))
    whole = max(1, int(finer / 2))
    if whole > 1:  # means of blocks take it to between two and four times as fine, a filter does the rest
        side = crop.shape[0] // whole
        crop = cv2.resize(crop[: side * whole, : side * whole], (side, side), interpolation=cv2.INTER_AREA)
        image_to_crop = np.diag([1 / whole, 1 / whole, 1.0]) @ image_to_crop
    rest = finer / whole
    if rest > 1.02 and crop.ndim == 2:  # a matte must not ring
        crop = cv2.GaussianBlur(crop, (0, 0), 0.5 * np.sqrt(rest**2 - 1))
    elif rest > 1.02:
        taps = lanczos(rest)
        crop = cv2.sepFilter2D(crop, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    border = cv2.BORDER_REPLICATE if crop.ndim == 3 else cv2.BORDER_CONSTANT
    return warp(crop, image_to_crop, size, interpolation | cv2.WARP_INVERSE_MAP, border)


def lanczos(finer: float) -> np.ndarray:
    """(2 r + 1,) float32 low-pass taps for shrinking by a factor >= 1: a sinc under a wider one (Duchon 1979).

    It keeps the detail that the shrunk picture can show, of which a Gaussian that stops the rest loses half.
    """
    reach = int(np.ceil(LOBES * finer))
    at = np.arange(-reach, reach + 1) / finer
    taps = np.where(np.abs(at) < LOBES, np.sinc(at) * np.sinc(at / LOBES), 0)
    return (taps / taps.sum()).astype(np.float32)


def composite(target: np.ndarray, swapped: np.ndarray, matte: np.ndarray, finish: Finish | None = None) -> np.ndarray:
    """target + matte (swapped - target) in the target's own type, finished; exactly the target where the matte is 0."""
    white = 1.0 if target.dtype == np.float32 else float(np.iinfo(target.dtype).max)
    own = target.astype(np.float32)
    change = cv2.addWeighted(swapped, white, own, -1, 0)
    blend = cv2.add(own, cv2.multiply(change, cv2.merge([matte] * 3)))
    if finish is not None:
        blend = finish(blend * np.float32(1 / white), own * np.float32(1 / white), matte) * np.float32(white)
    if target.dtype == np.float32:
        blend = np.clip(blend, 0, 1)
    else:  # rounds to the nearest and stays within the type
        blend = cv2.addWeighted(blend, 1, blend, 0, 0, dtype=cv2.CV_8U if target.dtype == np.uint8 else cv2.CV_16U)
    return cv2.copyTo(blend, (matte > 0).astype(np.uint8), np.ascontiguousarray(target).copy())
