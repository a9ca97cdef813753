"""Brings one face into another one's light, in two ways.

`relight_skin` (arrays, no training) knows neither face's light and measures both on their skin; `light_change` and
`apply_light` (tensors, differentiable) bring a picture into the light of another that shows the same face.

The first is a tone curve for every pixel, and one change of hue for the whole face.

Photographs are treated as they are encoded (gamma), where a change of light is nearly a factor. A plain factor blows
highlights when a dark face meets bright light, and drags brows and lashes along when it is the other way round. The
curve used here therefore takes black to black, the source's local skin brightness to the target's, and white towards
white. Light changes quickly over a face and skin does not: brightness is matched locally, hue only by its mean and a
plane through it, because the hue of dark skin is uncertain from pixel to pixel and lightening would show it as stains.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mattface.gaussian import blur

WORK_SIDE = 256  # low frequencies are found at this resolution
FLOOR = 4 / 255
NOISE = 0.06  # brightness below which differences mean little
DEEPEST_SHADE = -0.4  # natural logarithm
HUE_TILT = 0.12  # largest departure of a face's hue from its mean, natural logarithm
DETAIL_DEPTH = 0.7  # darkness against the skin, natural logarithm, up to which something is skin detail and not hair
HAIR_DEPTH = 0.25  # share of the contrast of hair and pupils that lightened skin would hide and that is restored
THIRD = np.full(3, 1 / 3, np.float32)
LUMA = (0.299, 0.587, 0.114)
"""Brightness of gamma-encoded RGB, ITU-R BT.601."""
SHOULDER = 6.0
"""The larger, the nearer to white the curve of `apply_light` begins to bend."""
STEEPEST = 2.0
"""Largest change of light, natural logarithm."""
DARKEST = 0.02
"""Intensity that is added before brightnesses are divided."""
BRIGHT = 0.9
"""Largest channel, in [-1, 1], up to which a colour is taken as it is."""
ROUNDS = 2
"""Corrections of a change of light: a curve that bends does not take a mean to the mean of what it makes."""


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
    level = log @ THIRD
    hue, bright, weight = log - level[..., None], np.exp(level), skin
    for _ in range(rounds):
        base = float(weighted_mean(level, weight))
        local, near = smooth(level, weight, sigma, base)
        wide, _ = smooth(level, weight, 3 * sigma, base)
        plane = hue_plane(hue, weight * bright)
        # shade may darken skin against its wide neighbourhood, but only so far; beyond that it is hair
        usual = np.exp(wide + np.maximum(local - wide, DEEPEST_SHADE))
        outlier = skin_distance(bright, usual, hue - plane)
        weight = skin / (1 + np.square(np.square(outlier)))
    return Light(np.exp(local)[..., None] * np.exp(plane), np.clip(near, 0, 1), outlier)


def reach_from_outside(outlier: np.ndarray, face: np.ndarray, threshold: float, gap: float) -> np.ndarray:
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
    """Mean of (h, w) or (h, w, C) under weights (h, w): a number or (C,)."""
    return weight.ravel() @ values.reshape(weight.size, *values.shape[2:]) / max(float(weight.sum()), 1e-6)


def smooth(values: np.ndarray, weight: np.ndarray, sigma: float, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Normalised convolution of (h, w) that leans on `base` where little is known; and the density of what is known."""
    density, total = (blur(m, sigma) for m in (weight, values * weight))
    lean = 0.05
    local = (total + lean * base) / (np.maximum(density, 0) + lean)
    return local, density / max(float(density.max()), 1e-6)


def hue_plane(hue: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """(h, w, 3) smooth hue: weighted mean plus a bounded tilt, zero mean over channels.

    A ridge keeps the tilt of a small patch at bay.

    Args:
        hue: (h, w, 3) log colours less their mean over channels.
        sure: (h, w) weights; bright pixels should count more, since the hue of dark ones is uncertain.
    """
    mean, total = weighted_mean(hue, sure), float(sure.sum())
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in sure.shape)
    down, across = sure.sum(1), sure.sum(0)
    middle = np.array([across @ x, down @ y]) / max(total, 1e-6)
    x, y = x - np.float32(middle[0]), y - np.float32(middle[1])
    mixed = y @ sure @ x
    moments = np.array([[across @ (x * x), mixed], [mixed, down @ (y * y)]], np.float64)
    weighted = (sure[..., None] * (hue - mean)).reshape(len(y), -1)
    by_y = (y @ weighted).reshape(-1, 3).sum(0)
    by_x = x @ weighted.reshape(len(y), -1, 3).sum(0)
    ridge = 0.02 * total + 1e-6  # against the variance of a face over the crop, about 0.1 per axis
    slope = np.linalg.solve(moments + ridge * np.eye(2), np.stack([by_x, by_y])).astype(np.float32)
    tilt = (x[:, None] * slope[0])[None] + (y[:, None] * slope[1])[:, None]
    return mean + HUE_TILT * np.tanh(tilt * np.float32(1 / HUE_TILT))


def skin_distance(bright: np.ndarray, usual: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """How unlike the local skin a pixel is: darker (hair, shadow) counts, lighter less, other hues most.

    Args:
        bright, usual: (h, w) geometric mean over channels of the pixels and of the local skin.
        hue: (h, w, 3) difference in hue, natural logarithm.
    """
    light = np.log((bright + NOISE) / (usual + NOISE))
    darker, lighter = np.minimum(light, 0), np.maximum(light, 0)
    strange = np.square(hue) @ np.ones(3, np.float32) * np.exp(2 * darker)  # hues of dark pixels are uncertain
    return np.sqrt(np.square(darker / 0.35) + np.square(lighter / 0.8) + strange / 0.3**2)


def relight_skin(pixels: np.ndarray, source: np.ndarray, target: np.ndarray, steepest: float = 1.3) -> np.ndarray:
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
    light, source_light, target_light = (m @ np.array(LUMA, np.float32) for m in (pixels, source, target))
    wanted = tone(light, source_light, target_light, steepest)
    excess, source_excess, target_excess = (
        m * (1 / np.maximum(y, FLOOR))[..., None] - np.float32(1)
        for m, y in ((pixels, light), (source, source_light), (target, target_light))
    )
    strength, wanted_strength = (dot(e, e) for e in (source_excess, target_excess))
    lightened = np.maximum(target_light / np.maximum(source_light, FLOOR), 1)
    likeness = np.clip(dot(excess, source_excess) / np.maximum(strength, 1e-4), 0, 2)
    damping = np.minimum(np.sqrt(wanted_strength / np.maximum(strength, 1e-4)), 1) / np.sqrt(lightened)
    rest = (excess - source_excess * likeness[..., None]) * damping[..., None]
    excess = target_excess * blush(likeness, lightened)[..., None] + rest
    return np.clip(wanted[..., None] * (1 + excess), 0, 1)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W) scalar products of (H, W, 3)."""
    return np.einsum("hwc,hwc->hw", a, b)


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


def limit_change(source: np.ndarray, target: np.ndarray, skin: np.ndarray, local_limit: float) -> np.ndarray:
    """The target's local skin colour, its brightness kept within a factor of where the overall difference would put it.

    Args:
        source, target: (h, w, 3) local skin colours.
        skin: (h, w) weights for the overall difference.
        local_limit: natural logarithm of the largest local departure from it.
    """
    ratio = np.log(np.maximum(target, FLOOR)) - np.log(np.maximum(source, FLOOR))
    overall = weighted_mean(ratio, skin)
    local = ratio - overall
    level = (local @ THIRD)[..., None]
    return source * np.exp(overall + local - level + local_limit * np.tanh(level / local_limit))


def apply_light(image: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Changes the light on a face by tone curves with a soft shoulder.

    With g = e^k a pixel x in [0, 1] goes to g x where k darkens, to g x / (1 + (g^p - 1) x^p)^(1/p) where it lightens
    (p: `SHOULDER`): black and white stay where they are, and the slope is g until shortly before white.

    Args:
        image: (B, 3, H, W) in [-1, 1].
        change: (B, 3, H, W) k, natural logarithm.

    Returns:
        (B, 3, H, W) in [-1, 1].
    """
    x, gain = ((image + 1) / 2).clamp(0, 1), change.exp()
    bend = (gain.clamp_min(1).pow(SHOULDER) - 1) * x.pow(SHOULDER)
    return gain * x * (1 + bend).pow(-1 / SHOULDER) * 2 - 1


def tint(image: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """A picture with its own brightness (BT.601 luma) and the colour of another in part; no light clips by it.

    Args:
        image, other: (B, 3, H, W) in [-1, 1].
        share: (B, 1, H, W) of the other's colour.
    """
    weights = image.new_tensor(LUMA)[:, None, None]
    bright, light = ((x * weights).sum(1, keepdim=True) for x in (image, other))
    colour = (1 - share) * (image - bright) + share * (other - light)
    room = image.amax(1, keepdim=True).clamp_min(BRIGHT) - bright
    return bright + colour * (room / colour.amax(1, keepdim=True).clamp_min(1e-4)).clamp(0, 1)


def light_change(image: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """What gives a picture the light of another that shows the same face, blurred, where it has weight.

    Args:
        image, wanted: (B, 3, S, S) in [-1, 1].
        weight: (B, 1, S, S) in [0, 1].
        sigma: standard deviation of the blur in pixels: detail finer than that stays the picture's own.

    Returns:
        (B, 3, S, S) for `apply_light`, at most `STEEPEST` either way.
    """
    image, wanted, weight = (x.float().contiguous() for x in (image, wanted, weight + 1e-3))
    with torch.autocast(image.device.type, enabled=False):  # half the digits would show as bands
        change, goal = torch.zeros_like(image), mean_around(wanted, weight, sigma)
        for _ in range(ROUNDS):
            change = change + goal - mean_around(apply_light(image, change), weight, sigma)
            change = change.clamp(-STEEPEST, STEEPEST)
    return change


def mean_around(image: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, 3, S, S) natural logarithm of the weighted mean intensity around every pixel of pictures in [-1, 1]."""
    light = ((image + 1) / 2).clamp(0, 1) + DARKEST
    return (blur_map(light * weight, sigma) / blur_map(weight, sigma)).log()


def blur_map(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (B, C, S, S) maps, borders repeated."""
    reach = min(int(3 * sigma + 0.5), x.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (steps / sigma) ** 2)
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), taps, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), taps.mT, groups=x.shape[1])
