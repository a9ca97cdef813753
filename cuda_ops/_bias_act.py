"""bias_act: add a bias, apply an activation, scale, clamp. One op, stated once.

Its gradient is written with differentiable torch operations only, so gradients of gradients exist whichever kernel runs
the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mattface.cuda_ops._arguments import check_device, check_tensor, matched, number, shown
from mattface.cuda_ops._implementations import Impl, native, require, runs_native
from mattface.cuda_ops._pool import empty_like
from mattface.cuda_ops.precision import exact_type, without_autocast

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
"""Klambauer et al., Self-Normalizing Neural Networks, 2017."""


@dataclass(frozen=True)
class Activation:
    """An activation with its slope, both functions of (t, alpha) made of differentiable operations.

    Attributes:
        value: in place on a tensor that nobody else holds.
        slope: derivative with respect to t; None for the piecewise linear ones, whose slope follows from the result.
        alpha: default of the parameter.
        gain: default factor, which keeps the variance of a normal input.
    """

    value: Callable[[torch.Tensor, float], torch.Tensor]
    slope: Callable[[torch.Tensor, float], torch.Tensor] | None
    alpha: float = 0.0
    gain: float = 1.0


def _sigmoid_slope(t: torch.Tensor, alpha: float) -> torch.Tensor:
    s = torch.sigmoid(t)
    return s * (1 - s)


def _elu_slope(t: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.exp(t.clamp(max=0))


def _selu_slope(t: torch.Tensor, alpha: float) -> torch.Tensor:
    return SELU_SCALE * torch.where(t > 0, torch.ones_like(t), SELU_ALPHA * torch.exp(t.clamp(max=0)))


def _swish_slope(t: torch.Tensor, alpha: float) -> torch.Tensor:
    s = torch.sigmoid(t)
    return s * (1 + t * (1 - s))


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda t, a: t, None, alpha=1.0),
    "relu": Activation(lambda t, a: F.relu_(t), None, gain=math.sqrt(2)),
    "lrelu": Activation(lambda t, a: F.leaky_relu_(t, a), None, alpha=0.2, gain=math.sqrt(2)),
    "tanh": Activation(lambda t, a: torch.tanh(t), lambda t, a: 1 - torch.tanh(t).square()),
    "sigmoid": Activation(lambda t, a: torch.sigmoid(t), _sigmoid_slope),
    "elu": Activation(lambda t, a: F.elu(t), _elu_slope),
    "selu": Activation(lambda t, a: F.selu(t), _selu_slope),
    "softplus": Activation(lambda t, a: F.softplus(t), lambda t, a: torch.sigmoid(t)),
    "swish": Activation(lambda t, a: F.silu(t), _swish_slope, gain=math.sqrt(2)),
}


NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}
"""What the native kernels call the activations."""


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Computes clamp(gain * act(x + b)), in at least single precision and rounded once.

    Under autocast the op runs in the type of `x`, and `b` is cast to it; elsewhere a bias of another type is an error.

    Args:
        x: floating point tensor of any shape.
        b: (x.shape[dim],) bias of the same type, or None.
        dim: dimension the bias belongs to; without a bias it is not used.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: slope of lrelu below zero, at least 0; None takes 0.2.
        gain: factor after the activation; None takes the activation's own (sqrt(2) for relu, lrelu and swish).
        clamp: limit of the absolute value of the result, at least 0; None for no limit.
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda".

    Returns:
        A tensor of `x`'s shape, type and memory format. NaN stays NaN; the sign of a zero is not kept.

    Raises:
        TypeError: wrong type of tensor or number, or a bias of another type.
        ValueError: unknown activation, bias of another shape or device, alpha, gain or clamp out of range.
        RuntimeError: the requested implementation is not available.
    """
    op = "bias_act"
    check_tensor(op, "x", x)
    require(impl, op, x)
    spec, limit = activation(op, act), limit_of(op, clamp)
    alpha = spec.alpha if alpha is None else number(op, "alpha", alpha)
    if alpha < 0:
        raise ValueError(f"{op}: alpha must be at least 0; got {alpha}.")
    gain = spec.gain if gain is None else number(op, "gain", gain)
    dim = 0 if b is None else _dimension(x, dim)
    b = None if b is None else _bias(x, b, dim)
    run = _reference if impl == "reference" else _op
    return run(x, b, dim, act, alpha, gain, limit)


def activation(op: str, act: str) -> Activation:
    """The activation of a name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise ValueError(f"{op}: act must be one of {', '.join(ACTIVATIONS)}; got {shown(act)}.")
    return ACTIVATIONS[act]


def limit_of(op: str, clamp: float | None) -> float | None:
    """The number that `clamp` is.

    Raises:
        TypeError: not a number.
        ValueError: below zero or not finite.
    """
    limit = None if clamp is None else number(op, "clamp", clamp)
    if limit is not None and limit < 0:
        raise ValueError(f"{op}: clamp must be None or at least 0; got {limit:g}.")
    return limit


def _bias(x: torch.Tensor, b: torch.Tensor, dim: int) -> torch.Tensor:
    """A bias that belongs to dimension `dim` of `x`, counted from the front."""
    check_tensor("bias_act", "b", b)
    if b.shape != (x.shape[dim],):
        raise ValueError(f"bias_act: b must have shape ({x.shape[dim]},) for dim {dim}; got {tuple(b.shape)}.")
    check_device("bias_act", "b", b, x)
    return matched("bias_act", "b", b, x)


def _dimension(x: torch.Tensor, dim: int) -> int:
    """`dim` counted from the front."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"bias_act: dim must be an integer; got {shown(dim)}.")
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"bias_act: dim must be a dimension of x, which has {x.ndim}; got {dim}.")
    return dim % x.ndim


def _along(b: torch.Tensor, dim: int, ndim: int) -> torch.Tensor:
    """Bias with ones in the other dimensions."""
    return b.reshape([-1 if i == dim else 1 for i in range(ndim)])


def _biased(x: torch.Tensor, b: torch.Tensor | None, dim: int, factor: float) -> torch.Tensor:
    """A new tensor factor * (x + b) in one pass."""
    if b is None:
        return x * factor
    return torch.add(_along(b * factor, dim, x.ndim), x, alpha=factor)


def _reference(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """Plain PyTorch in as few passes as it allows, differentiable by autograd itself."""
    spec, exact = ACTIVATIONS[act], exact_type(x.dtype)
    with without_autocast(x.device):
        t, u = x.to(exact), None if b is None else b.to(exact)
        if spec.slope is None and gain > 0:  # act(gain * t) = gain * act(t)
            y = spec.value(_biased(t, u, dim, gain), alpha)
        else:
            y = spec.value(_biased(t, u, dim, 1.0), alpha)
            y = y * gain if gain != 1 else y
        if clamp is not None:
            y = y.clamp(-clamp, clamp) if y.requires_grad else y.clamp_(-clamp, clamp)
        return y.to(x.dtype)


@torch.library.custom_op("mattface::bias_act", mutates_args=())
def _op(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """The native kernel where it was built, else the reference."""
    if not runs_native(x):
        y = _reference(x, b, dim, act, alpha, gain, clamp)
        return y if y.stride() == x.stride() else torch.empty_like(x).copy_(y)
    y = empty_like(x)  # dense, in x's order where x is dense
    if y.numel():
        source = x if x.stride() == y.stride() else y.copy_(x)
        layout = (1, 1, y.numel(), False) if b is None else _runs(y, dim)
        bias = None if b is None else b.contiguous()
        stated = (NUMBERS[act], alpha, gain, -1.0 if clamp is None else clamp)
        native(x).epilogue_(y, source, None, None, None, bias, *layout, *stated)
    return y


def _runs(y: torch.Tensor, dim: int) -> tuple[int, int, int, bool]:
    """(samples, channels, pixels, channels are last) of a dense tensor's memory, channels being those of `dim`."""
    channels, inner = y.shape[dim], y.stride(dim)
    if channels == 1:
        return 1, 1, y.numel(), False
    outer = y.numel() // (channels * inner)
    return (1, channels, outer, True) if inner == 1 else (outer, channels, inner, False)


@_op.register_fake
def _fake(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    return torch.empty_like(x)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, b, ctx.dim, act, alpha, gain, clamp = inputs
    ctx.stated = (act, alpha, gain, clamp)
    if ACTIVATIONS[act].slope is None:  # the result tells the slope: nothing else is kept alive
        ctx.save_for_backward(None, None, output if act != "linear" or clamp is not None else None)
    else:
        ctx.save_for_backward(x, b, None)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    x, b, y = ctx.saved_tensors
    if ACTIVATIONS[ctx.stated[0]].slope is None:
        dx = _linear_gradient(grad, y, *ctx.stated)
    else:
        exact = exact_type(x.dtype)
        t = _biased(x.to(exact), None if b is None else b.to(exact), ctx.dim, 1.0)
        dx = _curved_gradient(grad.to(exact), t, *ctx.stated).to(x.dtype)
    db = None
    if ctx.needs_input_grad[1]:
        others = [i for i in range(dx.ndim) if i != ctx.dim]
        db = dx.sum(others) if others else dx
    return dx if ctx.needs_input_grad[0] else None, db, None, None, None, None, None


def _linear_gradient(
    grad: torch.Tensor, y: torch.Tensor | None, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """Gradient of the piecewise linear activations from their result."""
    if clamp is not None:
        grad = torch.ops.aten.hardtanh_backward(grad, y, -clamp, clamp)
    if act != "linear":
        sign = y if gain >= 0 else -y  # type: ignore[operator]
        grad = torch.ops.aten.leaky_relu_backward(grad, sign, alpha if act == "lrelu" else 0.0, False)
    return grad * gain


def _curved_gradient(
    grad: torch.Tensor, t: torch.Tensor, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """Gradient of the other activations from t = x + b."""
    spec = ACTIVATIONS[act]
    if clamp is not None:
        inside = (spec.value(t, alpha) * gain).abs() <= clamp
        grad = torch.where(inside, grad, torch.zeros_like(grad))
    return grad * spec.slope(t, alpha) * gain  # type: ignore[misc]


_op.register_autograd(_backward, setup_context=_setup_context)
