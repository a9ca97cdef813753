"""magicmask: MagicMask's visual branch of ARIE blocks, geometry branch of transformer encoders, and decoder (224 px).

Open points. The paper gives no sizes: channel counts follow its 1024-wide features and the same group's public code.
Eq. 2 multiplies a map by a vector: phi projects the code to one gate per position there. In eq. 6 the identity's
attention must have one row and column per geometry token: the code is projected linearly and scaled by one learned
vector per token. Depth comes from the mesh fitted to the target instead of a depth network.

Eq. 3 as printed is degenerate: the mean over space of an instance-normalised channel is 0, whatever the picture, so its
softmax gives every channel exactly 1 / C and the identity never chooses channels. `channel_attention="printed"`, the
default, is that; "features" takes the means of the same maps before they are normalised, which differ by channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mattface.errors import UsageError
from mattface.realtime.methods.aligned import Sizes, builder_of, check_choice
from mattface.realtime.methods.blocks import ImageEncoder, SwapNetwork, reflect_conv
from mattface.vocabulary import Crop

NAME = "magicmask"
EPSILON = 1e-5
SLOPE = 0.2


@dataclass(frozen=True)
class Config(Sizes):
    """Every size of the network; `size` must be divisible by 16.

    Attributes:
        geometry: whether there is a geometry branch (table 1: f_V alone, or f_V and f_G).
        stem: channels of the geometry branch's convolutions, each of which halves the map.
        layers, heads: of its transformer, whose width is the stem's last.
        channel_attention: "printed" (eq. 3; always 1 / C) or "features", see the module.
    """

    size: int = 224
    geometry: bool = True
    stem: tuple[int, int, int, int] = (32, 64, 128, 256)
    layers: int = 4
    heads: int = 8
    channel_attention: str = "printed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("channel_attention", self.channel_attention, ("printed", "features"))
        if self.size % 16 or self.stem[-1] % self.heads:
            raise UsageError(
                f"size must be divisible by 16 and stem[-1] by heads; got size {self.size}, stem {self.stem}, "
                f"heads {self.heads}."
            )


class ARIE(nn.Module):
    """Attention residual identity embedding.

    Args:
        channels: C.
        code: D.
        positions: H*W of the features.
        channel_attention: see `Config`.
    """

    def __init__(self, channels: int, code: int, positions: int, channel_attention: str = "printed") -> None:
        super().__init__()
        self.of_features = channel_attention == "features"
        self.norm = nn.BatchNorm2d(channels)
        self.conv = reflect_conv(channels, channels, 3)
        self.gate = nn.Linear(code, positions)  # phi of eq. 2
        self.project = nn.Linear(code, channels)  # phi of eq. 3, and what eq. 4 adds
        self.conv_out = reflect_conv(channels, channels, 3)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        features = self.conv(self.norm(x))
        y = F.group_norm(features, features.shape[1], eps=EPSILON)  # eq. 1, groups of one channel
        height, width = y.shape[-2:]
        phi = self.project(code)  # (B, C)
        space = y.mean(1).flatten(1) * self.gate(code)  # (B, H*W)
        a_s = space.float().softmax(1).to(y.dtype).unflatten(1, (1, height, width))  # eq. 2
        means = (features if self.of_features else y).mean((2, 3))  # of y always 0: eq. 3 is then 1 / C
        a_c = (means * phi).float().softmax(1).to(y.dtype)[..., None, None]  # eq. 3
        z = torch.addcmul(phi[..., None, None], y, a_s + a_c)  # eq. 4: a_s * IN + IN * a_c + e_s
        return x + F.relu(self.conv_out(F.relu(z)))


class IdentityAttention(nn.Module):
    """Multi-head attention of the geometry tokens, plus the identity's own attention over the same values.

    Args:
        width: d.
        heads: heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, z: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """(B, T, d) geometry and identity tokens to (B, T, d)."""
        value = self._split(self.value(z))  # eq. 5
        own = self._attend(self._split(self.query(z)), self._split(self.key(z)), value)
        other = self._attend(self._split(self.query(identity)), self._split(self.key(identity)), value)
        return self.out((own + other).transpose(1, 2).flatten(2))  # eq. 6

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to (B, heads, T, d / heads)."""
        return x.unflatten(2, (self.heads, x.shape[2] // self.heads)).transpose(1, 2)

    @staticmethod
    def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.softmax(-1) @ value


class TransformerEncoder(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added after.

    Args:
        width: d.
        heads: heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = IdentityAttention(width, heads)
        self.expand, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, z: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """(B, T, d) geometry and identity tokens to (B, T, d)."""
        z = z + self.attention(self.norm(z), identity)
        return z + self.shrink(F.gelu(self.expand(self.norm_mlp(z))))


class GeometryBranch(nn.Module):
    """Depth and landmark maps -> features that are added to the visual ones.

    Args:
        config: sizes.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        before = (2, *config.stem[:-1])
        self.stem = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(before, config.stem, strict=True)])
        width, self.side = config.stem[-1], config.size // 16
        tokens = self.side**2
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.identity = nn.Linear(config.code, width)
        self.identity_tokens = nn.Parameter(torch.randn(tokens, width))
        self.layers = nn.ModuleList([TransformerEncoder(width, config.heads) for _ in range(config.layers)])
        self.out = nn.Conv2d(width, config.widths[-1], 1)

    def forward(self, maps: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, 2, S, S) maps and (B, D) code to (B, C, S / 4, S / 4)."""
        for conv in self.stem:
            maps = F.leaky_relu(conv(maps), SLOPE)
        z = maps.flatten(2).transpose(1, 2) + self.place  # (B, T, d)
        identity = self.identity(code)[:, None] * self.identity_tokens  # (B, T, d)
        for layer in self.layers:
            z = layer(z, identity)
        z = z.transpose(1, 2).unflatten(2, (self.side, self.side))
        return F.interpolate(self.out(z), scale_factor=4, mode="bilinear", align_corners=False)


class PaddedDecoder(nn.Module):
    """Features -> picture in [-1, 1] by doubling, padding and convolutions.

    Args:
        inputs: channels of the features.
        widths: channels after the first and the second doubling, and of the convolution that follows.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = (inputs, *widths[:-1])
        self.convs = nn.ModuleList([reflect_conv(a, b, 3) for a, b in zip(before, widths, strict=True)])
        self.to_rgb = reflect_conv(widths[-1], 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, 3, 4 H, 4 W)."""
        for index, conv in enumerate(self.convs):
            if index < 2:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return torch.tanh(self.to_rgb(x))


class MagicMaskNetwork(SwapNetwork):
    """Visual branch, geometry branch (or none), decoder. Parts come from `build_network`."""

    def __init__(
        self,
        encoder: nn.Module,
        inject: list[ARIE],
        decoder: nn.Module,
        code: int,
        geometry: GeometryBranch | None,
    ) -> None:
        super().__init__(encoder, inject, decoder, code)
        self.geometry = geometry
        if geometry is not None:
            self.input_names = (*self.input_names, "geometry")

    def input_shapes(self, side: int) -> list[tuple[int, ...]]:
        """See `SwapNetwork`; the third input has the two maps."""
        maps = [] if self.geometry is None else [(2, side, side)]
        return [*super().input_shapes(side), *maps]

    def drawn(self, crop: Crop) -> tuple[torch.Tensor, ...]:
        """The geometry maps of a target, where there is a branch for them.

        Raises:
            UsageError: the crop has no mesh.
        """
        if self.geometry is None:
            return ()
        if crop.mesh is None:
            raise UsageError(
                f"{NAME} needs dense landmarks of the target; this crop has no mesh. Find landmarks first."
            )
        from mattface.realtime.methods.geometry import geometry_maps

        return (geometry_maps(crop.mesh, crop.size).to(crop.pixels.device),)

    def forward(self, target: torch.Tensor, code: torch.Tensor, maps: torch.Tensor | None = None) -> torch.Tensor:
        """Swaps aligned crops.

        Args:
            target: (B, 3, S, S) RGB in [-1, 1].
            code: (B, D) identity, unit length.
            maps: (B, 2, S, S) depth and landmarks of the target; only with a geometry branch.

        Returns:
            (B, 3, S, S) in [-1, 1].
        """
        z = self.fuse(target, code)  # z_v
        if self.geometry is not None:
            z = z + self.geometry(maps, code)  # z_v + z_g
        return self.decoder(z)


def build_network(config: Config) -> MagicMaskNetwork:
    """Builds the network with fresh weights."""
    channels, positions = config.widths[-1], (config.size // 4) ** 2
    blocks = [ARIE(channels, config.code, positions, config.channel_attention) for _ in range(config.blocks)]
    geometry = GeometryBranch(config) if config.geometry else None
    decoder = PaddedDecoder(channels, config.decoder)
    return MagicMaskNetwork(ImageEncoder(config.widths), blocks, decoder, config.code, geometry)


build = builder_of(NAME, Config, build_network)
