"""What the real-time networks share: the image encoder, instance statistics, and two decoders.

Letters: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from mattface.vocabulary import Crop

SLOPE = 0.2
"""Of every leaky ReLU."""
N = TypeVar("N", bound=nn.Module)


def moved(network: N, device: torch.device, dtype: torch.dtype, channels_last: bool = True) -> N:
    """A module, moved in place to a device, dtype and memory order of its 4-d tensors."""
    to: Any = network.to  # torch's types leave memory_format out
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return to(device=device, dtype=dtype, memory_format=layout)


def reflect_conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Convolution of the same size whose border mirrors the picture."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")


def instance_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance (biased) of every channel of every instance, (B, C) float32 each."""
    mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
    return mean[..., 0, 0], (x - mean).square().mean((2, 3))


def channel_means(x: torch.Tensor) -> torch.Tensor:
    """(B, C) float32 means over space."""
    return x.mean((2, 3), dtype=torch.float32)


class _InstanceAffine(torch.autograd.Function):
    """`instance_affine` with its gradient in products that run over a channels-last map as it lies.

    torch's own gradient of group normalisation took eight times as long in bf16 on the CPU, and 40 % of a training.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, epsilon: float) -> torch.Tensor:
        batch, channels, height, width = x.shape
        y, _, slope = torch.native_group_norm(x, None, None, batch, channels, height * width, channels, epsilon)
        ctx.save_for_backward(y, scale, slope)
        return _affine(y, scale, shift)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        y, scale, slope = ctx.saved_tensors
        given = gradients[0].to(y.dtype)
        batch, channels, height, width = y.shape
        count = height * width
        y, given = (z.permute(0, 2, 3, 1).reshape(batch, count, channels) for z in (y, given))
        row = y.new_ones(1, 1, count).expand(batch, 1, count)
        exact = torch.promote_types(y.dtype, torch.float32)
        along, whole = torch.bmm(row, given * y).to(exact), torch.bmm(row, given).to(exact)  # (B, 1, C) sums over space
        factor = scale[:, None].to(exact) * slope.view(batch, -1)[:, None].to(exact)
        change = torch.addcmul(given * factor.to(y.dtype), y, (-factor * along / count).to(y.dtype))
        change += (-factor * whole / count).to(y.dtype)
        change = change.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return change, _fitted(along[:, 0], scale), _fitted(whole[:, 0], scale), None


def _fitted(gradient: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(B, C) sums in the shape and type of scale and shift: (B, C) or (B, 1)."""
    return (gradient if scale.shape == gradient.shape else gradient.sum(1, keepdim=True)).to(scale.dtype)


def _affine(y: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift.to(y.dtype)[..., None, None], y, scale.to(y.dtype)[..., None, None])


def instance_affine(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Normalises every channel of every instance, then scales and shifts it.

    Args:
        x: (B, C, H, W).
        scale, shift: (B, C) or (B, 1).
        epsilon: added to the variance.

    Returns:
        (B, C, H, W) of x's type.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        out: torch.Tensor = _InstanceAffine.apply(x, scale, shift, epsilon)
        return out
    return _affine(F.group_norm(x, x.shape[1], eps=epsilon), scale, shift)  # groups of one channel


class ImageEncoder(nn.Module):
    """Picture -> features at a quarter of its side.

    Args:
        widths: channels after each convolution; the first has a 7x7 kernel, the last two halve the map.
        channels: channels of the picture.
    """

    def __init__(self, widths: Sequence[int] = (128, 256, 512, 1024), channels: int = 3) -> None:
        super().__init__()
        strides = [1] * (len(widths) - 3) + [2, 2]
        layers: list[nn.Module] = [reflect_conv(channels, widths[0], 7)]
        for inputs, outputs, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, 1))
        self.convs = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) to (B, widths[-1], H / 4, W / 4)."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return x


class BilinearDecoder(nn.Module):
    """Features -> picture in [-1, 1]: the map is doubled bilinearly before each of the first two convolutions.

    The last convolution of the body loses its border, which the mirrored border of the output convolution gives back.

    Args:
        inputs: channels of the features.
        widths: channels of the five convolutions.
    """

    def __init__(self, inputs: int = 1024, widths: Sequence[int] = (512, 256, 128, 128, 128)) -> None:
        super().__init__()
        before = (inputs, *widths[:-1])
        last = len(widths) - 1
        sizes = zip(before, widths, strict=True)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=int(k < last)) for k, (a, b) in enumerate(sizes)])
        self.to_rgb = nn.Conv2d(widths[-1], 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, 3, 4 H, 4 W)."""
        for index, conv in enumerate(self.convs):
            if index < 2:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return torch.tanh(self.to_rgb(F.pad(x, (3, 3, 3, 3), mode="reflect")))


class DeconvDecoder(nn.Module):
    """Features -> picture in [-1, 1] by transposed convolutions, as the papers' text has it.

    Args:
        inputs: channels of the features.
        widths: channels after the first and the second doubling, and of the convolution that follows.
    """

    def __init__(self, inputs: int = 1024, widths: Sequence[int] = (512, 256, 128)) -> None:
        super().__init__()
        first, second, third = widths
        self.ups = nn.ModuleList(
            [nn.ConvTranspose2d(inputs, first, 4, 2, 1), nn.ConvTranspose2d(first, second, 4, 2, 1)]
        )
        self.conv = reflect_conv(second, third, 3)
        self.to_rgb = reflect_conv(third, 3, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, 3, 4 H, 4 W)."""
        for up in self.ups:
            x = F.leaky_relu(up(x), SLOPE, inplace=True)
        return torch.tanh(self.to_rgb(F.leaky_relu(self.conv(x), SLOPE, inplace=True)))


class SwapNetwork(nn.Module):
    """A network of one aligned crop and one identity code: encode, inject the identity, decode.

    Args:
        encoder: (B, 3, S, S) to features.
        inject: modules of (features, code (B, D)) to features, one after the other.
        decoder: features to (B, 3, S, S).
        code: D, length of the identity code.
        half_range: whether the encoder wants pixels in [0, 1] instead of [-1, 1].
    """

    input_names: tuple[str, ...] = ("target", "code")

    def __init__(
        self,
        encoder: nn.Module,
        inject: Sequence[nn.Module],
        decoder: nn.Module,
        code: int,
        half_range: bool = False,
    ) -> None:
        super().__init__()
        self.code = code
        self.encoder = encoder
        self.inject = nn.ModuleList(inject)
        self.decoder = decoder
        self.half_range = half_range

    def input_shapes(self, side: int) -> list[tuple[int, ...]]:
        """Shapes of the inputs, batch left out, for crops of `side`."""
        return [(3, side, side), (self.code,)]

    def drawn(self, crop: Crop) -> tuple[torch.Tensor, ...]:
        """Inputs beyond target and code, which are drawn from the target's landmarks; none here."""
        return ()

    def fuse(self, target: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Features of the target with the identity in them."""
        features = self.encoder((target + 1) / 2 if self.half_range else target)
        for block in self.inject:
            features = block(features, code)
        return features

    def forward(self, target: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Swaps aligned crops.

        Args:
            target: (B, 3, S, S) RGB in [-1, 1].
            code: (B, D) identity, unit length.

        Returns:
            (B, 3, S, S) in [-1, 1].
        """
        return self.decoder(self.fuse(target, code))
