"""Brings one face into another one's light: a tone curve per place, and one change of hue for the whole face.

Photographs are treated as they are encoded (gamma), where a change of light is nearly a factor. A plain factor blows
highlights when a dark face meets bright light, and drags brows and lashes along when it is the other way round. The
curve used here therefore takes black to black, the source's local skin brightness to the target's, and white towards
white. Light changes quickly over a face and skin does not: brightness is matched locally, hue only by its mean and a
plane through it, because the hue of dark skin is uncertain from place to place and lightening would show it as stains.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WORK_SIDE = 256  # low frequencies are found at this resolution
FLOOR = 4 / 255
NOISE = 0.06  # brightness below which differences mean little
DEEPEST_SHADE = -0.4  # natural logarithm
HUE_TILT = 0.12  # largest departure of a face's hue from its mean, natural logarithm
DETAIL_DEPTH = 0.7  # darkness against the skin, natural logarithm, up to which something is skin detail and not hair
HAIR_DEPTH = 0.25  # share of the contrast of hair and pupils that lightened skin would hide and that is restored
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

    Brightness is local; hue is a plane over the face, tilted by at most `HUE_TILT`.

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
        hue = hue_plane(log, weight)
        local, wide = (m.mean(-1, keepdims=True) + hue for m in (local, wide))
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


def hue_plane(log: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(h, w, 3) hue of log colours (h, w, 3), zero mean over channels: weighted mean plus a bounded tilt.

    Bright pixels count more, since the hue of dark ones is uncertain; a ridge keeps the tilt of a small patch at bay.
    """
    level = log.mean(-1)
    hue, sure = log - level[..., None], weight * np.exp(level)
    mean = weighted_mean(hue, sure)
    y, x = (np.linspace(-1, 1, n) for n in weight.shape)
    place = np.stack(np.meshgrid(x, y), -1)
    place -= (place * sure[..., None]).sum((0, 1)) / max(float(sure.sum()), 1e-6)
    axes, values = place.reshape(-1, 2), (hue - mean).reshape(-1, 3)
    weighted = axes * sure.reshape(-1, 1)
    ridge = 0.02 * float(sure.sum()) + 1e-6  # against the spread of a face over the crop, about 0.1 per axis
    slope = np.linalg.solve(weighted.T @ axes + ridge * np.eye(2), weighted.T @ values)
    return (mean + HUE_TILT * np.tanh(place @ slope / HUE_TILT)).astype(np.float32)


def skin_distance(log: np.ndarray, local: np.ndarray) -> np.ndarray:
    """How unlike the local skin a pixel is: darker (hair, shadow) counts, lighter less, other hues most."""
    difference = log - local
    level, usual = (np.exp(m.mean(-1)) + NOISE for m in (log, local))
    light = np.log(level / usual)
    hue = difference - difference.mean(-1, keepdims=True)
    hue = np.sqrt((hue**2).sum(-1)) * np.exp(np.minimum(light, 0))  # hues of dark pixels are uncertain
    return np.sqrt((np.minimum(light, 0) / 0.35) ** 2 + (np.maximum(light, 0) / 0.8) ** 2 + (hue / 0.3) ** 2)


def relight(pixels: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float = 1.3) -> np.ndarray:
    """Takes black to black, the local skin colour `source` to `target`, and white towards white.

    Brightness follows `tone`. Hue and saturation are the relative excess of each channel over the brightness, split
    into a multiple of the skin's own excess (see `blush`) and the rest. The multiple is carried over to the target's
    skin, so that eyes and teeth stay white; the rest (lips, sheen of the sky) never gains in strength.

    Args:
        pixels: (H, W, 3) float32 in [0, 1].
        source: (H, W, 3) local skin colour of these pixels, in (0, 1).
        target: (H, W, 3) local skin colour they shall have.
        steepest: limit of the curve's slope at the skin, so that noise and highlights are not blown up.

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
    lightened = np.maximum(target_light / np.maximum(source_light, FLOOR), 1)
    likeness = np.clip((excess * source_excess).sum(-1) / np.maximum(strength, 1e-4), 0, 2)
    calm = np.minimum(np.sqrt(wanted_strength / np.maximum(strength, 1e-4)), 1) / np.sqrt(lightened)
    rest = (excess - source_excess * likeness[..., None]) * calm[..., None]
    excess = target_excess * blush(likeness, lightened)[..., None] + rest
    return np.clip(wanted[..., None] * (1 + excess), 0, 1)


def blush(likeness: np.ndarray, lightened: np.ndarray) -> np.ndarray:
    """How much skin colour a pixel has once the skin under it is `lightened` by a factor >= 1.

    A pixel is skin light plus white sheen, skin's share being `likeness`. The sheen does not grow with the skin, so its
    share shrinks: share' = factor share / (factor share + 1 - share). Excess saturation shrinks by the factor.
    """
    share = np.minimum(likeness, 1)
    return lightened * share / (lightened * share + 1 - share) + np.maximum(likeness - 1, 0) / lightened


def tone(light: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float) -> np.ndarray:
    """Brightness curve through (0, 0) and (source, target), towards (1, 1); all (H, W) in [0, 1].

    Below the skin it is a power of light / source. The exponent starts where the slope at the skin is `steepest` at
    most and goes `HAIR_DEPTH` of the way to 1 further down: fine detail of lightened skin is not exaggerated, brows
    and lashes stay dark without turning black.
    Above it is a line, its slope limited likewise.
    """
    source, target = np.clip(source, 0.02, 0.98), np.clip(target, 0.02, 0.98)
    difference = light - source
    depth = np.log(np.maximum(light, 1e-4) / source)
    gentle = np.minimum(steepest * source / target, 1)
    power = gentle + HAIR_DEPTH * (1 - gentle) * (1 - np.exp(-((np.minimum(depth, 0) / DETAIL_DEPTH) ** 2)))
    below = target * np.exp(power * depth)
    above = target + difference * np.minimum((1 - target) / (1 - source), steepest)
    share = 1 / (1 + np.exp(-np.clip(difference / 0.04, -30, 30)))  # the slope changes softly at the skin colour
    return np.clip(below + (above - below) * share, 0, 1)


def limited(source: np.ndarray, target: np.ndarray, skin: np.ndarray, local_limit: float) -> np.ndarray:
    """The target's local skin colour, its brightness kept within a factor of where the overall difference would put it.

    Args:
        source, target: (h, w, 3) local skin colours.
        skin: (h, w) weights for the overall difference.
        local_limit: natural logarithm of the largest local departure from it.
    """
    ratio = np.log(np.maximum(target, FLOOR)) - np.log(np.maximum(source, FLOOR))
    overall = weighted_mean(ratio, skin)
    local = ratio - overall
    level = local.mean(-1, keepdims=True)
    return source * np.exp(overall + local - level + local_limit * np.tanh(level / local_limit))
