"""Pixels -> realness score: StyleGAN2's residual discriminator (Karras et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.generate.synthesis import channel_counts
from mattface.layers import EqualConv2d, EqualLinear


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second halving, beside a halving 1x1 shortcut.

    Args:
        inputs: channels in.
        outputs: channels out.
        clamp: limit of activations; None for no limit.
        from_rgb: True when the block reads pixels.
    """

    def __init__(self, inputs: int, outputs: int, clamp: float | None, from_rgb: bool) -> None:
        super().__init__()
        self.fromrgb = EqualConv2d(3, inputs, 1, act="lrelu", clamp=clamp) if from_rgb else None
        self.conv0 = EqualConv2d(inputs, inputs, 3, act="lrelu", clamp=clamp)
        self.conv1 = EqualConv2d(inputs, outputs, 3, down=2, act="lrelu", clamp=clamp)
        self.skip = EqualConv2d(inputs, outputs, 1, down=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs or 3, R, R) to (B, outputs, R / 2, R / 2)."""
        x = x if self.fromrgb is None else self.fromrgb(x)
        return self.conv1(self.conv0(x), gain=math.sqrt(0.5)) + self.skip(x, gain=math.sqrt(0.5))


def batch_deviation(x: torch.Tensor, group: int) -> torch.Tensor:
    """Adds a channel with the mean standard deviation over groups of samples (Karras et al. 2018, section 3).

    Args:
        x: (B, C, H, W).
        group: samples per group; a smaller batch is one group.

    Returns:
        (B, C + 1, H, W).
    """
    batch, group = x.shape[0], min(group, x.shape[0])
    if batch % group:
        raise UsageError(f"the batch must be a multiple of the group of {group}; got {batch}.")
    y = x.reshape(group, batch // group, *x.shape[1:])
    std = (y.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (B / group,)
    channel = std.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat((x, channel), 1)


class Epilogue(nn.Module):
    """The last 4x4 map to one score.

    Args:
        channels: channels of the map.
        clamp: limit of activations; None for no limit.
        group: see `batch_deviation`.
    """

    def __init__(self, channels: int, clamp: float | None, group: int) -> None:
        super().__init__()
        self.group = group
        self.conv = EqualConv2d(channels + 1, channels, 3, act="lrelu", clamp=clamp)
        self.fc = EqualLinear(channels * 16, channels, act="lrelu")
        self.out = EqualLinear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 4, 4) to (B, 1)."""
        x = self.conv(batch_deviation(x, self.group))
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """StyleGAN2's discriminator.

    Args:
        resolution: side of the image, a power of two of at least 8.
        channel_base: channels at resolution R are channel_base / R.
        channel_max: at most this many.
        clamp: limit of activations; None for no limit.
        channels: resolution -> channels, instead of the two numbers above.
        group: samples per group of the batch deviation.
    """

    def __init__(
        self,
        resolution: int = 1024,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = 256.0,
        channels: Mapping[int, int] | None = None,
        group: int = 4,
    ) -> None:
        super().__init__()
        counts = channel_counts(resolution, channel_base, channel_max) if channels is None else dict(channels)
        self.resolutions = tuple(sorted(counts, reverse=True))
        self.resolution = resolution
        for r in self.resolutions[:-1]:
            self.add_module(f"b{r}", DiscriminatorBlock(counts[r], counts[r // 2], clamp, r == resolution))
        self.b4 = Epilogue(counts[4], clamp, group)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, R, R) RGB in [-1, 1] to (B, 1) scores, larger for real pictures."""
        if image.shape[1:] != (3, self.resolution, self.resolution):
            raise UsageError(
                f"Discriminator expects (B, 3, {self.resolution}, {self.resolution}); got {tuple(image.shape)}."
            )
        x = image.contiguous(memory_format=torch.channels_last)
        for r in self.resolutions:
            x = self.get_submodule(f"b{r}")(x)
        return x
