"""alphaface-small: AlphaFace's injection in a small network with a matte of its own (256 px, real time on a CPU).

Pixels are folded into channels, and the blocks work at an eighth of the side. No convolution works at the picture's
full side, where a network of this size would spend most of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mattface.errors import UsageError
from mattface.realtime.methods.aligned import AlignedMethod, Sizes, build_trained, check_choice
from mattface.realtime.methods.alphaface import INJECTIONS, InjectionBlock
from mattface.realtime.methods.blocks import SLOPE, SwapNetwork

NAME, WEIGHTS = "alphaface-small", "alphaface-demo"
EARLIER = ("alphaface",)
"""Checkpoints were first written under this name, the bundled one among them."""
CHANNELS = 4
"""Of the result: red, green, blue, matte."""
PORTRAIT = 16
"""Side of the coarse map drawn from a code."""


@dataclass(frozen=True)
class Config(Sizes):
    """Every size of the network.

    Attributes:
        injection: see `alphaface.Config`.
        fold: side of the squares of pixels that become channels.
        portrait: channels of a coarse map that is drawn from the code and added before the blocks; 0 draws none.
    """

    widths: tuple[int, ...] = (64, 160)
    blocks: int = 4
    decoder: tuple[int, ...] = (96,)
    code: int = 128
    identity: str = "resnet"
    identity_crop: str = "own"
    template: str = "ffhq"
    injection: str = "caii"
    fold: int = 4
    portrait: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("injection", self.injection, INJECTIONS)
        if self.fold < 1 or self.size % (2 * self.fold) or len(self.widths) != 2:
            raise UsageError(
                f"size must be divisible by 2 fold, and widths must be two numbers; got size {self.size}, fold "
                f"{self.fold}, widths {self.widths}."
            )


class FoldedEncoder(nn.Module):
    """Picture -> fine features at 1 / fold of its side, and coarse ones at half of that.

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
    """Coarse features with the identity in them, and the target's fine ones -> picture and matte.

    The fine ones join before a nonlinear layer, which can close the way for them: joined at the end, they were copied,
    and the identity was never looked at.

    Args:
        fold: see `FoldedEncoder`.
        inputs, fine: channels of the coarse and of the fine features.
        widths: channels of the convolutions after the coarse map is doubled bilinearly.
    """

    def __init__(self, fold: int, inputs: int, fine: int, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = zip((inputs + fine, *widths[:-1]), widths, strict=True)
        self.fold = fold
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in sizes])
        self.unfold = nn.Conv2d(widths[-1], CHANNELS * fold**2, 3, padding=1)

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) and (B, fine, 2 H, 2 W) to (B, 4, 2 fold H, 2 fold W) float32 in [-1, 1]."""
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), fine], 1)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
        x = F.pixel_shuffle(self.unfold(x), self.fold)
        return torch.tanh(x.float())  # half precision would round a confident matte to certainty, and stop learning


class Portrait(nn.Module):
    """Identity code -> a coarse map of its face, as a linear function: what a short training learns first.

    Args:
        code: D.
        channels: channels of the coarse map.
        outputs: C, channels of the features it is added to.
    """

    def __init__(self, code: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.channels = channels
        self.draw = nn.Linear(code, channels * PORTRAIT**2)
        self.spread = nn.Conv2d(channels, outputs, 1)

    def forward(self, code: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """(B, D) to (B, C, *size)."""
        drawn = self.draw(code).unflatten(1, (self.channels, PORTRAIT, PORTRAIT))
        return self.spread(F.interpolate(drawn, tuple(size), mode="bilinear", align_corners=False))


class FoldedNetwork(SwapNetwork):
    """A `SwapNetwork` whose result has a fourth channel: the matte, from -1 where the target stays to 1.

    Args:
        encoder, inject, decoder, code: see `SwapNetwork`.
        portrait: added to the encoder's features; None adds nothing.
    """

    def __init__(
        self, encoder: nn.Module, inject: Sequence[nn.Module], decoder: nn.Module, code: int, portrait: Portrait | None
    ) -> None:
        super().__init__(encoder, inject, decoder, code)
        self.portrait = portrait

    def forward(self, target: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Swaps aligned crops.

        Args:
            target: (B, 3, S, S) RGB in [-1, 1].
            code: (B, D) identity, unit length.

        Returns:
            (B, 4, S, S) in [-1, 1]: RGB, and the matte.
        """
        code = code * self.code**0.5  # components of order one are sooner learnt to be used
        fine, features = self.encoder(target)
        if self.portrait is not None:
            features = features + self.portrait(code, features.shape[-2:])
        for block in self.inject:
            features = block(features, code)
        out: torch.Tensor = self.decoder(features, fine)
        return out


def build_network(config: Config) -> FoldedNetwork:
    """Builds the network with fresh weights."""
    channels, crossed = config.widths[-1], config.injection == "caii"
    blocks = [InjectionBlock(channels, config.code, crossed) for _ in range(config.blocks)]
    encoder = FoldedEncoder(config.fold, config.widths)
    decoder = FoldedDecoder(config.fold, channels, config.widths[0], config.decoder)
    portrait = Portrait(config.code, config.portrait, channels) if config.portrait else None
    return FoldedNetwork(encoder, blocks, decoder, config.code, portrait)


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> AlignedMethod:
    """Builds the method.

    Args:
        weights: a safetensors file, or None for the bundled alphaface-demo.
        device, dtype: where and in which dtype the network runs.
        commercial: see the contract.
        options: fields of `Config`; they must be those of the checkpoint.

    Raises:
        UsageError: an unknown option.
        WeightsError: weights of another method or variant, or the identity part is not here.
    """
    return build_trained(NAME, Config, build_network, weights or WEIGHTS, device, dtype, commercial, options, EARLIER)
