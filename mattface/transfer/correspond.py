"""Reads IDATT's attention as a flow and refines it (our addition to MAttFace, option `detail`).

The expected source coordinates of the attention are a dense correspondence at the resolution of the coarse features.
A small decoder refines it to four times that resolution while looking at the target and at the source as warped so far;
where canonical coordinates are given, their difference says how far the flow is off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mattface.layers import resize, warp, zero_init
from mattface.vocabulary import Correspondence, FeaturePyramid


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with leaky ReLU; adds its input when the widths agree."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, padding=1)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.residual = inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) -> (B, outside, H, W)."""
        y = self.second(F.leaky_relu(self.first(x), 0.2))
        return F.leaky_relu(x + y if self.residual else y, 0.2)


class Correspond(nn.Module):
    """Flow, confidence and matte from the features of both faces and IDATT's flows.

    Args:
        channels: C of the coarse features.
        flows: number of IDATT levels that give a flow.
        widths: channels at 1x, 2x and 4x the coarse resolution.
        canonical: whether canonical coordinates (positions on the mean face) are given.
    """

    def __init__(
        self, channels: int = 128, flows: int = 3, widths: tuple[int, int, int] = (128, 64, 48), canonical: bool = False
    ) -> None:
        super().__init__()
        w1, w2, w4 = widths
        more = 6 if canonical else 0  # how far off on the mean face, where the target lies, both covers
        guide = 7 + more  # target RGB, warped source RGB, inner-face mask
        self.enter = ConvBlock(3 * channels + 2 * flows + 1 + more, w1)
        self.trunk = nn.Sequential(ConvBlock(w1, w1), ConvBlock(w1, w1))
        self.middle = ConvBlock(w1 + guide, w2)
        self.outer = ConvBlock(w2 + guide, w4)
        self.shift_1, self.shift_2, self.shift_4 = (nn.Conv2d(w, 2, 3, padding=1) for w in widths)
        self.decide = nn.Conv2d(w4, 2, 3, padding=1)
        for layer in (self.shift_1, self.shift_2, self.shift_4, self.decide):
            zero_init(layer)  # begins as the attention's own flow and even odds

    def forward(
        self,
        source: FeaturePyramid,
        target: FeaturePyramid,
        swapped: FeaturePyramid,
        flows: dict[str, torch.Tensor],
        source_image: torch.Tensor,
        target_image: torch.Tensor,
        mask: torch.Tensor,
        coordinates: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Correspondence:
        """Refines the attention's flow.

        Args:
            source, target, swapped: feature pyramids; only the coarse level is read.
            flows: IDATT's flow per level, (B, 2, H_l, W_l); the finest map present is where refinement starts.
            source_image, target_image: (B, 3, S, S) crops in [-1, 1].
            mask: (B, 1, S, S) inner face of the target in [0, 1].
            coordinates: (B, 3, S, S) of `mattface.mesh.shape.canonical_coordinates` of source and target, or None.
        """
        size = target.coarse.shape[-1]
        maps = [resize(f, size) for f in flows.values()]
        flow = maps[0]  # levels are ordered coarse to fine; the coarse one has the highest resolution
        seen = warp(source.coarse, flow)
        off = canonical_error(coordinates, flow)
        features = torch.cat([seen, target.coarse, swapped.coarse], 1)
        x = self.trunk(self.enter(concat(features, [*maps, resize(mask, size), *off])))
        flow = flow + self.shift_1(x).float()
        for block, shift, scale in ((self.middle, self.shift_2, 2), (self.outer, self.shift_4, 4)):
            side = size * scale
            flow = resize(flow, side)
            guide = [resize(target_image, side), warp(resize(source_image, side), flow), resize(mask, side)]
            x = block(concat(resize(x, side), [*guide, *canonical_error(coordinates, flow)]))
            flow = flow + shift(x).float()
        confidence, matte = self.decide(x).float().chunk(2, dim=1)
        prior = torch.logit(resize(mask, size * 4).float().clamp(0.01, 0.99))
        return Correspondence(flow, torch.sigmoid(confidence), matte + prior)


def concat(x: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Features with further maps behind them, in the features' type and channels-last."""
    more = [m.to(x.dtype, memory_format=torch.channels_last) for m in maps]
    return torch.cat([x.contiguous(memory_format=torch.channels_last), *more], 1)


def canonical_error(coordinates: tuple[torch.Tensor, torch.Tensor] | None, flow: torch.Tensor) -> list[torch.Tensor]:
    """What a flow gets wrong on the mean face (B, 2, h, w), where the target lies there, both covers (B, 1, h, w)."""
    if coordinates is None:
        return []
    size = flow.shape[-1]
    target, seen = resize(coordinates[1], size), warp(resize(coordinates[0], size), flow)
    return [target[:, :2] - seen[:, :2], target, seen[:, 2:]]
