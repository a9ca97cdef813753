"""RecognitionFeatures -> WPlus: the heads of a pSp encoder (`lat` in MAttFace eq. 2) as one low-rank linear map.

Codes of drawn people are known exactly, so the map is found by ridge regression instead of descent
(`mattface.training.drawn`). Every style reads all levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mattface.vocabulary import RecognitionFeatures, WPlus

SIDES = (6, 4, 3)
"""To which the three maps are averaged before they are read."""


def flatten_features(features: RecognitionFeatures) -> torch.Tensor:
    """(B, K) everything the heads read: averaged maps coarse to fine, identity, context."""
    levels = zip(features.pyramid.levels(), SIDES, strict=True)
    maps = [F.adaptive_avg_pool2d(m.float(), side).flatten(1) for m, side in levels]
    return torch.cat([*maps, features.identity.float(), features.context.float()], 1)


class CodeHeads(nn.Module):
    """Standardises, projects to `rank` numbers, and gives every style's offset from the average.

    Args:
        inputs: K of `flatten_features`.
        rank: numbers between.
        num_styles, w_dim: L and D.
    """

    mean: torch.Tensor
    std: torch.Tensor
    w_avg: torch.Tensor

    def __init__(self, inputs: int = 11136, rank: int = 256, num_styles: int = 18, w_dim: int = 512) -> None:
        super().__init__()
        self.shape = (num_styles, w_dim)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.project = nn.Linear(inputs, rank, bias=False)
        self.expand = nn.Linear(rank, num_styles * w_dim)

    def forward(self, features: RecognitionFeatures) -> WPlus:
        """RecognitionFeatures to (B, L, D)."""
        return self.from_vector(flatten_features(features))

    def from_vector(self, values: torch.Tensor) -> WPlus:
        """(B, K) of `flatten_features` to (B, L, D)."""
        return self.expand(self.project(self.standardise(values))).unflatten(1, self.shape) + self.w_avg

    def standardise(self, values: torch.Tensor) -> torch.Tensor:
        """(B, K) with mean 0 and deviation 1 over people."""
        return (values - self.mean) / self.std
