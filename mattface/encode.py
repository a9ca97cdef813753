"""Crop -> FeaturePyramid: the feature body of pSp (Richardson et al. 2021), `feat` in MAttFace eq. 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.layers import IRSETrunk
from mattface.vocabulary import FeaturePyramid


class Encoder(nn.Module):
    """IR-SE body whose last three stages are the pyramid.

    The defaults are the official size (units 6, 20 and 23 counted from zero are the last of stages 2, 3 and 4).

    Args:
        size: side of the input; the pyramid has size / 4, / 8 and / 16.
        stem: channels after the first convolution.
        widths: channels of the four stages; the last three are the pyramid's.
        units: IR-SE units of the four stages.
        reduction: of the squeezes.
        inputs: channels of the input; beyond the picture's three they hold its geometry.
    """

    def __init__(
        self,
        size: int = 256,
        stem: int = 64,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        reduction: int = 16,
        inputs: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or size % 16:
            raise UsageError(f"Encoder needs four stage widths and a size divisible by 16; got {widths} and {size}.")
        self.size, self.inputs = size, inputs
        self.trunk = IRSETrunk(stem, widths, units, reduction, inputs)

    def forward(self, image: torch.Tensor) -> FeaturePyramid:
        """Encodes a face.

        Args:
            image: (B, inputs, size, size) RGB in [-1, 1], FFHQ crop; then further channels.

        Returns:
            coarse (B, widths[1], size / 4, size / 4), medium (B, widths[2], size / 8, ...), fine (B, widths[3],
            size / 16, ...).
        """
        if image.shape[1:] != (self.inputs, self.size, self.size):
            raise UsageError(f"Encoder expects (B, {self.inputs}, {self.size}, {self.size}); got {tuple(image.shape)}.")
        _, coarse, medium, fine = self.trunk(image)
        return FeaturePyramid(coarse, medium, fine)
