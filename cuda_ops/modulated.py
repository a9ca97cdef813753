"""modulated_conv2d: StyleGAN2's convolution (Karras et al. 2020, eq. 1 to 3) with all that follows it.

Modulating the weights (w_oc * style_c) and modulating the input (x_c * style_c) give the same numbers. The first costs
a pass over the weights, the second a pass over the input, lets samples share one convolution, and leaves the weights
constant, so that they can be packed once. The cheaper one is taken.

Letters: B batch, C channels in, O channels out, K side of the kernel, H W height and width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from mattface.cuda_ops._arguments import check_device, check_filter, check_flag, check_tensor
from mattface.cuda_ops._bias_act import activation, limit_of
from mattface.cuda_ops._implementations import Impl, require, runs_native
from mattface.cuda_ops._packing import SMALLEST, Packed, convolve, packed, same, tiles_pay
from mattface.cuda_ops._upconv import KERNEL, TAPS, upconv
from mattface.cuda_ops.fused import Epilogue, noise_bias_act, wants_gradients
from mattface.cuda_ops.precision import autocasts, exact_type

Modulate = Literal["auto", "weight", "input"]
OP = "modulated_conv2d"


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    *,
    b: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    strength: torch.Tensor | None = None,
    act: str = "linear",
    clamp: float | None = None,
    up: int = 1,
    f: torch.Tensor | None = None,
    demodulate: bool = True,
    modulate: Modulate = "auto",
    impl: Impl = "auto",
) -> torch.Tensor:
    """Computes clamp(gain * act(conv(x, weight modulated by style) + noise * strength + b)), the activation's own gain.

    `up=2` is a transposed convolution of stride 2 followed by the filter `f` with gain 4. Without gradients, on a CPU
    with native kernels, channels-last, a (4,) filter and a 3x3 kernel, all of it happens while the columns of the
    convolution are in the cache: the unfiltered picture is never stored.

    What depends on the weights alone is kept for as long as the weights are (their energy, and copies in the layouts
    that convolutions want) and made again when an in-place operation changes them; changes through `weight.data` go
    unseen. Float16 weights and styles are divided by their largest values first, which keeps sums in range and cancels
    in the normalisation. Under autocast `x` and `weight` take autocast's type.

    Args:
        x: (B, C, H, W) floating point; channels-last is fastest.
        weight: (O, C, K, K) with odd K; 3 when up is 2.
        style: (B, C) of any floating point type; used in at least single precision.
        b: (O,) bias, or None.
        noise: (B or 1, 1, H', W') of the result's size, or None.
        strength: () factor of the noise; None is 1.
        act: activation of `bias_act`.
        clamp: limit of the absolute value of the result.
        up: 1 or 2.
        f: filter of `upfirdn2d` for up=2: (N,) separable or (N, N); None filters nothing and gives (2 H + 1, 2 W + 1).
        demodulate: divide each output channel by the norm of its modulated weights (eq. 3).
        modulate: "auto", "weight" (for one sample, or K = 1) or "input".
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda": what runs around the convolution, which is torch's.

    Returns:
        (B, O, H up, W up) of x's type (autocast's type under autocast).

    Raises:
        TypeError: wrong type of tensor.
        ValueError: a shape, device, factor or choice that does not fit.
        RuntimeError: the requested implementation is not available.
    """
    _check(x, weight, style, up, f, demodulate, modulate)
    require(impl, OP, x)
    activation(OP, act)
    clamp = limit_of(OP, clamp)
    dtype = torch.get_autocast_dtype(x.device.type) if autocasts(x.device) else x.dtype
    x, style = x.to(dtype), style.to(exact_type(dtype))
    traced = torch.compiler.is_compiling()
    plain = traced or wants_gradients(x, weight, style, b, noise, strength)
    pack = (Packed if traced or wants_gradients(weight) else packed)(weight, dtype, demodulate)
    bare = b is None and noise is None and clamp is None and act == "linear"
    b = x.new_zeros(weight.shape[0]) if b is None else b.to(dtype)
    if dtype == torch.float16 and demodulate:
        style = style / style.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
    norm = (style.square() @ pack.energy.t() + SMALLEST).rsqrt() if demodulate else None  # (B, O)
    by_weight = _by_weight(x, weight, modulate, up == 1 and not plain and tiles_pay(x, weight))
    if not plain and impl != "reference" and _folds(x, weight, up, f):
        if by_weight:
            columns, scale = pack.modulated_columns(style, norm), None
        else:
            x, columns, scale = x * style[:, :, None, None].to(dtype), pack.columns, norm
        return upconv(x, columns, f, Epilogue(b, scale, noise, strength, act, clamp))  # type: ignore[arg-type]
    y, scale = _convolved(x, pack, style, norm, up, by_weight, plain)
    if bare and scale is None and f is None:
        return y
    pad = [0] * 4 if f is None else [(f.shape[-1] - 1) // 2, (f.shape[-1] - 2) // 2] * 2
    return noise_bias_act(y, b, scale, noise, strength, act, clamp, f, pad, up**2, True, impl)


def _check(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    up: int,
    f: torch.Tensor | None,
    demodulate: bool,
    modulate: str,
) -> None:
    """One-line errors; see `modulated_conv2d`."""
    for name, t, rank in (("x", x, 4), ("weight", weight, 4), ("style", style, 2)):
        check_tensor(OP, name, t)
        check_device(OP, name, t, x)
        if t.ndim != rank:
            raise ValueError(f"{OP}: {name} must have {rank} dimensions; got shape {tuple(t.shape)}.")
    check_flag(OP, "demodulate", demodulate)
    check_filter(OP, f)
    side = weight.shape[-1]
    if weight.shape[1:] != (x.shape[1], side, side) or side % 2 == 0:
        raise ValueError(f"{OP}: weight must be (O, {x.shape[1]}, K, K) with odd K; got {tuple(weight.shape)}.")
    if style.shape != x.shape[:2]:
        raise ValueError(f"{OP}: style must be {tuple(x.shape[:2])}; got {tuple(style.shape)}.")
    if up not in (1, 2) or isinstance(up, bool) or (up == 2 and side != 3) or (up == 1 and f is not None):
        raise ValueError(f"{OP}: up must be 1 without f, or 2 with a 3x3 weight; got {up!r} with a {side}x{side} one.")
    if modulate not in ("auto", "weight", "input"):
        raise ValueError(f'{OP}: modulate must be "auto", "weight" or "input"; got {modulate!r}.')
    if modulate == "weight" and x.shape[0] != 1 and side != 1:
        raise ValueError(f'{OP}: modulate="weight" needs one sample or K = 1; got {x.shape[0]} samples and K = {side}.')


def _by_weight(x: torch.Tensor, weight: torch.Tensor, modulate: Modulate, constant_pays: bool) -> bool:
    """Whether the weights are modulated: that is cheaper where there are fewer of them than values of the input.

    Not where constant weights pay: where a convolution takes them transformed.
    """
    if modulate != "auto":
        return modulate == "weight"
    if constant_pays:
        return False
    return weight.shape[-1] == 1 or (x.shape[0] == 1 and weight.numel() <= x.numel())


def _folds(x: torch.Tensor, weight: torch.Tensor, up: int, f: torch.Tensor | None) -> bool:
    """Whether the folded up-convolution computes this."""
    fits = up == 2 and weight.shape[-1] == KERNEL and f is not None and f.shape == (TAPS,) and f.device == x.device
    return fits and x.device.type == "cpu" and runs_native(x) and x.stride(1) == 1 and x.numel() > 0


def _convolved(
    x: torch.Tensor,
    pack: Packed,
    style: torch.Tensor,
    norm: torch.Tensor | None,
    up: int,
    by_weight: bool,
    plain: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The convolution, and (B, O) factors still to be applied."""
    if not by_weight:
        x = x * style[:, :, None, None].to(x.dtype)
        if up == 2:
            return F.conv_transpose2d(x, pack.weight.transpose(0, 1), stride=2), norm
        return (same(x, pack.weight) if plain else pack.convolve(x)), norm
    factors = style[:, None] if norm is None else style[:, None] * norm[:, :, None]  # (B, O, C)
    if pack.weight.shape[-1] == 1 and x.shape[0] != 1:
        rows = x.permute(0, 2, 3, 1).flatten(1, 2) @ (pack.weight[:, :, 0, 0] * factors).to(x.dtype).transpose(1, 2)
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), None
    weight = (pack.weight * factors[0, :, :, None, None]).to(x.dtype)
    if up == 2:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), None
    return (same(x, weight) if plain else convolve(x, weight)), None
