"""The light of one picture of a face on another: a smooth change of brightness and colour that clips nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F

SHOULDER = 6.0
"""The larger, the nearer to white the curve of `relit` begins to bend."""
STEEPEST = 2.0
"""Largest change of light, natural logarithm."""
DARKEST = 0.02
"""Intensity that is added before brightnesses are divided."""
LUMA = (0.299, 0.587, 0.114)
"""Brightness of gamma-encoded RGB, ITU-R BT.601."""
BRIGHT = 0.9
"""Largest channel, in [-1, 1], up to which a colour is taken as it is."""
ROUNDS = 2
"""Corrections of a change of light: a curve that bends does not take a mean to the mean of what it makes."""


def relit(image: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
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


def tinted(image: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
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


def change_of_light(image: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """What gives a picture the light of another that shows the same face, blurred, where it has weight.

    Args:
        image, wanted: (B, 3, S, S) in [-1, 1].
        weight: (B, 1, S, S) in [0, 1].
        sigma: standard deviation of the blur in pixels: detail finer than that stays the picture's own.

    Returns:
        (B, 3, S, S) for `relit`, at most `STEEPEST` either way.
    """
    image, wanted, weight = (x.float().contiguous() for x in (image, wanted, weight + 1e-3))
    with torch.autocast(image.device.type, enabled=False):  # half the digits would show as bands
        change, goal = torch.zeros_like(image), mean_around(wanted, weight, sigma)
        for _ in range(ROUNDS):
            change = change + goal - mean_around(relit(image, change), weight, sigma)
            change = change.clamp(-STEEPEST, STEEPEST)
    return change


def mean_around(image: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, 3, S, S) natural logarithm of the weighted mean intensity around every pixel of pictures in [-1, 1]."""
    light = ((image + 1) / 2).clamp(0, 1) + DARKEST
    return (blurred(light * weight, sigma) / blurred(weight, sigma)).log()


def blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (B, C, S, S) maps, borders repeated."""
    reach = min(int(3 * sigma + 0.5), x.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (steps / sigma) ** 2)
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), taps, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), taps.mT, groups=x.shape[1])
