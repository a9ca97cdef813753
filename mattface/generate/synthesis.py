"""WPlus -> GeneratorFeatures: StyleGAN2's synthesis network (Karras et al. 2020).

Maps are kept channels-last, which is the fast layout of these convolutions and filters on a CPU.
Letters: B batch, C channels, R resolution, L styles, D size of a style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from mattface.cuda_ops import modulated_conv2d, setup_filter, upsample_add
from mattface.cuda_ops.precision import autocasts, without_autocast
from mattface.errors import UsageError
from mattface.generate.region import Corner, cropped, only, parts_of
from mattface.layers import BLUR, EqualLinear
from mattface.vocabulary import Box, GeneratorFeatures, WPlus

Noise = Literal["const", "random", "none"]
SINGLE_UPTO = 64
"""Under autocast, blocks up to this resolution stay in single precision, as in the official networks."""
Start = tuple[int, torch.Tensor, torch.Tensor]
"""(resolution, (B, C, h, w) features, (B, 3, h, w) RGB) of a finished block."""


def channel_counts(resolution: int, base: int = 32768, most: int = 512) -> dict[int, int]:
    """StyleGAN2's channels per resolution: base / R, at most `most`."""
    return {2**i: min(base // 2**i, most) for i in range(2, resolution.bit_length())}


def num_styles(resolution: int) -> int:
    """Styles L of a generator of `resolution` pixels: 18 at 1024."""
    return 2 * (resolution.bit_length() - 1) - 2


def _full(x: torch.Tensor) -> torch.Tensor:
    """At least single precision, which styles and RGB need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        w_dim: D.
        resolution: side of the output at full size.
        up: 1 or 2.
        clamp: limit of the activation, before its gain; None for no limit.
        use_noise: False leaves noise buffer and strength out.
    """

    blur: torch.Tensor
    noise_const: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, up: int, clamp: float | None, use_noise: bool
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.resolution, self.up = resolution, up
        self.clamp = None if clamp is None else clamp * math.sqrt(2)
        self.register_buffer("blur", setup_filter(BLUR, separable=True), persistent=False)
        self.use_noise = use_noise
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: Noise, corner: Corner | None) -> torch.Tensor:
        """(B, inputs, h, w) and (B, D) to (B, outputs, h * up, w * up), whose place in a whole map `corner` is."""
        grain = self._grain(x, noise, corner)
        strength = None if grain is None else self.noise_strength
        blur = self.blur if self.up > 1 else None
        return modulated_conv2d(
            x, self.weight, self.affine(_full(w)), b=self.bias, noise=grain, strength=strength, act="lrelu",
            clamp=self.clamp, up=self.up, f=blur,
        )  # fmt: skip

    def _grain(self, x: torch.Tensor, noise: Noise, corner: Corner | None) -> torch.Tensor | None:
        """Noise image for the layer's result, or None."""
        if noise == "none" or not self.use_noise:
            return None
        size = (x.shape[2] * self.up, x.shape[3] * self.up)
        if noise == "random":
            return torch.randn(x.shape[0], 1, *size, dtype=x.dtype, device=x.device)
        if size == tuple(self.noise_const.shape):
            return self.noise_const[None, None]
        if corner is not None:
            top, left = corner
            return self.noise_const[None, None, top : top + size[0], left : left + size[1]]
        raise UsageError(
            f'noise="const" needs whole maps of {self.resolution} pixels; got {size}. Take "random" or "none" on crops.'
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without normalisation.

    Args:
        inputs: channels in.
        w_dim: D.
        clamp: limit of the result; None for no limit.
    """

    def __init__(self, inputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.clamp = clamp
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) and (B, D) to (B, 3, h, w)."""
        style = self.affine(_full(w)) * self.gain
        y = modulated_conv2d(x, self.weight, style, b=self.bias, clamp=self.clamp, demodulate=False)
        return _full(y)


class SynthesisBlock(nn.Module):
    """The layers of one resolution; the first block starts from a learned constant.

    Args:
        inputs: channels in, 0 for the first block.
        outputs: channels out.
        w_dim: D.
        resolution: R.
        clamp: see `SynthesisLayer`.
        use_noise: see `SynthesisLayer`.
    """

    blur: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, clamp: float | None, use_noise: bool
    ) -> None:
        super().__init__()
        self.first = inputs == 0
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, 2, clamp, use_noise)
            self.register_buffer("blur", setup_filter(BLUR), persistent=False)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, 1, clamp, use_noise)
        self.torgb = ToRGB(outputs, w_dim, clamp)

    def forward(
        self,
        x: torch.Tensor | None,
        rgb: torch.Tensor | None,
        styles: torch.Tensor,
        noise: Noise,
        corner: Corner | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and RGB of the block before (None for the first), (B, 2 or 3, D) styles, to this block's.

        Of a crop, `corner` is the result's first row and column in the whole map; None when that is not known.
        """
        if x is None:
            x = self.const.expand(styles.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, styles[:, 0], noise, corner)
        x = self.conv1(x, styles[:, -2], noise, corner)
        added = self.torgb(x, styles[:, -1])
        return x, added if rgb is None else upsample_add(rgb, self.blur, added)


class SynthesisNetwork(nn.Module):
    """StyleGAN2's generator from styles to pixels, with skip connections to RGB.

    Args:
        w_dim: D.
        resolution: side of the image, a power of two of at least 8.
        channel_base: channels at resolution R are channel_base / R.
        channel_max: at most this many.
        clamp: limit of every activation; None for no limit.
        channels: resolution -> channels, instead of the two numbers above.
        use_noise: False builds a generator without noise inputs (and without their buffers).
    """

    def __init__(
        self,
        w_dim: int = 512,
        resolution: int = 1024,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = 256.0,
        channels: Mapping[int, int] | None = None,
        use_noise: bool = True,
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise UsageError(f"resolution must be a power of two of at least 8; got {resolution}.")
        default = channel_counts(resolution, channel_base, channel_max)
        self.channels = default if channels is None else {int(r): int(c) for r, c in channels.items()}
        if set(self.channels) != set(default):
            raise UsageError(f"channels must name the resolutions {list(default)}; got {list(self.channels)}.")
        self.w_dim, self.resolution = w_dim, resolution
        self.resolutions = tuple(default)
        self.num_styles = num_styles(resolution)
        for r in self.resolutions:
            inputs = self.channels.get(r // 2, 0)
            self.add_module(f"b{r}", SynthesisBlock(inputs, self.channels[r], w_dim, r, clamp, use_noise))

    def forward(
        self,
        w_plus: WPlus,
        noise: Noise = "const",
        return_features: bool = False,
        upto: int | None = None,
        start: Start | None = None,
        region: Box | None = None,
    ) -> GeneratorFeatures:
        """Generates, wholly or in part.

        Args:
            w_plus: (B, L, D); always all L styles, also when only some blocks run.
            noise: "const" takes the noise buffers, "random" fresh noise, "none" none.
            return_features: True keeps the map of every block that ran, False the last one only.
            upto: last resolution to run; None runs to the end.
            start: (resolution, features, rgb) of a finished block to go on from, whole or a crop of both. Convolutions
                see zeros beyond a crop's border, so its outer pixels differ from a whole run.
            region: (left, top, right, bottom) in pixels of the last block: only this part of maps and image is made,
                with as much around it in every block as its values need; they equal those of a whole run. Not together
                with `start`. Of random noise the part sees other values than a whole run would.

        Returns:
            features {R: (B, C, R, R)} and image (B, 3, R, R) of the last block that ran (sides of a crop scale alike);
            with `region` the parts of them that `boxes` names.

        Raises:
            UsageError: styles of another shape, resolutions that are not there, an empty region or one that reaches
                beyond the image, or constant noise on a crop.
        """
        x, rgb, blocks = self._begin(w_plus, upto, start)
        if noise not in ("const", "random", "none"):
            raise UsageError(f'noise must be "const", "random" or "none"; got {noise!r}.')
        if region is not None and start is not None:
            raise UsageError("expected region or start; got both. Crop what start holds instead.")
        parts = parts_of(region, blocks) if region is not None else None
        features: dict[int, torch.Tensor] = {}
        corner = None
        dtype = torch.get_autocast_dtype(w_plus.device.type) if autocasts(w_plus.device) else None
        for r in blocks:
            k = self.resolutions.index(r)
            styles = w_plus[:, max(0, 2 * k - 1) : 2 * k + 2]  # to-RGB shares its style with the next block
            if parts and x is not None and rgb is not None:
                (x, rgb), corner = cropped(x, rgb, parts[r], corner or (0, 0))
            if x is not None and dtype is not None:
                x = x.to(dtype if r > SINGLE_UPTO else torch.float32)
            with without_autocast(w_plus.device):
                x, rgb = self.get_submodule(f"b{r}")(x, rgb, styles, noise, corner)
            features = {**features, r: x} if return_features else {r: x}
        whole = GeneratorFeatures(features, rgb)
        return whole if region is None or parts is None else only(whole, region, parts)

    def _begin(
        self, w_plus: WPlus, upto: int | None, start: Start | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, list[int]]:
        """Checks the call; gives features and RGB to start from and the resolutions to run."""
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_styles, self.w_dim):
            raise UsageError(f"w_plus must be (B, {self.num_styles}, {self.w_dim}); got {tuple(w_plus.shape)}.")
        last = self.resolution if upto is None else upto
        after = 0 if start is None else start[0]
        blocks = [r for r in self.resolutions if after < r <= last]
        if last not in self.resolutions or (start and after not in self.resolutions) or not blocks:
            raise UsageError(f"upto and start must be of {self.resolutions}, upto the greater; got {upto} and {after}.")
        if start is None:
            return None, None, blocks
        _, x, rgb = start
        if x.shape[0] != w_plus.shape[0] or x.shape[1] != self.channels[after] or rgb.shape[2:] != x.shape[2:]:
            raise UsageError(
                f"start needs (B, {self.channels[after]}, h, w) features and (B, 3, h, w) RGB for {w_plus.shape[0]} "
                f"samples; got {tuple(x.shape)} and {tuple(rgb.shape)}."
            )
        return x.contiguous(memory_format=torch.channels_last), rgb, blocks
