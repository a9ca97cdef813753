"""Discriminators of swap trainings: scores of patches, and StyleGAN2's for batches that come in parts."""

from __future__ import annotations

import torch
from torch import nn

from mattface.generate.discriminator import Discriminator
from mattface.generate.synthesis import channel_counts
from mattface.layers import EqualConv2d
from mattface.training.config import DISCRIMINATORS, check_choice

GROUP = 4
"""Samples over which StyleGAN2's batch deviation is taken."""


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): one score per overlapping patch.

    Args:
        width: channels after the first halving; they double up to eight times that.
        halvings: stride-2 convolutions; the map of scores has 1 / 2^halvings of the picture's size.
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


class AccumulatedDiscriminator(nn.Module):
    """StyleGAN2's discriminator for a generator whose batch comes in micro-batches.

    Its batch deviation compares samples of a group, and of a micro-batch of one it would always be 0. Here a
    micro-batch is completed to whole groups with the features of fakes of the step before, which `remember` keeps; they
    are saved with the weights. Whole batches are scored as they are.

    Args:
        size: size of the pictures.
        channels: resolution -> channels.
        batch: pictures of a whole batch; the group is its largest divisor up to `GROUP`.
    """

    fakes: torch.Tensor

    def __init__(self, size: int, channels: dict[int, int], batch: int) -> None:
        super().__init__()
        self.group = max(n for n in range(1, GROUP + 1) if batch % n == 0)
        self.network = Discriminator(size, channels=channels, group=self.group)
        self.register_buffer("fakes", torch.zeros(self.group - 1, channels[4], 4, 4))

    def features(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) to (B, C, 4, 4), what the batch deviation is taken of."""
        x = picture.contiguous(memory_format=torch.channels_last)
        for resolution in self.network.resolutions[:-1]:
            x = self.network.get_submodule(f"b{resolution}")(x)
        return x

    @torch.no_grad()
    def remember(self, features: torch.Tensor) -> None:
        """Keeps features (B, C, 4, 4) of fakes for micro-batches of the next step."""
        count = min(len(features), len(self.fakes))
        self.fakes[:count] = features[:count].to(self.fakes)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [-1, 1] to (B, 1)."""
        return self.score(self.features(picture))

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, 4, 4) to (B, 1)."""
        count = len(features)
        missing = -count % self.group
        if missing:
            features = torch.cat([features, self.fakes[:missing].detach().to(features.dtype)])
        return self.network.b4(features)[:count]


def build_discriminator(kind: str, size: int, width: int, batch: int = GROUP) -> nn.Module:
    """A discriminator.

    Args:
        kind: "global" (StyleGAN2's, one score), "patch" (PatchGAN; for 256 px a 32x32 map), or "afsa" (the same on
            small patches).
        size: size of the pictures.
        width: "global": channels at the highest resolution times 32 / size of 1024 px; else the first width.
        batch: pictures of a whole batch of one process.
    """
    check_choice("discriminator", kind, DISCRIMINATORS)
    return build_global_discriminator(size, width, batch) if kind == "global" else PatchDiscriminator(width)


def build_global_discriminator(size: int, width: int, batch: int) -> AccumulatedDiscriminator:
    """A discriminator of whole pictures; arguments as in `build_discriminator`."""
    return AccumulatedDiscriminator(size, channel_counts(size, width * 1024, width * 16), batch)
