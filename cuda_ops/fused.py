"""What a generator does around its convolutions, in one pass over memory each.

Where nothing wants gradients each of these is one op, in a traced graph too. Where something does, it is put together
from upfirdn2d and bias_act, whose gradients of any order hold.

Letters: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mattface.cuda_ops._arguments import check_device, check_filter, check_flag, check_tensor, matched, number, paddings
from mattface.cuda_ops._bias_act import ACTIVATIONS, NUMBERS, activation, bias_act, limit_of
from mattface.cuda_ops._implementations import Impl, native, require, runs_native
from mattface.cuda_ops._pool import empty
from mattface.cuda_ops._upfirdn2d import check_rank, check_sizes, empty_result, layout_of, result_shape, upfirdn2d
from mattface.cuda_ops.filters import upsample2d, upsampling_pads
from mattface.cuda_ops.precision import exact_type, without_autocast

ONE = [1, 1]


class Prefilter(NamedTuple):
    """What `noise_bias_act` filters with, if it does: a filter of `upfirdn2d`, four paddings, a factor."""

    f: torch.Tensor | None
    pad: list[int]
    gain: float


class Epilogue(NamedTuple):
    """What `noise_bias_act` does after its filter; the fields are its arguments."""

    b: torch.Tensor
    scale: torch.Tensor | None
    noise: torch.Tensor | None
    strength: torch.Tensor | None
    act: str
    clamp: float | None

    def operands(self, dtype: torch.dtype) -> tuple[torch.Tensor | None, ...]:
        """Scale, noise, strength and bias as the kernels want them for a picture of that dtype."""
        noise = None if self.noise is None else self.noise.to(exact_type(dtype))
        return _packed(self.scale), _packed(noise), self.strength, _packed(self.b)

    def numbers(self) -> tuple[int, float, float, float]:
        """Activation, alpha, gain and clamp as the kernels want them; a negative clamp is none."""
        kind = ACTIVATIONS[self.act]
        return NUMBERS[self.act], kind.alpha, kind.gain, -1.0 if self.clamp is None else self.clamp


NO_FILTER = Prefilter(None, [0] * 4, 1.0)


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
    impl: Impl = "auto",
) -> torch.Tensor:
    """Computes clamp(gain * act(filter(x) * scale + noise * strength + b)) with the activation's own gain.

    Without gradients all of it is computed in at least single precision and rounded once; with gradients it is done in
    steps, each of which rounds. Under autocast the op runs in the type of `x` and `b` is cast to it; elsewhere a bias
    of another type is an error.

    Args:
        x: (B, C, H, W) floating point.
        b: (C,) bias of x's type.
        scale: (B, C) factors of any floating point type, or None.
        noise: (B or 1, 1, H', W') of the result's size and any floating point type, or None.
        strength: () factor of the noise of any floating point type; None is 1. Without noise it is not used.
        act: activation of `bias_act`.
        clamp: limit of the absolute value of the result.
        f: filter of `upfirdn2d`, or None to leave it out.
        padding: as in `upfirdn2d`, with `f` only.
        filter_gain: factor of the filter.
        overwrite: True gives x's memory away, which saves fresh memory without gradients and `f`.
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda".

    Returns:
        (B, C, H', W') of x's type and layout; H' W' are H W without a filter. `x` itself when that was overwritten.

    Raises:
        TypeError: wrong type of tensor or number, or a bias of another type.
        ValueError: unknown activation; a shape, device, factor or clamp that does not fit.
        RuntimeError: the requested implementation is not available.
    """
    op = "noise_bias_act"
    check_tensor(op, "x", x)
    require(impl, op, x)
    activation(op, act)
    limit, gain = limit_of(op, clamp), number(op, "filter_gain", filter_gain)
    check_flag(op, "overwrite", overwrite)
    check_filter(op, f)
    check_rank(op, x)
    pad = [0] * 4 if f is None else paddings(op, padding)
    if f is not None:
        check_sizes(op, x, f, ONE, pad)
    before, after = Prefilter(f, pad, gain), Epilogue(b, scale, noise, strength, act, limit)
    _check_operands(x, after, result_shape(x, f, ONE, ONE, pad))
    after = after._replace(b=matched(op, "b", b, x))
    if impl == "reference":
        return _reference(x, before, after)
    if wants_gradients(x, b, scale, noise, strength):
        return _composed(x, before, after, "auto")
    if f is None and _may_write(x, overwrite):
        _finish_(x, *after)
        return x
    return _finish(x, *after, *before)


def upsample_add(x: torch.Tensor, f: torch.Tensor, base: torch.Tensor, impl: Impl = "auto") -> torch.Tensor:
    """Adds `upsample2d(x, f)` to `base`, in place where nothing wants gradients and no graph is being traced.

    Under autocast `x` is cast to the type of `base`; elsewhere another type is an error.

    Args:
        x: (B, C, H, W) floating point.
        f: filter from `setup_filter`.
        base: (B, C, 2 H, 2 W) of x's type; given away.
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda".

    Returns:
        The sum, of base's type and layout. `base` itself when that was overwritten.

    Raises:
        TypeError: wrong type of tensor.
        ValueError: a shape or device that does not fit.
        RuntimeError: the requested implementation is not available.
    """
    op = "upsample_add"
    check_tensor(op, "x", x)
    check_tensor(op, "base", base)
    check_tensor(op, "f", f)
    check_filter(op, f)
    require(impl, op, x)
    check_sizes(op, x, f, [2, 2], upsampling_pads(f, [2, 2], [0] * 4))
    _check_shape(op, "base", base, x, ((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]),))
    x = matched(op, "x", x, base, "base")
    if impl == "reference":
        return _added(base, x, f)
    if wants_gradients(x, base):
        return base + upsample2d(x, f)
    if _may_write(base, True):
        _add_upsampled_(base, x, f)
        return base
    return _add_upsampled(base, x, f)


def _check_operands(x: torch.Tensor, given: Epilogue, shape: tuple[int, int, int, int]) -> None:
    """Rejects operands that do not fit `x` or the result's shape."""
    samples, channels, height, width = shape
    fitting = {
        "b": (given.b, ((channels,),)),
        "scale": (given.scale, ((samples, channels),)),
        "noise": (given.noise, ((1, 1, height, width), (samples, 1, height, width))),
        "strength": (given.strength, ((),)),
    }
    for name, (t, shapes) in fitting.items():
        if t is not None or name == "b":
            check_tensor("noise_bias_act", name, t)
            _check_shape("noise_bias_act", name, t, x, shapes)  # type: ignore[arg-type]


def _check_shape(op: str, name: str, t: torch.Tensor, x: torch.Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Rejects a tensor of none of these shapes, or one that is not on x's device."""
    if tuple(t.shape) not in shapes:
        wanted = " or ".join(str(tuple(map(int, shape))) for shape in dict.fromkeys(shapes))
        raise ValueError(f"{op}: {name} must have shape {wanted} for x {tuple(x.shape)}; got {tuple(t.shape)}.")
    check_device(op, name, t, x)


def wants_gradients(*held: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in held)


def _may_write(t: torch.Tensor, given: bool) -> bool:
    """Whether t's memory may take the result: given away, dense, and no graph is being traced."""
    return given and not torch.compiler.is_compiling() and _dense(t)


def _dense(t: torch.Tensor) -> bool:
    """Whether t fills its memory in one of the two layouts of pictures."""
    return t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)


def _composed(x: torch.Tensor, before: Prefilter, after: Epilogue, impl: Impl) -> torch.Tensor:
    """The definition from differentiable ops, pass by pass, in x's type."""
    b, scale, noise, strength, act, clamp = after
    y = x if before.f is None else upfirdn2d(x, before.f, padding=before.pad, gain=before.gain, impl=impl)
    if noise is not None:
        noise = noise.to(y.dtype)
        noise = noise if strength is None else noise * strength.to(y.dtype)
    if scale is not None:
        factors = scale[:, :, None, None].to(y.dtype)
        y = y * factors if noise is None else torch.addcmul(noise, y, factors)
    elif noise is not None:
        y = y + noise
    return bias_act(y, b, act=act, clamp=clamp, impl=impl)


def _reference(x: torch.Tensor, before: Prefilter, after: Epilogue) -> torch.Tensor:
    """Plain PyTorch in at least single precision, rounded once, differentiable by autograd itself."""
    exact = exact_type(x.dtype)
    with without_autocast(x.device):
        t = _composed(x.to(exact), before, after._replace(b=after.b.to(exact)), "reference")
        return t.to(x.dtype).contiguous(memory_format=layout_of(x))


@torch.library.custom_op("mattface::noise_bias_act", mutates_args=())
def _finish(
    x: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    strength: torch.Tensor | None,
    act: str,
    clamp: float | None,
    f: torch.Tensor | None,
    pad: list[int],
    filter_gain: float,
) -> torch.Tensor:
    """The native kernel where it was built, else the reference."""
    before, after = Prefilter(f, pad, filter_gain), Epilogue(b, scale, noise, strength, act, clamp)
    if not runs_native(x):
        return _reference(x, before, after)
    y = empty(result_shape(x, f, ONE, ONE, pad), x.dtype, layout_of(x), x.device)
    if y.numel():
        native(x).upfirdn2d_epilogue_(
            y, x, _packed(f), ONE, ONE, pad, False, filter_gain,
            *after.operands(x.dtype), *after.numbers(),
        )  # fmt: skip
    return y


@_finish.register_fake
def _fake_finish(x, b, scale, noise, strength, act, clamp, f, pad, filter_gain):  # type: ignore[no-untyped-def]
    return empty_result(x, f, ONE, ONE, pad)


@torch.library.custom_op("mattface::noise_bias_act_", mutates_args=("x",))
def _finish_(
    x: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    strength: torch.Tensor | None,
    act: str,
    clamp: float | None,
) -> None:
    """The same without a filter, in place; x is dense."""
    after = Epilogue(b, scale, noise, strength, act, clamp)
    if not runs_native(x):
        x.copy_(_reference(x, NO_FILTER, after))
    elif x.numel():
        samples, channels, height, width = x.shape
        last = x.stride(1) == 1 and channels > 1
        native(x).epilogue_(
            x, x, *after.operands(x.dtype), samples, channels, height * width, last, *after.numbers(),
        )  # fmt: skip


def _packed(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.contiguous()


def _added(base: torch.Tensor, x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Plain PyTorch in at least single precision, rounded once, differentiable by autograd itself."""
    exact = exact_type(x.dtype)
    with without_autocast(x.device):
        t = base.to(exact) + upsample2d(x.to(exact), f, impl="reference")
        return t.to(base.dtype).contiguous(memory_format=layout_of(base))


@torch.library.custom_op("mattface::upsample_add", mutates_args=())
def _add_upsampled(base: torch.Tensor, x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """The native kernel on a copy where it was built, else the reference."""
    if not runs_native(x):
        return _added(base, x, f)
    y = base.clone(memory_format=layout_of(base))
    _add_native(y, x, f)
    return y


@_add_upsampled.register_fake
def _fake_add_upsampled(base, x, f):  # type: ignore[no-untyped-def]
    return torch.empty_like(base, memory_format=layout_of(base))


@torch.library.custom_op("mattface::upsample_add_", mutates_args=("base",))
def _add_upsampled_(base: torch.Tensor, x: torch.Tensor, f: torch.Tensor) -> None:
    """The same in place; base is dense."""
    if runs_native(x):
        _add_native(base, x, f)
    else:
        base.copy_(_added(base, x, f))


def _add_native(base: torch.Tensor, x: torch.Tensor, f: torch.Tensor) -> None:
    """Adds to base, which is dense."""
    if base.numel():
        pad = upsampling_pads(f, [2, 2], [0] * 4)
        native(x).upfirdn2d_(base, x, f.contiguous(), [2, 2], ONE, pad, False, 4.0, True)
