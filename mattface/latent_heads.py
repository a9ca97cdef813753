"""FeaturePyramid -> WPlus: pSp's laterals and one head per style (Richardson et al. 2021), `lat` in MAttFace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mattface.errors import UsageError
from mattface.layers import EqualLinear
from mattface.vocabulary import FeaturePyramid, WPlus

LEVELS = ("coarse", "medium", "fine")
OFFICIAL_LEVELS = ("fine",) * 3 + ("medium",) * 4 + ("coarse",) * 11
"""Which level each of the 18 heads reads."""


class StyleHead(nn.Module):
    """Halving convolutions down to one pixel, then a linear layer.

    Args:
        inputs: channels of the map.
        width: channels of the convolutions.
        w_dim: size of the style.
        size: side of the map, a power of two.
    """

    def __init__(self, inputs: int, width: int, w_dim: int, size: int) -> None:
        super().__init__()
        depth = size.bit_length() - 1
        self.convs = nn.ModuleList(nn.Conv2d(width if i else inputs, width, 3, 2, 1) for i in range(depth))
        self.linear = EqualLinear(width, w_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, size, size) to (B, w_dim)."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.01)
        return self.linear(x.mean((2, 3)))


class LatentHeads(nn.Module):
    """Top-down pyramid with 1x1 laterals and one head per style; the result is an offset from the average style.

    Args:
        inputs: channels of the coarse, medium and fine maps.
        sizes: sides of the coarse, medium and fine maps, powers of two.
        width: channels of the merged pyramid.
        head_width: channels of the heads' convolutions; None takes `width`.
        w_dim: size of a style.
        levels: level each head reads ("coarse", "medium" or "fine"); their number is the number of styles.
    """

    w_avg: torch.Tensor

    def __init__(
        self,
        inputs: Sequence[int] = (128, 256, 512),
        sizes: Sequence[int] = (64, 32, 16),
        width: int = 512,
        head_width: int | None = None,
        w_dim: int = 512,
        levels: Sequence[str] = OFFICIAL_LEVELS,
    ) -> None:
        super().__init__()
        if not levels or set(levels) - set(LEVELS):
            raise UsageError(f"levels must be a list of {', '.join(LEVELS)}; got {list(levels)}.")
        if len(inputs) != 3 or len(sizes) != 3 or any(s < 2 or s & (s - 1) for s in sizes):
            raise UsageError(f"inputs and sizes need three entries, sizes powers of two; got {inputs} and {sizes}.")
        coarse, medium, fine = inputs
        self.levels, self.w_dim = tuple(levels), w_dim
        self.lateral_coarse = nn.Conv2d(coarse, width, 1)
        self.lateral_medium = nn.Conv2d(medium, width, 1)
        self.lateral_fine = nn.Identity() if fine == width else nn.Conv2d(fine, width, 1)
        side = dict(zip(LEVELS, sizes, strict=True))
        self.heads = nn.ModuleList(StyleHead(width, head_width or width, w_dim, side[level]) for level in levels)
        self.register_buffer("w_avg", torch.zeros(len(levels), w_dim))

    def forward(self, pyramid: FeaturePyramid) -> WPlus:
        """FeaturePyramid to (B, L, w_dim), the average style `w_avg` added."""
        fine = self.lateral_fine(pyramid.fine)
        medium = _enlarge(fine, pyramid.medium) + self.lateral_medium(pyramid.medium)
        coarse = _enlarge(medium, pyramid.coarse) + self.lateral_coarse(pyramid.coarse)
        maps = {"coarse": coarse, "medium": medium, "fine": fine}
        styles = [head(maps[level]) for head, level in zip(self.heads, self.levels, strict=True)]
        return torch.stack(styles, 1) + self.w_avg


def _enlarge(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Bilinear with corners on corners, as pSp was trained."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
