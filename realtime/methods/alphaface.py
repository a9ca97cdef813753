"""alphaface: AlphaFace as its public code computes it, so that its public checkpoint loads (256 px, ArcFace framing).

Where code and paper differ the code is followed here: no batch normalisation, separate scale and shift, instance
normalisation after the convolution, bilinear doubling. `alphaface-paper` follows the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mattface import perception
from mattface import weights as registry
from mattface.embed import Embedder
from mattface.embed.arcface import iresnet50
from mattface.errors import UsageError, WeightsError
from mattface.methods.contract import CropSpec
from mattface.realtime.methods.aligned import AlignedMethod, IdentityCoder, Sizes, build_trained, check_choice
from mattface.realtime.methods.blocks import (
    BilinearDecoder,
    ImageEncoder,
    SwapNetwork,
    channel_means,
    instance_affine,
    reflect_conv,
)
from mattface.weights.convert import official

NAME = "alphaface"
EPSILON = 1e-8
"""Of the published instance normalisation."""
INJECTIONS = ("caii", "one-directional")


@dataclass(frozen=True)
class Config(Sizes):
    """Every size of the network. The defaults are the public ones.

    Attributes:
        injection: "caii" (cross-adaptive: eq. 2 of the paper) or "one-directional" (its ablation: without eq. 2).
    """

    decoder: tuple[int, ...] = (512, 256, 128, 128, 128)
    injection: str = "caii"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("injection", self.injection, INJECTIONS)


class InjectionUnit(nn.Module):
    """Convolution, instance normalisation, and scale and shift from the identity code.

    The published cross-adaptation replaces scale and shift v by (v + AdaIN(v, z_t)) / 2 (eq. 2). v has one value per
    channel and no extent in space, so v - mean(v) is 0 and AdaIN(v, z_t) is exactly the channel mean of z_t: what is
    computed is the average of v and that mean, and so it is written here.

    Args:
        channels: C.
        code: D, length of the identity code.
        active: whether a ReLU follows.
        crossed: False leaves eq. 2 out.
    """

    def __init__(self, channels: int, code: int, active: bool, crossed: bool) -> None:
        super().__init__()
        self.conv = reflect_conv(channels, channels, 3)
        self.style = nn.Linear(code, 2 * channels)
        self.active, self.crossed = active, crossed

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        scale, shift = self.style(code).float().chunk(2, 1)
        if self.crossed:
            mean = channel_means(x)
            scale, shift = (scale + mean) / 2, (shift + mean) / 2  # eq. 2, see above
        y = instance_affine(self.conv(x), scale, shift, EPSILON)  # eq. 1
        return F.relu_(y) if self.active else y


class InjectionBlock(nn.Module):
    """Residual block of two units, the first with a ReLU.

    Args:
        channels: C.
        code: D.
        crossed: see `InjectionUnit`.
    """

    def __init__(self, channels: int, code: int, crossed: bool) -> None:
        super().__init__()
        self.first = InjectionUnit(channels, code, active=True, crossed=crossed)
        self.second = InjectionUnit(channels, code, active=False, crossed=crossed)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        return x + self.second(self.first(x, code), code)


def build_network(config: Config) -> SwapNetwork:
    """Builds the network with fresh weights."""
    channels, crossed = config.widths[-1], config.injection == "caii"
    blocks = [InjectionBlock(channels, config.code, crossed) for _ in range(config.blocks)]
    decoder = BilinearDecoder(channels, config.decoder)
    return SwapNetwork(ImageEncoder(config.widths), blocks, decoder, config.code, half_range=True)


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> AlignedMethod:
    """Builds the method.

    Args:
        weights: None or "alphaface" for the public checkpoint, or a safetensors file of a trained variant.
        device, dtype: where and in which dtype the network runs.
        commercial: see the contract.
        options: `injection`, see `Config`; by default what the weights were trained with.

    Raises:
        UsageError: an unknown option.
        WeightsError: the network or the identity part is not here, damaged, or of another variant.
    """
    if weights not in (None, NAME):
        return build_trained(NAME, Config, build_network, weights, device, dtype, commercial, options)
    unknown = sorted(set(options) - {"injection"})
    if unknown:
        raise UsageError(f"{NAME} with its public weights has the option injection; got {', '.join(unknown)}.")
    config = Config(**options)
    network = public_network(config)
    coder = IdentityCoder(public_identity(device, commercial), config.identity_crop, identity_map(device))
    crop = CropSpec(config.template, config.size)
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    return AlignedMethod(NAME, crop, network, coder, parser, NAME, device, dtype)


def public_network(config: Config) -> SwapNetwork:
    """The network with the tensors of the public checkpoint, or of a file converted from it."""
    network = build_network(config)
    registry.load_strictly(network, official(NAME), "AlphaFace's swapper")
    return network


def public_identity(device: torch.device, commercial: bool | None = None) -> Embedder:
    """The identity network the public checkpoint was trained with: ArcFace w600k, from either of its two files."""
    if registry.present("alphaface-identity") or not registry.present("insightface-recognition"):
        network = iresnet50()
        registry.load_strictly(network, official("alphaface-identity"), "the ArcFace w600k ResNet-50")
        network = network.eval().requires_grad_(False).to(device)
        return Embedder("arcface-w600k", network, 512, 112, lambda mesh, points: _unused())
    return perception.load("identity", "insightface", device, commercial=commercial)


def _unused() -> Any:
    raise UsageError("this identity network reads whole crops; got a request for a framing of its own.")


def identity_map(device: torch.device) -> torch.Tensor:
    """(512, 512) matrix that the identity vector is multiplied by before it is normalised."""
    import numpy as np

    from mattface.weights.arrays import read_arrays

    path = registry.find("alphaface-emap")
    matrix = read_arrays(path).get("")
    if matrix is None or matrix.shape != (512, 512) or matrix.dtype.kind != "f":
        raise WeightsError(f"expected a 512x512 float array in {path}; got something else. Get the file again.")
    return torch.from_numpy(matrix.astype(np.float32)).to(device)
