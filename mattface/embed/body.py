"""FFHQ crop -> RecognitionFeatures: the feature body of a pSp encoder, `feat` in MAttFace eq. 1, that nobody trains.

pSp's own body starts as a face recognition network and is trained further; here the recognition network stays as it is,
and maps of three of its stages are the pyramid. It sees the face itself; a second, coarse pass over the whole crop adds
of pose, hair and background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mattface.embed.resnet import SIZE as CHIP
from mattface.embed.resnet import IdentityResNet
from mattface.errors import UsageError
from mattface.vocabulary import FeaturePyramid, RecognitionFeatures

SIZE = 256
"""Side of the crop."""
FACE = (53, 70)
"""Left and top of the chip in it: where FFHQ's alignment puts the face."""
STAGES = (4, 9, 13)
"""Blocks whose maps are coarse, medium and fine."""
CONTEXT = (6, 4)
"""Sides to which the coarse and medium maps of the whole crop are averaged."""


class RecognitionBody(nn.Module):
    """Fixed recognition ResNet, read at three stages.

    Args:
        network: with its weights.
    """

    CHANNELS = (64, 128, 256)
    """Of coarse (17 x 17), medium (8 x 8) and fine (2 x 2)."""

    def __init__(self, network: IdentityResNet) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> RecognitionFeatures:
        """Reads a face.

        Args:
            image: (B, 3, 256, 256) RGB in [-1, 1], FFHQ crop.

        Returns:
            pyramid of (B, 64, 17, 17), (B, 128, 8, 8) and (B, 256, 2, 2); identity (B, 128); context (B, 4352).

        Raises:
            UsageError: another shape.
        """
        if image.ndim != 4 or image.shape[1:] != (3, SIZE, SIZE):
            raise UsageError(f"RecognitionBody expects (B, 3, {SIZE}, {SIZE}); got {tuple(image.shape)}.")
        left, top = FACE
        face, identity = self._stages(image[:, :, top : top + CHIP, left : left + CHIP])
        whole, _ = self._stages(F.interpolate(image, (CHIP, CHIP), mode="area"))
        context = [F.adaptive_avg_pool2d(m, side).flatten(1) for m, side in zip(whole, CONTEXT, strict=False)]
        return RecognitionFeatures(FeaturePyramid(*face), identity, torch.cat(context, 1))

    def _stages(self, chips: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        x = self.network.begin(chips.contiguous(memory_format=torch.channels_last))
        maps = []
        for i, block in enumerate(self.network.blocks):
            x = block(x)
            if i in STAGES:
                maps.append(x)
        return maps, self.network.head(x.mean((2, 3)))
