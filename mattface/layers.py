"""Blocks that several networks share: equalised layers of StyleGAN and the IR-SE units of pSp and ArcFace.

Letters: B batch, C channels, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from mattface.cuda_ops import bias_act, setup_filter, upfirdn2d

BLUR = (1.0, 3.0, 3.0, 1.0)
"""Taps of StyleGAN2's resampling filter (Karras et al. 2020, appendix B)."""


class EqualLinear(nn.Module):
    """Linear layer whose stored weight has unit variance and is scaled when used (Karras et al. 2018, section 4.1).

    Args:
        inputs: features in.
        outputs: features out.
        act: activation of `bias_act`.
        lr_multiplier: factor of weight and bias, which slows their learning.
        bias: start value of the bias.
    """

    def __init__(
        self, inputs: int, outputs: int, act: str = "linear", lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.act, self.lr_multiplier = act, lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs) to (B, outputs)."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = (self.bias * self.lr_multiplier).to(x.dtype)
        if self.act == "linear":
            return F.linear(x, weight, bias)
        return bias_act(F.linear(x, weight), bias, act=self.act)


class EqualConv2d(nn.Module):
    """Same-size or halving convolution with equalised weight, blurred before it halves.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel, odd.
        down: 1 or 2.
        act: activation of `bias_act`.
        bias: whether there is one.
        clamp: limit of the result before `gain`; None for no limit.
    """

    blur: torch.Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        down: int = 1,
        act: str = "linear",
        bias: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("blur", setup_filter(BLUR), persistent=False)
        self.down, self.act, self.clamp = down, act, clamp
        self.weight_gain = 1 / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / down, W / down), times `gain`."""
        weight, half = (self.weight * self.weight_gain).to(x.dtype), self.weight.shape[-1] // 2
        x = F.conv2d(x, weight, padding=half) if self.down == 1 else self._halve(x, weight, half)
        clamp = None if self.clamp is None else self.clamp * gain
        bias = None if self.bias is None else self.bias.to(x.dtype)
        act_gain = gain * (math.sqrt(2) if self.act == "lrelu" else 1.0)
        return bias_act(x, bias, act=self.act, gain=act_gain, clamp=clamp)

    def _halve(self, x: torch.Tensor, weight: torch.Tensor, half: int) -> torch.Tensor:
        """Blur and stride; a 1x1 kernel lets the blur itself drop the samples."""
        taps = self.blur.shape[-1]
        pads = [half + (taps - self.down + 1) // 2, half + (taps - self.down) // 2] * 2
        if half == 0:
            return F.conv2d(upfirdn2d(x, self.blur, down=self.down, padding=pads), weight)
        return F.conv2d(upfirdn2d(x, self.blur, padding=pads), weight, stride=self.down)


class SqueezeExcite(nn.Module):
    """Channel gates from the mean over space (Hu et al. 2018), without biases.

    Args:
        channels: channels.
        reduction: how much narrower the middle is (at least one channel stays).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        middle = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, middle, 1, bias=False)
        self.excite = nn.Conv2d(middle, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        gate = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(gate))))


class IRSEUnit(nn.Module):
    """Residual unit of the improved ResNet with squeeze and excitation (ArcFace, Deng et al. 2019).

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: 1 or 2.
        reduction: of the squeeze.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int = 16) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.act = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.gate = SqueezeExcite(outputs, reduction)
        self.stride = stride
        # Strided by hand: in torch 2.13 the gradient of a strided 1x1 convolution may write beyond its memory.
        self.shortcut_conv = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.shortcut_norm = None if inputs == outputs else nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        short = x[:, :, :: self.stride, :: self.stride]
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            short = self.shortcut_norm(self.shortcut_conv(short))
        y = self.conv2(self.act(self.conv1(self.norm1(x))))
        return self.gate(self.norm2(y)) + short


class IRSETrunk(nn.Module):
    """Stem and stages of IR-SE units; every stage begins by halving the map.

    Args:
        stem: channels after the first convolution.
        widths: channels per stage.
        units: units per stage.
        reduction: of the squeezes.
        inputs: channels of the input.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], units: Sequence[int], reduction: int = 16, inputs: int = 3
    ) -> None:
        super().__init__()
        if len(widths) != len(units) or not units or min(units) < 1:
            raise ValueError(f"widths and units must name the same stages; got {tuple(widths)} and {tuple(units)}.")
        self.stem = nn.Sequential(nn.Conv2d(inputs, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem))
        stages = []
        for before, outputs, count in zip((stem, *widths), widths, units, strict=False):
            first = IRSEUnit(before, outputs, 2, reduction)
            rest = [IRSEUnit(outputs, outputs, 1, reduction) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, inputs, H, W) to the map after every stage, (B, widths[i], H / 2^(i+1), W / 2^(i+1))."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def zero_init(layer: nn.Module) -> nn.Module:
    """Sets all weights of a layer to 0, so that what it adds starts as nothing."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Square maps to side `size`: area average when shrinking, bilinear (pixel centres, no corners) when growing.

    Args:
        x: (B, C, S, S).
        size: side of the result.
    """
    if x.shape[-1] == size:
        return x
    if x.shape[-1] > size:
        factor, rest = divmod(x.shape[-1], size)
        return F.avg_pool2d(x, factor) if rest == 0 else F.interpolate(x, size=(size, size), mode="area")
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def warp(x: torch.Tensor, flow: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Samples maps where a flow points, borders repeated.

    Args:
        x: (B, C, H', W').
        flow: (B, 2, H, W) position in x, [-1, 1] over its extent, x before y. Positions are kept in float32.
        mode: "bilinear" or "bicubic" (sharper; may overshoot).

    Returns:
        (B, C, H, W) of x's type.
    """
    grid = flow.float().permute(0, 2, 3, 1)
    return F.grid_sample(x.float(), grid, mode=mode, padding_mode="border", align_corners=False).to(x.dtype)


@dataclass(frozen=True)
class Window:
    """A square part of square maps of any resolution that `GRID` divides. All three are in pixels of a map of `GRID`.

    Attributes:
        left, top: first column and row.
        side: number of them.
    """

    left: int
    top: int
    side: int

    GRID: ClassVar[int] = 128

    @classmethod
    def around(cls, mask: torch.Tensor, margin: int) -> Window | None:
        """The part that holds all of a batch of masks that is above 0, and `margin` pixels of `GRID` around it.

        Args:
            mask: (B, 1, M, M).
            margin: see above.

        Returns:
            None where the mask is empty or the part would be nearly everything.
        """
        shares = torch.nonzero((mask > 0).any(0)[0]).float() / mask.shape[-1] * cls.GRID
        if not len(shares):
            return None
        low = (shares.amin(0).floor().int() - margin - 1).tolist()
        high = (shares.amax(0).ceil().int() + margin + 2).tolist()
        side = max(h - a for a, h in zip(low, high, strict=True))
        if side > 0.9 * cls.GRID:
            return None
        top, left = (min(max((a + h - side) // 2, 0), cls.GRID - side) for a, h in zip(low, high, strict=True))
        return cls(left, top, side)

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, S, S) to its part, a view; S is a multiple of `GRID`."""
        k = x.shape[-1] // self.GRID
        return x[..., self.top * k : (self.top + self.side) * k, self.left * k : (self.left + self.side) * k]

    def put_back(self, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """`whole` with that part replaced, a new map of the part's type."""
        made = whole.to(part.dtype, copy=True)
        self.cut(made).copy_(part)
        return made
