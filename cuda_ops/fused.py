"""What a generator does around its convolutions, in one pass over memory each.

Without gradients, on a device whose native kernels are built, each of these is one op; otherwise (in a traced graph
too) it is put together from upfirdn2d and bias_act, whose gradients of any order then hold.

Letters: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mattface.cuda_ops._bias_act import ACTIVATIONS, NUMBERS, bias_act
from mattface.cuda_ops._implementations import native, runs_native
from mattface.cuda_ops._upfirdn2d import _empty_result, _four, upfirdn2d
from mattface.cuda_ops.filters import upsample2d


def noise_bias_act(
    x: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    strength: torch.Tensor | None = None,
    act: str = "lrelu",
    clamp: float | None = None,
    f: torch.Tensor | None = None,
    padding: int | Sequence[int] = 0,
    filter_gain: float = 1.0,
    overwrite: bool = False,
) -> torch.Tensor:
    """Computes clamp(gain * act(filter(x) * scale + noise * strength + b)) with the activation's own gain.

    Args:
        x: (B, C, H, W) floating point.
        b: (C,) bias.
        scale: (B, C) factors, or None.
        noise: (B or 1, 1, H', W') of the result's size, or None.
        strength: () factor of the noise; None is 1.
        act: activation of `bias_act`.
        clamp: limit of the absolute value of the result.
        f: filter of `upfirdn2d`, or None to leave it out.
        padding: as in `upfirdn2d`, with `f` only.
        filter_gain: factor of the filter.
        overwrite: True gives x's memory away, which saves fresh memory.

    Returns:
        (B, C, H', W') of x's type and layout; H' W' are H W without a filter.

    Raises:
        ValueError: `act` is unknown, or `scale` or `noise` have another shape.
        TypeError: see `bias_act`.
    """
    _check(x, b, scale, act)
    held = [t for t in (x, b, scale, noise, strength) if t is not None]
    if not _may_fuse(x, *held):
        return _composed(x, b, scale, noise, strength, act, clamp, f, padding, filter_gain, overwrite)
    limit = -1.0 if clamp is None else float(clamp)
    if f is None and overwrite and _dense(x):
        _finish_(x, b, scale, noise, strength, act, limit)
        return x
    return _filter_and_finish(x, f, _four(padding) if f is not None else [0] * 4, filter_gain, b, scale, noise,
                              strength, act, limit)  # fmt: skip


def upsample_add(x: torch.Tensor, f: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Adds `upsample2d(x, f)` to `base`, in place without gradients.

    Args:
        x: (B, C, H, W).
        f: filter from `setup_filter`.
        base: (B, C, 2 H, 2 W) of x's type; given away.

    Returns:
        The sum.
    """
    if not _may_fuse(x, x, base) or not _dense(base) or x.dtype != base.dtype:
        return base.add(upsample2d(x, f))
    _add_upsampled_(base, x, f)
    return base


def _may_fuse(x: torch.Tensor, *held: torch.Tensor) -> bool:
    """Whether nothing wants gradients and native kernels are there; a graph being traced gets the parts."""
    graded = torch.is_grad_enabled() and any(t.requires_grad for t in held)
    return not graded and not torch.compiler.is_compiling() and runs_native(x)


def _check(x: torch.Tensor, b: torch.Tensor, scale: torch.Tensor | None, act: str) -> None:
    if x.ndim != 4 or b.shape != (x.shape[1],):
        raise ValueError(
            f"noise_bias_act: x must be (B, C, H, W) and b (C,); got {tuple(x.shape)} and {tuple(b.shape)}."
        )
    if scale is not None and scale.shape != x.shape[:2]:
        raise ValueError(f"noise_bias_act: scale must be {tuple(x.shape[:2])}; got {tuple(scale.shape)}.")
    if act not in ACTIVATIONS:
        raise ValueError(f"noise_bias_act: act must be one of {', '.join(ACTIVATIONS)}; got {act!r}.")


def _composed(
    x: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    strength: torch.Tensor | None,
    act: str,
    clamp: float | None,
    f: torch.Tensor | None,
    padding: int | Sequence[int],
    filter_gain: float,
    overwrite: bool,
) -> torch.Tensor:
    """The same from differentiable ops, pass by pass."""
    y = x if f is None else upfirdn2d(x, f, padding=padding, gain=filter_gain)
    if noise is not None:
        noise = noise.to(y.dtype)
        noise = noise if strength is None else noise * strength.to(y.dtype)
    if scale is not None:
        factors = scale[:, :, None, None].to(y.dtype)
        y = y * factors if noise is None else torch.addcmul(noise, y, factors)
    elif noise is not None:  # fresh memory costs more than the sum
        y = y.add_(noise) if overwrite or f is not None else y + noise
    return bias_act(y, b.to(y.dtype), act=act, clamp=clamp)


def _dense(x: torch.Tensor) -> bool:
    """Whether x fills its memory in one of the two layouts of pictures."""
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _exact_noise(x: torch.Tensor, noise: torch.Tensor | None, size: Sequence[int]) -> torch.Tensor | None:
    """Noise in the type the kernels compute in."""
    if noise is None:
        return None
    if noise.shape not in ((1, 1, *size), (x.shape[0], 1, *size)):
        raise ValueError(f"noise_bias_act: noise must be (1 or B, 1, {size[0]}, {size[1]}); got {tuple(noise.shape)}.")
    return noise.to(torch.promote_types(x.dtype, torch.float32)).contiguous()


def _packed(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.contiguous()


@torch.library.custom_op("mattface::noise_bias_act_", mutates_args=("x",))
def _finish_(
    x: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    strength: torch.Tensor | None,
    act: str,
    clamp: float,
) -> None:
    """In place; x is dense. A negative clamp is none."""
    samples, channels, height, width = x.shape
    grain = _exact_noise(x, noise, (height, width))
    if x.numel():
        last = x.stride(1) == 1 and channels > 1
        stated = (NUMBERS[act], ACTIVATIONS[act].alpha, ACTIVATIONS[act].gain, clamp)
        native(x).epilogue_(
            x, x, _packed(scale), grain, strength, _packed(b), samples, channels, height * width, last, *stated
        )


@torch.library.custom_op("mattface::upfirdn2d_noise_bias_act", mutates_args=())
def _filter_and_finish(
    x: torch.Tensor,
    f: torch.Tensor | None,
    pad: list[int],
    filter_gain: float,
    b: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    strength: torch.Tensor | None,
    act: str,
    clamp: float,
) -> torch.Tensor:
    y = _empty_result(x, f, [1, 1], [1, 1], pad)
    grain = _exact_noise(x, noise, y.shape[2:])
    if y.numel():
        stated = (NUMBERS[act], ACTIVATIONS[act].alpha, ACTIVATIONS[act].gain, clamp)
        native(x).upfirdn2d_epilogue_(
            y, x, _packed(f), [1, 1], [1, 1], pad, False, filter_gain, _packed(scale), grain, strength, _packed(b),
            *stated,
        )  # fmt: skip
    return y


@_filter_and_finish.register_fake
def _(x, f, pad, filter_gain, b, scale, noise, strength, act, clamp):  # type: ignore[no-untyped-def]
    return _empty_result(x, f, [1, 1], [1, 1], pad)


@torch.library.custom_op("mattface::upsample_add_", mutates_args=("base",))
def _add_upsampled_(base: torch.Tensor, x: torch.Tensor, f: torch.Tensor) -> None:
    """In place; base is dense."""
    taps = f.shape[0], f.shape[-1]
    if base.shape != (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]):
        raise ValueError(f"upsample_add: base must be twice the size of x {tuple(x.shape)}; got {tuple(base.shape)}.")
    pad = [(taps[1] + 1) // 2, (taps[1] - 2) // 2, (taps[0] + 1) // 2, (taps[0] - 2) // 2]
    if base.numel():
        native(x).upfirdn2d_(base, x, f.contiguous(), [2, 2], [1, 1], pad, False, 4.0, True)
