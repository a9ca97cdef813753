"""Two-stage post-processing: blends the generator's features into the target's under a soft mask, and decodes.

MAttFace section 3.2. The side image is thrown away; its feature maps are kept. The paper gives no layer sizes: encoder
and decoder take the generator's channel counts, the mask of every level is the inner face refined by a small
convolution, the decoder starts at the lowest resolution and adds each blended level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mattface.layers import resize, zero_init
from mattface.vocabulary import GeneratorFeatures

State = tuple[torch.Tensor, torch.Tensor]
"""Features and picture of a decoder level."""
View = Callable[[torch.Tensor], torch.Tensor]
"""Whole maps to the part that is made."""
Extra = Callable[[int, View], torch.Tensor]
"""(Resolution, part) -> further features (B, C + 1, R, R) of it that join the generator's."""


@dataclass(frozen=True)
class Blended:
    """What blending and decoding leave.

    Attributes:
        decoded: (B, 3, S, S) float32 the decoder's picture.
        logits: resolution -> (B, 1, R, R) logit of the refined mask.
        pictures: resolution -> (B, 3, R, R) the decoder's picture so far.
    """

    decoded: torch.Tensor
    logits: dict[int, torch.Tensor]
    pictures: dict[int, torch.Tensor]

    @property
    def size(self) -> int:
        """The highest resolution that was made."""
        return max(self.logits)


class SideEncoder(nn.Module):
    """Features of a crop with the shapes of the generator's blocks, one small stack per resolution.

    Every level reads the picture at its own resolution, so levels can be added without disturbing trained ones.

    Args:
        channels: resolution -> channels.
    """

    def __init__(self, channels: dict[int, int]) -> None:
        super().__init__()
        self.resolutions = sorted(channels)
        self.levels = nn.ModuleDict(
            {
                str(r): nn.Sequential(
                    nn.Conv2d(3, c, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(0.2)
                )
                for r, c in channels.items()
            }
        )

    def forward(self, image: torch.Tensor, upto: int | None = None) -> dict[int, torch.Tensor]:
        """(B, 3, S, S) in [-1, 1] -> resolution -> (B, C, R, R), for R <= upto."""
        return {r: self.at(r, image) for r in self.resolutions if upto is None or r <= upto}

    def at(self, r: int, image: torch.Tensor, side: int | None = None) -> torch.Tensor:
        """Features of one level, (B, C, side, side); side r for a whole crop."""
        features: torch.Tensor = self.levels[str(r)](resize(image, side or r))
        return features


class MaskBlend(nn.Module):
    """Blends one level: side features inside a refined soft mask, target features outside.

    Args:
        channels: C of the level.
        extra: whether further features join the side's.
    """

    def __init__(self, channels: int, extra: bool) -> None:
        super().__init__()
        self.refine = zero_init(nn.Conv2d(1 + 2 * channels, 1, 3, padding=1))
        self.from_source = nn.Conv2d(channels + 1, channels, 1) if extra else None

    def forward(
        self, side: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, extra: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blends (B, C, R, R) side into target under mask (B, 1, R, R).

        Args:
            extra: (B, C + 1, R, R) or None.

        Returns:
            Blended features and the logit of the refined mask.
        """
        if self.from_source is not None and extra is not None:
            side = side + self.from_source(extra)
        prior = torch.logit(mask.float().clamp(0.01, 0.99))
        maps = [side, target, mask.to(side.dtype)]
        x = torch.cat([m.contiguous(memory_format=torch.channels_last) for m in maps], 1)
        logit = self.refine(x).float() + prior
        soft = torch.sigmoid(logit).to(side.dtype)
        return soft * side + (1 - soft) * target, logit


class DecoderLevel(nn.Module):
    """Up-samples what came from below, adds the blended level, and draws its share of the picture."""

    def __init__(self, below: int | None, channels: int) -> None:
        super().__init__()
        self.enter = None if below is None else nn.Conv2d(below, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.to_rgb = zero_init(nn.Conv2d(channels, 3, 1))

    def forward(self, below: State | None, level: torch.Tensor) -> State:
        """(features, rgb) of the level below and (B, C, R, R) -> (features, rgb) of this one."""
        x, size = level, level.shape[-1]
        if self.enter is not None and below is not None:
            x = x + self.enter(resize(below[0], size))
        x = F.leaky_relu(self.mix(F.leaky_relu(x, 0.2)), 0.2)
        rgb = self.to_rgb(x)
        return x, rgb if below is None else rgb + resize(below[1], size)


class TwoStageBlend(nn.Module):
    """Encoder, mask blending per resolution, decoder.

    Args:
        channels: resolution -> channels of the generator's blocks; the highest resolution is the output's.
        extra: whether further features join the generator's (`mattface.detail`); the paper has none.
    """

    def __init__(self, channels: dict[int, int], extra: bool = True) -> None:
        super().__init__()
        resolutions = sorted(channels)
        self.encoder = SideEncoder(channels)
        self.blends = nn.ModuleDict({str(r): MaskBlend(channels[r], extra) for r in resolutions})
        below = [None, *(channels[r] for r in resolutions[:-1])]
        self.decoder = nn.ModuleDict(
            {str(r): DecoderLevel(b, channels[r]) for r, b in zip(resolutions, below, strict=True)}
        )

    def forward(
        self,
        side: GeneratorFeatures,
        target: torch.Tensor,
        mask: torch.Tensor,
        extra: Extra | None = None,
        upto: int | None = None,
    ) -> Blended:
        """Blends and decodes.

        Args:
            side: the generator's feature maps.
            target: (B, 3, S, S) crop in [-1, 1].
            mask: (B, 1, S, S) inner face of the target in [0, 1].
            extra: further features; None for none.
            upto: highest resolution to compute; None for all.
        """
        state: State | None = None
        logits, pictures = {}, {}
        for r in self.resolutions(upto):
            more = None if extra is None else extra(r, whole)
            state, logits[r] = self.level(r, state, side.features[r], self.encoder.at(r, target), resize(mask, r), more)
            pictures[r] = state[1]
        return Blended(pictures[max(pictures)].float(), logits, pictures)

    def resolutions(self, upto: int | None = None) -> list[int]:
        """Those that are computed, ascending.

        Raises:
            ValueError: there is none up to `upto`.
        """
        found = [r for r in self.encoder.resolutions if upto is None or r <= upto]
        if not found:
            raise ValueError(f"upto must be at least {self.encoder.resolutions[0]}; got {upto}.")
        return found

    def level(
        self,
        r: int,
        below: State | None,
        side: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        extra: torch.Tensor | None,
    ) -> tuple[State, torch.Tensor]:
        """One resolution, of maps that are whole or parts alike: the decoder's state, and the logit of the mask."""
        blended, logit = self.blends[str(r)](side, target, mask, extra)
        return self.decoder[str(r)](below, blended), logit

    @staticmethod
    def matte(logit: torch.Tensor, floor: float) -> torch.Tensor:
        """Logit of a mask -> matte in [0, 1], exactly 0 up to `floor` and 1 from 1 - `floor`: beside the face pixels
        are the target's own.
        """
        return ((torch.sigmoid(logit) - floor) / (1 - 2 * floor)).clamp(0, 1)


def whole(x: torch.Tensor) -> torch.Tensor:
    """The view of everything."""
    return x
