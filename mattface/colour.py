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
NOISE = 0.06  # brightness below which differences mean little
DEEPEST_SHADE = -0.4  # natural logarithm
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, for gamma-encoded RGB


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
    """Estimates the local skin colour by normalised convolution of log colour, discounting what does not look so.

    Brightness is local; hue is taken from a neighbourhood three times as wide, because light changes quickly over a
    face and skin does not.

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
        wide, _ = smooth(log, weight, 3 * sigma, base)
        local = wide + (local - wide).mean(-1, keepdims=True)
        # shade may darken skin against its wide neighbourhood, but only so far; beyond that it is hair
        shaded = (local - wide).mean(-1, keepdims=True)
        outlier = skin_distance(log, wide + np.maximum(shaded, DEEPEST_SHADE))
        weight = skin / (1 + outlier**4)
    return Light(np.exp(local), np.clip(near, 0, 1), outlier)


def reached(outlier: np.ndarray, face: np.ndarray, threshold: float, gap: float) -> np.ndarray:
    """Where outliers reach in from the outside of the face: hair, scarves and the like, but not brows, eyes or moles.

    Args:
        outlier: (h, w) from `Light`.
        face: (h, w) float, 0 outside the face.
        threshold: outlier value that counts.
        gap: width in pixels of skin-coloured gaps that are closed (strands, patterns).

    Returns:
        (h, w) float32, 1 where an unbroken region of outliers leads to the outside.
    """
    strange = cv2.morphologyEx((outlier > threshold).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    beyond = (face <= 0).astype(np.uint8)
    _, labels = cv2.connectedComponents(np.maximum(strange, beyond), connectivity=4)
    touching = np.unique(labels[beyond > 0])
    side = 2 * max(1, round(gap / 2)) + 1
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    found = cv2.morphologyEx(np.isin(labels, touching).astype(np.float32), cv2.MORPH_CLOSE, ball)
    return cv2.dilate(found, np.ones((3, 3), np.uint8))


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
    """How unlike the local skin a pixel is: darker (hair, shadow) counts, lighter less, other hues most."""
    difference = log - local
    level, usual = (np.exp(m.mean(-1)) + NOISE for m in (log, local))
    light = np.log(level / usual)
    hue = difference - difference.mean(-1, keepdims=True)
    hue = np.sqrt((hue**2).sum(-1)) * np.exp(np.minimum(light, 0))  # hues of dark pixels are uncertain
    return np.sqrt((np.minimum(light, 0) / 0.35) ** 2 + (np.maximum(light, 0) / 0.8) ** 2 + (hue / 0.3) ** 2)


def relight(pixels: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float = 1.6) -> np.ndarray:
    """Takes black to black, the local skin colour `source` to `target`, and white to white.

    Brightness follows a curve of two slopes that meet at the skin. Hue and saturation, as the relative excess of each
    channel over the brightness, move by the skins' difference in proportion to how much of the skin's own colour a
    pixel has, so that eyes and teeth stay white.

    Args:
        pixels: (H, W, 3) float32 in [0, 1].
        source: (H, W, 3) local skin colour of these pixels, in (0, 1).
        target: (H, W, 3) local skin colour they shall have.
        steepest: limit of the curve's slope, so that noise and highlights are not blown up.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    light, source_light, target_light = (m @ LUMA for m in (pixels, source, target))
    wanted = tone(light, source_light, target_light, steepest)
    excess, source_excess, target_excess = (
        m / np.maximum(y, FLOOR)[..., None] - 1
        for m, y in ((pixels, light), (source, source_light), (target, target_light))
    )
    strength, wanted_strength = ((e**2).sum(-1) for e in (source_excess, target_excess))
    likeness = np.clip((excess * source_excess).sum(-1) / np.maximum(strength, 1e-4), 0, 2)[..., None]
    calm = np.minimum(np.sqrt(wanted_strength / np.maximum(strength, 1e-4)), 1)[..., None]
    excess = target_excess * likeness + (excess - source_excess * likeness) * calm
    return np.clip(wanted[..., None] * (1 + excess), 0, 1)


def tone(light: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float) -> np.ndarray:
    """Brightness curve through (0, 0), (source, target), (1, 1), slopes limited; all (H, W) in [0, 1]."""
    source, target = np.clip(source, 0.02, 0.98), np.clip(target, 0.02, 0.98)
    difference = light - source
    below = np.minimum(target / source, steepest)
    above = np.minimum((1 - target) / (1 - source), steepest)
    share = 1 / (1 + np.exp(-np.clip(difference / 0.04, -30, 30)))  # the slope changes softly at the skin colour
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
