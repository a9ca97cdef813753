"""Brings one face into another one's light: a smooth tone curve per place and channel, fixed at black and at white.

Photographs are treated as they are encoded (gamma), where a change of light is nearly a factor. A plain factor blows
highlights when a dark face meets bright light, and drags brows and lashes along when it is the other way round. The
curve used here therefore takes black to black, the source's local skin colour to the target's, and white to white.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WORK_SIDE = 256  # low frequencies are found at this resolution
FLOOR = 4 / 255


@dataclass(frozen=True)
class Light:
    """Local skin colour of a face.

    Attributes:
        colour: (h, w, 3) float32 in (0, 1), smooth.
        trust: (h, w) float32 in [0, 1]: how much of the neighbourhood was skin.
        outlier: (h, w) float32 >= 0: how far each pixel is from that skin colour; about 1 is unusual, 2 is not skin.
    """

    colour: np.ndarray
    trust: np.ndarray
    outlier: np.ndarray


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, zeros outside."""
    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)


def shrink(values: np.ndarray, side: int = WORK_SIDE) -> np.ndarray:
    """Area-averages a square map to at most `side` pixels."""
    return values if values.shape[0] <= side else cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)


def measure_light(pixels: np.ndarray, skin: np.ndarray, sigma: float, rounds: int = 3) -> Light:
    """Estimates the local skin colour by normalised convolution of log colour, discounting what does not look like skin.

    Args:
        pixels: (h, w, 3) float32 RGB in [0, 1].
        skin: (h, w) float32 in [0, 1], where skin is expected; less where it may be covered (hair, glasses).
        sigma: radius of "local" in pixels.
        rounds: reweighting rounds; each lowers the weight of outliers of the round before.
    """
    log = np.log(np.maximum(pixels, FLOOR))
    weight = skin
    for _ in range(rounds):
        base = weighted_mean(log, weight)
        local, near = smooth(log, weight, sigma, base)
        outlier = skin_distance(log, local)
        weight = skin / (1 + outlier**4)
    return Light(np.exp(local), np.clip(near, 0, 1), outlier)


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3,) mean of (h, w, 3) under weights (h, w)."""
    return (values * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6)


def smooth(values: np.ndarray, weight: np.ndarray, sigma: float, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised convolution that leans on `base` (3,) where little is known; also the density of what is known."""
    density = blur(weight, sigma)
    lean = 0.05
    local = (blur(values * weight[..., None], sigma) + lean * base) / (density + lean)[..., None]
    return local, density / max(float(density.max()), 1e-6)


def skin_distance(log: np.ndarray, local: np.ndarray) -> np.ndarray:
    """How unlike the local skin a pixel is: darker (hair, shadow) counts, lighter less (highlights), other hues most."""
    difference = log - local
    light = difference.mean(-1)
    hue = difference - light[..., None]
    hue = np.sqrt((hue**2).sum(-1)) * np.exp(np.minimum(light, 0))  # hues of dark pixels are uncertain
    return np.sqrt((np.minimum(light, 0) / 0.35) ** 2 + (np.maximum(light, 0) / 0.8) ** 2 + (hue / 0.3) ** 2)


def relight(pixels: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float = 1.6) -> np.ndarray:
    """Applies the tone curve that takes black to black, `source` to `target`, and white to white.

    Args:
        pixels: (H, W, 3) float32 in [0, 1].
        source: (H, W, 3) local skin colour of these pixels, in (0, 1).
        target: (H, W, 3) local skin colour they shall have.
        steepest: limit of the curve's slope, so that noise and highlights are not blown up.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    source, target = np.clip(source, 0.02, 0.98), np.clip(target, 0.02, 0.98)
    difference = pixels - source
    below = np.minimum(target / source, steepest)
    above = np.minimum((1 - target) / (1 - source), steepest)
    width = 0.08
    share = 1 / (1 + np.exp(-np.clip(difference / width, -30, 30) * 2))  # soft change of slope at the skin colour
    return np.clip(target + difference * (below + (above - below) * share), 0, 1)


def limited(source: np.ndarray, target: np.ndarray, skin: np.ndarray, local_limit: float) -> np.ndarray:
    """The target's local skin colour, kept within a factor of where the faces' overall difference would put it.

    Args:
        source, target: (h, w, 3) local skin colours.
        skin: (h, w) weights for the overall difference.
        local_limit: natural logarithm of the largest local departure from it.
    """
    ratio = np.log(np.maximum(target, FLOOR)) - np.log(np.maximum(source, FLOOR))
    overall = weighted_mean(ratio, skin)
    local = ratio - overall
    bounded = local_limit * np.tanh(local / local_limit)
    return source * np.exp(overall + bounded)
