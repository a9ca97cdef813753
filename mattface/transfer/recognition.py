"""IDATT on recognition features: one person in the place of another (MAttFace eq. 4-10).

The features come from a fixed network, so nothing makes room in them for a second person. The target's maps therefore
get as many empty channels as they have, and F_hat = gamma out(A V_s) + F_t (eq. 5) is taken on the widened maps: `out`
learns what to write beside the target and what to change of it. Crops are aligned, so scores also fall with the
distance of positions in the crop.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from mattface.transfer.idatt import IDATT, LEVELS, position_grid
from mattface.vocabulary import FeaturePyramid, RecognitionFeatures

REDUCTION = 2
"""Of the widened channels: queries, keys and values are as wide as the maps were."""


class RecognitionTransfer(nn.Module):
    """Identity transfer at three levels.

    Args:
        channels: of the coarse, medium and fine maps.
    """

    def __init__(self, channels: tuple[int, int, int] = (64, 128, 256)) -> None:
        super().__init__()
        self.levels = nn.ModuleDict(
            {name: IDATT(2 * c, REDUCTION, canonical=True) for name, c in zip(LEVELS, channels, strict=True)}
        )

    def forward(self, source: RecognitionFeatures, target: RecognitionFeatures) -> RecognitionFeatures:
        """Moves the source's identity into the target's features.

        Args:
            source, target: of `RecognitionBody`.

        Returns:
            Maps of twice the channels; identity and context are the target's.
        """
        swapped = {}
        for name in LEVELS:
            s, t = (getattr(features.pyramid, name).float() for features in (source, target))
            swapped[name], _ = self.levels[name](widen(s), widen(t), (positions(s), positions(t)))
        return RecognitionFeatures(FeaturePyramid(**swapped), target.identity, target.context)

    def begin_beside(self) -> None:
        """Start of a training: gamma 1, and `out` writes the source's own values into the empty channels."""
        for level in cast("list[IDATT]", list(self.levels.values())):
            width = level.value.out_channels
            with torch.no_grad():
                level.gamma.fill_(1.0)
                for layer in (level.query, level.key, level.value, level.out):
                    for parameter in layer.parameters():
                        parameter.zero_()
                level.value.weight[:, :width, 0, 0] = torch.eye(width)
                level.out.weight[width:, :, 0, 0] = torch.eye(width)
                for layer in (level.query, level.key):
                    layer.weight.normal_(std=0.01)


def widen(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, 2 C, H, W), zeros behind."""
    return F.pad(x, (0, 0, 0, 0, 0, x.shape[1]))


def positions(x: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) x and y in the crop, and 1: the whole crop takes part."""
    height, width = x.shape[2:]
    grid = position_grid(height, width, x.device, x.dtype).t().reshape(1, 2, height, width)
    return torch.cat((grid, torch.ones_like(grid[:, :1])), 1).expand(len(x), -1, -1, -1)
