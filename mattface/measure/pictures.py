"""How a swapped picture looks: seam, background, detail by octave, clipped skin; and how far it is from the truth.

Pictures are (H, W, 3) of one type, sRGB; masks and mattes (H, W) in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

BLOWN, CRUSHED = 0.9956, 0.0998
"""sRGB values of linear light 0.99 and 0.01."""
BEST_PSNR = 99.0
"""What equal pictures get."""
UNCHANGED = 8 / 255
"""A pixel whose channels differ by no more counts as unchanged: less is hard to see."""
COVERED = 0.9
"""Share of a pixel from which an occluder counts."""
OCTAVES = 4


def unit(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) of any pixel type as float32 in [0, 1]."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def background_change(result: np.ndarray, target: np.ndarray, matte: np.ndarray) -> float:
    """Largest change of any value where the matte is 0, in units of the pixels. It has to be 0.

    Args:
        result, target: (H, W, 3) of one type.
        matte: (H, W) in [0, 1].
    """
    outside = matte == 0
    if not outside.any():
        return 0.0
    return float(np.abs(result[outside].astype(np.float64) - target[outside].astype(np.float64)).max())


def seam_score(result: np.ndarray, target: np.ndarray, matte: np.ndarray) -> float:
    """How much steeper the picture gets across the matte's edge than the target was there; 0 is no seam.

    A blurred face scores below 0: 0 is the goal, not the least.

    The brightness gradient along the direction in which the matte falls, averaged where it falls; the excess over the
    target's own is given relative to the target's mean gradient within the face.

    Args:
        result, target: (H, W, 3) of one type.
        matte: (H, W) in [0, 1].
    """
    white = 1.0 if result.dtype.kind == "f" else float(np.iinfo(result.dtype).max)
    falls = gradient(matte.astype(np.float32))
    steep = np.hypot(*falls)
    across = [c / np.maximum(steep, 1e-9) for c in falls]
    change = []
    for image in (result, target):
        dx, dy = gradient(image.astype(np.float32).mean(-1) / white)
        change.append(np.abs(dx * across[0] + dy * across[1]))
    if steep.sum() <= 0:
        return 0.0
    weight = steep / steep.sum()
    usual = change[1][matte > 0].mean()
    return float(((change[0] - change[1]) * weight).sum() / max(usual, 1e-6))


def gradient(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives along x and y of (H, W) float32, slightly smoothed."""
    return cv2.Sobel(plane, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(plane, cv2.CV_32F, 0, 1, scale=1 / 8)


def octave_energy(result: np.ndarray, target: np.ndarray, matte: np.ndarray) -> dict[str, float]:
    """Energy of the brightness in each octave inside the matte, relative to the target's own; 1 is as much detail.

    The octaves are the bands of a Laplacian pyramid (Burt and Adelson 1983), named by the sides in pixels between which
    a crop shows them: in a crop of 1024 pixels the finest is "512-1024".

    Args:
        result, target: (S, S, 3) of one type; S a power of two.
        matte: (S, S) in [0, 1].

    Returns:
        Name of the octave -> mean square of the result's band over that of the target, finest first.
    """
    planes = [unit(p).mean(-1) for p in (result, target)]
    ratios = {}
    for _ in range(OCTAVES):
        side = len(matte)
        small = [cv2.pyrDown(p) for p in planes]
        bands = [p - cv2.pyrUp(s, dstsize=(side, side)) for p, s in zip(planes, small, strict=True)]
        energy = [float((band**2 * matte).sum()) for band in bands]
        ratios[f"{side // 2}-{side}"] = energy[0] / max(energy[1], 1e-12)
        planes, matte = small, cv2.resize(matte, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    return ratios


def clipped_share(pixels: np.ndarray, skin: np.ndarray) -> float:
    """Percentage of skin pixels that are blown (a channel above 0.99 linear) or crushed (all of them below 0.01).

    Args:
        pixels: (H, W, 3) sRGB.
        skin: (H, W) in [0, 1]; pixels above 0.5 count.
    """
    chosen = unit(pixels)[skin > 0.5]
    if not len(chosen):
        return 0.0
    return float(100 * ((chosen.max(1) > BLOWN) | (chosen.max(1) < CRUSHED)).mean())


def psnr(result: np.ndarray, truth: np.ndarray, matte: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels inside the matte, which weighs the pixels; at most `BEST_PSNR`."""
    weight = matte / max(float(matte.sum()), 1e-9)
    error = float((((unit(result) - unit(truth)) ** 2).mean(-1) * weight).sum())
    return min(BEST_PSNR, -10 * float(np.log10(max(error, 1e-12))))


def structure_loss(result: np.ndarray, truth: np.ndarray, matte: np.ndarray, octaves: int = 3) -> float:
    """1 - SSIM inside the matte (Wang et al. 2004), the mean over some octaves of grey pictures; 0 for equal pictures.

    Args:
        result, truth: (H, W, 3).
        matte: (H, W).
        octaves: the pictures as they are, halved, quartered, ...
    """
    from skimage.metrics import structural_similarity

    a, b = (unit(p).mean(-1) for p in (result, truth))
    losses = []
    for _ in range(octaves):
        _, local = structural_similarity(a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, full=True)
        losses.append(float(((1 - local) * matte).sum() / max(float(matte.sum()), 1e-9)))
        a, b, matte = (cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in (a, b, matte))
    return float(np.mean(losses))


def light_error(result: np.ndarray, truth: np.ndarray, matte: np.ndarray, sigma: float) -> float:
    """Root mean square of the low-frequency difference inside the matte, in levels of 255.

    Both pictures are blurred within the matte (blur of matte x picture over blur of matte), so that what surrounds the
    face does not leak in.

    Args:
        result, truth: (H, W, 3) sRGB.
        matte: (H, W).
        sigma: of the Gaussian in pixels, about 1/16 of the face's height.
    """
    matte = matte.astype(np.float32)
    off = (unit(result) - unit(truth)) * matte[..., None]
    low = cv2.GaussianBlur(off, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(matte, (0, 0), sigma), 1e-3)[..., None]
    mean = ((low**2).mean(-1) * matte).sum() / max(float(matte.sum()), 1e-9)
    return float(255 * np.sqrt(mean))


def kept_share(result: np.ndarray, target: np.ndarray, matte: np.ndarray, occluder: np.ndarray) -> dict[str, float]:
    """How much of what lies before a face stays the target's, in percent of its pixels.

    Args:
        result, target: (H, W, 3) of one type.
        matte: (H, W) of the method.
        occluder: (H, W) in [0, 1]; pixels above `COVERED` count: through others the face shows.

    Returns:
        "outside": where the matte is below 0.5; "kept": where moreover no channel changed by more than `UNCHANGED`.
    """
    chosen = occluder > COVERED
    if not chosen.any():
        return {"outside": 100.0, "kept": 100.0}
    outside = matte[chosen] < 0.5
    change = np.abs(unit(result[chosen]) - unit(target[chosen])).max(-1)
    return {
        "outside": float(100 * outside.mean()),
        "kept": float(100 * (outside & (change <= UNCHANGED + 1e-6)).mean()),
    }
