"""The small networks of the family: pixels folded into channels, a trunk at an eighth of the side, and their own matte.

No convolution works at the picture's full side, where a network of this size would spend most of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mattface.realtime.methods.blocks import SLOPE, SwapNetwork

CHANNELS = 4
"""Of the result: red, green, blue, matte."""


class FoldedEncoder(nn.Module):
    """Picture -> fine features at 1 / fold of its side and coarse ones at half of that.

    Args:
        fold: side of the squares of pixels that become channels.
        widths: channels of the fine and of the coarse features.
    """

    def __init__(self, fold: int, widths: Sequence[int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.fold = fold
        self.stem = nn.Conv2d(3 * fold**2, fine, 3, padding=1)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, S, S) to (B, widths[0], S / fold, S / fold) and (B, widths[1], S / 2 fold, S / 2 fold)."""
        fine = F.leaky_relu(self.stem(F.pixel_unshuffle(x, self.fold)), SLOPE)
        return fine, F.leaky_relu(self.down(fine), SLOPE)


class FoldedDecoder(nn.Module):
    """Coarse features, and the target's fine ones -> picture and matte.

    Args:
        fold: see `FoldedEncoder`.
        inputs: channels of the coarse features.
        fine: channels of the fine ones.
        widths: channels of the convolutions after the map is doubled bilinearly.
    """

    def __init__(self, fold: int, inputs: int, fine: int, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = zip((inputs, *widths[:-1]), widths, strict=True)
        self.fold = fold
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in sizes])
        self.unfold = nn.Conv2d(widths[-1] + fine, CHANNELS * fold**2, 3, padding=1)

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) and (B, fine, 2 H, 2 W) to (B, 4, 2 fold H, 2 fold W) float32 in [-1, 1]."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
        x = F.pixel_shuffle(self.unfold(torch.cat([x, fine], 1)), self.fold)
        return torch.tanh(x.float())  # half precision would round a confident matte to certainty, and stop learning


class FoldedNetwork(SwapNetwork):
    """A `SwapNetwork` whose decoder sees the target's fine features, and whose fourth channel is a matte in [-1, 1]."""

    encoder: FoldedEncoder
    decoder: FoldedDecoder

    def forward(self, target: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Swaps aligned crops.

        Args:
            target: (B, 3, S, S) RGB in [-1, 1].
            code: (B, D) identity, unit length.

        Returns:
            (B, 4, S, S) in [-1, 1]: RGB, and the matte, -1 where the target stays.
        """
        fine, features = self.encoder(target)
        code = code * self.code**0.5  # components of order one, which a short training learns to use sooner
        for block in self.inject:
            features = block(features, code)
        return self.decoder(features, fine)
