"""modulated_depthwise: the depth-wise 3x3 convolution of MobileStyleGAN, with the wavelet up-sampling before it.

Letters: B batch, C channels, H W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mattface.cuda_ops._arguments import check_device, check_tensor
from mattface.cuda_ops._implementations import Impl, native, require, runs_native
from mattface.cuda_ops._pool import empty
from mattface.cuda_ops.fused import wants_gradients
from mattface.cuda_ops.precision import exact_type

OP = "modulated_depthwise"
KERNEL = (1, 3, 3)


def inverse_haar(x: torch.Tensor) -> torch.Tensor:
    """One level of the inverse Haar transform.

    Args:
        x: (B, 4 C, H, W): a low band a and three high bands b, c, d of C channels each.

    Returns:
        (B, C, 2 H, 2 W), channels-last where x is. Every 2x2 block is
        1/2 [[a + b + c + d, a + b - c - d], [a - b + c - d, a - b - c + d]].

    Raises:
        ValueError: channels that do not divide by four.
    """
    check_tensor("inverse_haar", "x", x)
    if x.ndim != 4 or x.shape[1] % 4:
        raise ValueError(f"inverse_haar: x must be (B, 4 C, H, W); got shape {tuple(x.shape)}.")
    a, b, c, d = (x * 0.5).chunk(4, 1)
    upper, lower, right, right_lower = a + b, a - b, c + d, c - d
    corners = torch.stack((upper + right, upper - right, lower + right_lower, lower - right_lower), 2)
    whole = F.pixel_shuffle(corners.flatten(1, 2), 2)  # (B, C * 4, H, W)
    return whole.contiguous(memory_format=torch.channels_last) if x.stride(1) == 1 else whole


def modulated_depthwise(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, bands: torch.Tensor | None = None, impl: Impl = "auto"
) -> torch.Tensor:
    """Computes conv(u * style) channel by channel, where u is x, or the inverse Haar transform of x * bands.

    Without gradients, on a CPU with native kernels and channels last, all of it is one pass over memory.

    Args:
        x: (B, C, H, W) floating point, or (B, 4 C, H, W) with `bands`; channels-last is fastest.
        weight: (C, 1, 3, 3) of any floating point type.
        style: (B, C) factors of any floating point type.
        bands: (B, 4 C) factors of the four bands, see `inverse_haar`; None without the transform.
        impl: "auto", "reference" (plain PyTorch) or "cpu".

    Returns:
        (B, C, H, W) of x's type, zeros assumed beyond the border; (B, C, 2 H, 2 W) with `bands`.

    Raises:
        TypeError: wrong type of tensor.
        ValueError: a shape, device or choice that does not fit.
        RuntimeError: the requested implementation is not available.
    """
    _check(x, weight, style, bands)
    require(impl, OP, x)
    if impl == "cuda":
        raise RuntimeError(f'{OP}: there is no CUDA kernel. Take impl="auto", which runs plain PyTorch there.')
    if impl == "reference" or wants_gradients(x, weight, style, bands) or not _fits(x):
        return _reference(x, weight, style, bands)
    return _depthwise(x, weight, style, bands)


def _check(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, bands: torch.Tensor | None) -> None:
    """One-line rejections; see `modulated_depthwise`."""
    for name, t in (("x", x), ("weight", weight), ("style", style), ("bands", bands)):
        if t is not None:
            check_tensor(OP, name, t)
            check_device(OP, name, t, x)
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1:] != KERNEL:
        raise ValueError(
            f"{OP}: x must be (B, C, H, W) and weight (C, 1, 3, 3); got {tuple(x.shape)}, {tuple(weight.shape)}."
        )
    many = len(weight) * (1 if bands is None else 4)
    if x.shape[1] != many or style.shape != (len(x), len(weight)):
        raise ValueError(
            f"{OP}: for weight {tuple(weight.shape)} x must have {many} channels and style be ({len(x)}, "
            f"{len(weight)}); got {tuple(x.shape)}, {tuple(style.shape)}."
        )
    if bands is not None and bands.shape != x.shape[:2]:
        raise ValueError(f"{OP}: bands must be {tuple(x.shape[:2])}; got {tuple(bands.shape)}.")


def _fits(x: torch.Tensor) -> bool:
    """Whether the kernel takes this layout: the channels of a pixel next to each other."""
    return x.device.type == "cpu" and runs_native(x) and x.stride(1) == 1 and x.numel() > 0


def _reference(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, bands: torch.Tensor | None
) -> torch.Tensor:
    """Plain PyTorch, differentiable by autograd itself, in x's type."""
    if bands is not None:
        x = inverse_haar(x * bands[:, :, None, None].to(x.dtype))
    x = x * style[:, :, None, None].to(x.dtype)
    return F.conv2d(x, weight.to(x.dtype), padding=1, groups=len(weight))


@torch.library.custom_op("mattface::modulated_depthwise", mutates_args=())
def _depthwise(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, bands: torch.Tensor | None
) -> torch.Tensor:
    """The native kernel where it was built, else the reference."""
    if not _fits(x):
        return _reference(x, weight, style, bands).contiguous(memory_format=torch.channels_last)
    exact, scale = exact_type(x.dtype), 1 if bands is None else 2
    size = (x.shape[2] * scale, x.shape[3] * scale)
    y = empty((len(x), len(weight), *size), x.dtype, torch.channels_last, x.device)
    kernel = weight.to(exact).flatten(1).t().contiguous()
    factors = style.to(exact)
    if bands is not None:  # the second modulation and the halves of the transform join the first
        factors = bands.to(exact) * factors.repeat(1, 4) * 0.5
    native(x).depthwise_(y, x, kernel, factors.contiguous(), bands is not None)
    return y


@_depthwise.register_fake
def _fake_depthwise(x, weight, style, bands):  # type: ignore[no-untyped-def]
    scale = 1 if bands is None else 2
    shape = (len(x), len(weight), x.shape[2] * scale, x.shape[3] * scale)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)
