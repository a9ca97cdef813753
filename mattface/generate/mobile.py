"""WPlus -> GeneratorFeatures: MobileStyleGAN's synthesis network (Belousov 2021, arXiv 2104.04767).

StyleGAN2's FFHQ generator distilled into depth-wise convolutions and wavelets: driven by the same 18 styles at 1024 px,
so that one W+ code draws the same person by either. Demodulation is folded into the weights. The activations have
StyleGAN2's gain of sqrt(2), which weights converted from files without it divide by.
Letters: B batch, C channels, R resolution, L styles, D size of a style.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from mattface.cuda_ops import inverse_haar, modulated_depthwise, noise_bias_act
from mattface.cuda_ops.precision import autocasts, without_autocast
from mattface.errors import UsageError
from mattface.generate.region import Corner, cropped, only, parts_of
from mattface.generate.synthesis import Noise, Start
from mattface.vocabulary import Box, GeneratorFeatures, WPlus

SINGLE_UPTO = 16
"""Under autocast, blocks up to this resolution stay in single precision: they cost nothing."""


class StyledConv(nn.Module):
    """Modulation, 3x3 convolution (depth-wise and 1x1, or dense), noise image, bias, leaky ReLU.

    Args:
        inputs, outputs: channels.
        w_dim: D.
        resolution: R.
        dense: a plain 3x3 convolution instead of two.
    """

    noise: torch.Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, dense: bool = False) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, inputs)
        self.depthwise = None if dense else nn.Parameter(torch.randn(inputs, 1, 3, 3) / 3)
        side = 3 if dense else 1
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side) / (side * inputs**0.5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.zeros(resolution, resolution))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise: Noise, corner: Corner | None, bands: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, inputs, h, w) and (B, D) to (B, outputs, h, w), whose place in a whole map `corner` is.

        With `bands`, (B, 4 inputs), x is (B, 4 inputs, h / 2, w / 2): see `modulated_depthwise`.
        """
        style, weight = self.affine(w), self.weight.to(x.dtype)
        if self.depthwise is None:
            y = F.conv2d(x * style[:, :, None, None].to(x.dtype), weight, padding=1)
        else:
            y = F.conv2d(modulated_depthwise(x, self.depthwise, style, bands), weight)
        grain = None if noise == "none" else self._grain(y, noise, corner)
        return noise_bias_act(y, self.bias.to(y.dtype), noise=grain, act="lrelu", overwrite=True)

    def _grain(self, y: torch.Tensor, noise: Noise, corner: Corner | None) -> torch.Tensor:
        height, width = y.shape[2:]
        top, left = corner or (0, 0)
        grain = self.noise[None, None, top : top + height, left : left + width]
        if noise == "const":
            return grain
        return torch.randn(len(y), 1, height, width, device=y.device) * grain.std()


class WaveletBlock(nn.Module):
    """Modulated inverse Haar transform and two styled convolutions.

    Args:
        inputs, outputs: channels.
        w_dim: D.
        resolution: R of the result.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.up = nn.Linear(w_dim, inputs)
        self.conv1 = StyledConv(inputs // 4, outputs, w_dim, resolution)
        self.conv2 = StyledConv(outputs, outputs, w_dim, resolution)

    def forward(self, x: torch.Tensor, styles: torch.Tensor, noise: Noise, corner: Corner | None) -> torch.Tensor:
        """(B, inputs, h, w) and (B, 2, D) to (B, outputs, 2 h, 2 w)."""
        x = self.conv1(x, styles[:, 0], noise, corner, self.up(styles[:, 0]))
        return self.conv2(x, styles[:, 1], noise, corner)


class WaveletRGB(nn.Module):
    """Modulated 1x1 convolution to the four bands of an RGB picture of twice the size.

    Args:
        inputs: channels.
        w_dim: D.
    """

    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.randn(12, inputs, 1, 1) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) and (B, D) to (B, 12, h, w) in at least single precision."""
        style = self.affine(w)
        if len(x) == 1:  # modulated weights cost less than a modulated map
            weight = (self.weight * style[0, :, None, None]).to(x.dtype)
        else:
            x, weight = x * style[:, :, None, None].to(x.dtype), self.weight.to(x.dtype)
        return F.conv2d(x, weight, self.bias.to(x.dtype)).float()


class MobileSynthesis(nn.Module):
    """The whole network, behind `SynthesisNetwork`'s calls.

    Args:
        w_dim: D.
        channels: R -> channels of every block; the picture has twice the highest R.
    """

    CHANNELS: ClassVar[dict[int, int]] = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}

    def __init__(self, w_dim: int = 512, channels: dict[int, int] | None = None) -> None:
        super().__init__()
        self.channels = dict(self.CHANNELS if channels is None else channels)
        self.resolutions = tuple(sorted(self.channels))
        self.w_dim, self.resolution = w_dim, 2 * self.resolutions[-1]
        self.num_styles = 2 * len(self.resolutions) + 2
        widths = [self.channels[r] for r in self.resolutions]
        self.const = nn.Parameter(torch.randn(widths[0], self.resolutions[0], self.resolutions[0]))
        self.first = StyledConv(widths[0], widths[0], w_dim, self.resolutions[0], dense=True)
        self.blocks = nn.ModuleList(
            WaveletBlock(a, b, w_dim, r) for a, b, r in zip(widths, widths[1:], self.resolutions[1:], strict=False)
        )
        self.to_rgb = WaveletRGB(widths[-1], w_dim)

    def forward(
        self,
        w_plus: WPlus,
        noise: Noise = "const",
        return_features: bool = False,
        upto: int | None = None,
        start: Start | None = None,
        region: Box | None = None,
        half: bool = False,
    ) -> GeneratorFeatures:
        """Generates, wholly or in part; see `SynthesisNetwork.forward`.

        Args:
            w_plus: (B, L, D) styles in the order of StyleGAN2 at this resolution; the last two have no layer here.
            noise: "const" takes the noise images, "random" fresh noise of their strength, "none" none.
            return_features: True keeps the map of every block that ran, False the last one only.
            upto: last resolution to run; below the highest there is no picture.
            start: not for this generator, whose blocks carry no RGB.
            region: (left, top, right, bottom) in pixels of the picture (or of the last block, below the highest); even
                numbers in pixels of the picture.
            half: True makes the picture of half the size, whose pixels are the means of 2x2 of the whole one's.

        Returns:
            features {R: (B, C, R, R)}; image (B, 3, 2 R, 2 R) of the highest R, else None.

        Raises:
            UsageError: styles of another shape, resolutions that are not there, or a region that does not fit.
        """
        blocks = self._check(w_plus, noise, upto, start)
        draws = blocks[-1] == self.resolutions[-1]
        box = region
        if region is not None and draws:
            if any(edge % 2 for edge in region):
                raise UsageError(f"region must have even edges for this generator; got {region}.")
            box = tuple(edge // 2 for edge in region)  # type: ignore[assignment]
        parts = parts_of(box, blocks) if box is not None else None
        features: dict[int, torch.Tensor] = {}
        dtype = torch.get_autocast_dtype(w_plus.device.type) if autocasts(w_plus.device) else self.const.dtype
        w_plus = w_plus.to(self.const.dtype)
        with without_autocast(w_plus.device):
            x, corner = self._begin(w_plus, noise), None
            features = {blocks[0]: x}
            for i, r in enumerate(blocks[1:]):
                if parts is not None:
                    (x, _), corner = cropped(x, x, parts[r], corner or (0, 0))
                x = x.to(dtype if r > SINGLE_UPTO else self.const.dtype)
                x = self.blocks[i](x, w_plus[:, 1 + 2 * i : 3 + 2 * i], noise, corner)
                features = {**features, r: x} if return_features else {r: x}
            whole = GeneratorFeatures(features, None)
            if box is not None and parts is not None:
                whole = only(whole, box, parts)
            if not draws:
                return whole
            bands = self.to_rgb(whole.features[blocks[-1]], w_plus[:, 2 * len(blocks) - 1])
        image = bands[:, :3] / 2 if half else inverse_haar(bands)
        return GeneratorFeatures(whole.features, image, whole.boxes)

    def _begin(self, w_plus: WPlus, noise: Noise) -> torch.Tensor:
        x = self.const.expand(len(w_plus), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.first(x, w_plus[:, 0], noise, None)

    def _check(self, w_plus: WPlus, noise: Noise, upto: int | None, start: Start | None) -> list[int]:
        """Rejects calls that do not fit; gives the resolutions to run."""
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_styles, self.w_dim):
            raise UsageError(f"w_plus must be (B, {self.num_styles}, {self.w_dim}); got {tuple(w_plus.shape)}.")
        if noise not in ("const", "random", "none"):
            raise UsageError(f'noise must be "const", "random" or "none"; got {noise!r}.')
        if start is not None:
            raise UsageError("this generator cannot go on from a finished block. Take region or upto.")
        last = self.resolutions[-1] if upto is None else upto
        if last not in self.resolutions:
            raise UsageError(f"upto must be one of {self.resolutions}; got {upto}.")
        return [r for r in self.resolutions if r <= last]
