"""facechanger: FaceChanger's progressive face encoder with identity injection modules (section III-B, fig. 3).

Open points. The paper gives no sizes: encoder and channel counts are those of the public AlphaFace code by the same
group; four modules of three convolutions cost what its six blocks of two do, as the published times suggest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mattface.realtime.methods.aligned import Sizes, builder_of, check_choice
from mattface.realtime.methods.blocks import DeconvDecoder, ImageEncoder, SwapNetwork, instance_affine, reflect_conv

NAME = "facechanger"
EPSILON = 1e-5
NORMS = ("bn+in", "bn", "in", "none")


@dataclass(frozen=True)
class Config(Sizes):
    """Every size of the network.

    Attributes:
        norm: normalisation before the injection: "bn+in" (the paper), or "bn", "in", "none" (its table 1).
    """

    blocks: int = 4
    norm: str = "bn+in"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("norm", self.norm, NORMS)


class IdentityInjection(nn.Module):
    """Normalise, multiply by the code and add it, three convolutions, add the input.

    Args:
        channels: C.
        code: D.
        norm: see `Config`.
    """

    def __init__(self, channels: int, code: int, norm: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if "bn" in norm else None
        self.instance = "in" in norm
        self.project = nn.Linear(code, channels)
        self.convs = nn.ModuleList([reflect_conv(channels, channels, 3) for _ in range(3)])

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        z_in = x if self.norm is None else self.norm(x)
        c_s = self.project(code)  # (B, C)
        if self.instance:
            z = instance_affine(z_in, c_s, c_s, EPSILON)  # IN and eq. 1 as one: IN(z) * c + c
        else:
            z = torch.addcmul(c_s[..., None, None], z_in, c_s[..., None, None])  # eq. 1
        first, second, third = self.convs
        return x + third(F.relu(second(F.relu(first(z)))))


def build_network(config: Config) -> SwapNetwork:
    """Builds the network with fresh weights."""
    channels = config.widths[-1]
    blocks = [IdentityInjection(channels, config.code, config.norm) for _ in range(config.blocks)]
    return SwapNetwork(ImageEncoder(config.widths), blocks, DeconvDecoder(channels, config.decoder), config.code)


build = builder_of(NAME, Config, build_network)
