"""Discriminators beside StyleGAN2's: scores of patches."""

from __future__ import annotations

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.generate.discriminator import Discriminator
from mattface.generate.synthesis import channel_counts
from mattface.layers import EqualConv2d

KINDS = ("global", "patch", "afsa")


class PatchCritic(nn.Module):
    """PatchGAN (Isola et al. 2017): one score per overlapping patch.

    Args:
        width: channels after the first halving; they double up to eight times that.
        halvings: stride-2 convolutions; the map of scores has 1 / 2^halvings of the side.
    """

    def __init__(self, width: int = 64, halvings: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for k in range(halvings):
            layers.append(EqualConv2d(before, width * min(2**k, 8), 3, down=2, act="lrelu"))
            before = width * min(2**k, 8)
        layers.append(EqualConv2d(before, before, 3, act="lrelu"))
        self.body = nn.Sequential(*layers)
        self.score = EqualConv2d(before, 1, 3)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, 1, H / 2^halvings, W / 2^halvings)."""
        return self.score(self.body(picture))


def build_critic(kind: str, size: int, width: int) -> nn.Module:
    """A discriminator.

    Args:
        kind: "global" (StyleGAN2's, one score), "patch" (PatchGAN; for 256 px a 32x32 map), or "afsa" (the same on
            small patches).
        size: side of the pictures.
        width: "global": channels at the highest resolution times 32 / size of 1024 px; else the first width.
    """
    if kind not in KINDS:
        raise UsageError(f"critic must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "global":
        counts = channel_counts(size, width * 1024, width * 16)
        return Discriminator(size, channels=counts)
    return PatchCritic(width)
