"""alphaface-paper: AlphaFace as the paper describes it (CAII block, section 3.1), where that differs from its code.

Open points. phi(c) is a vector of C values, so its mean and standard deviation can only be taken over those values,
while those of z are taken over space, channel by channel; with that both equations hold as printed. The paper gives no
sizes: encoder and channel counts are those of the public code. Its decoder is of transposed convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mattface.realtime.methods.aligned import Sizes, builder_of, check_choice
from mattface.realtime.methods.blocks import (
    DeconvDecoder,
    ImageEncoder,
    SwapNetwork,
    instance_affine,
    instance_statistics,
    reflect_conv,
)

NAME = "alphaface-paper"
EPSILON = 1e-5
INJECTIONS = ("caii", "one-directional")


@dataclass(frozen=True)
class Config(Sizes):
    """Every size of the network.

    Attributes:
        injection: "caii", or "one-directional" (table 2: without eq. 2).
        batch_norm: whether every block begins with batch normalisation.
    """

    injection: str = "caii"
    batch_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("injection", self.injection, INJECTIONS)


class CAII(nn.Module):
    """Cross-adaptive identity injection.

    Args:
        channels: C.
        code: D.
        crossed: False leaves eq. 2 out (unidirectional injection).
        batch_norm: False leaves the batch normalisation out.
    """

    def __init__(self, channels: int, code: int, crossed: bool, batch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if batch_norm else None
        self.project = nn.Linear(code, channels)
        self.conv = reflect_conv(channels, channels, 3)
        self.conv_out = reflect_conv(channels, channels, 3)
        self.crossed = crossed

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        z_t = x if self.norm is None else self.norm(x)
        phi = self.project(code).float()  # (B, C)
        std, mean = torch.std_mean(phi, 1, correction=0, keepdim=True)
        z = F.relu(self.conv(instance_affine(z_t, std, mean, EPSILON)))  # eq. 1
        z_s = phi
        if self.crossed:
            centre, variance = instance_statistics(z_t)
            adapted = (phi - mean) / (std + EPSILON) * torch.sqrt(variance + EPSILON)
            z_s = adapted + centre + phi  # eq. 2
        z_s = z_s.to(x.dtype)[..., None, None]
        return x + self.conv_out(torch.addcmul(z_s, z, z_s))  # z * z_s + z_s


def build_network(config: Config) -> SwapNetwork:
    """Builds the network with fresh weights."""
    channels, crossed = config.widths[-1], config.injection == "caii"
    blocks = [CAII(channels, config.code, crossed, config.batch_norm) for _ in range(config.blocks)]
    return SwapNetwork(ImageEncoder(config.widths), blocks, DeconvDecoder(channels, config.decoder), config.code)


build = builder_of(NAME, Config, build_network)
