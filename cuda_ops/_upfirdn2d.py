"""upfirdn2d: up-sample by zeros, pad or crop, filter, keep every n-th sample. One op, stated once.

The filter is a constant of the op: gradients flow to `x` only. The gradient of an upfirdn2d is another upfirdn2d (up
and down exchanged, filter turned around), so gradients of any order exist whichever kernel runs.

Letters: B batch, C channels, H W height and width, K filter taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mattface.cuda_ops._implementations import Impl, require, runs_native

LONGEST_OUTER = 8
"""A 1-D filter up to this length is applied as its outer product in one pass, a longer one axis by axis."""
MOST_ZERO_TAPS = 2
"""Uneven padding is absorbed by at most this many zero taps; more would cost more than a padding pass."""


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Resamples every channel of `x` with one FIR filter.

    Each sample is followed by `up - 1` zeros, the result is padded with zeros (negative: cropped), convolved with `f`
    times `gain`, and every `down`-th sample is kept, starting with the first.

    Args:
        x: (B, C, H, W) floating point; channels-last memory is fastest on a CPU and is kept.
        f: (K,) separable or (KH, KW) filter, not normalised here; None is the single tap 1.
        up: factor, or (x, y) factors, at least 1.
        down: factor, or (x, y) factors, at least 1.
        padding: one number, (x, y), or (left, right, top, bottom) in samples after up-sampling.
        flip_filter: False convolves, True correlates.
        gain: finite factor of the result.
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda".

    Returns:
        (B, C, (H * up + top + bottom - KH) // down + 1, the same for W) of `x`'s type.

    Raises:
        TypeError: wrong type of tensor.
        ValueError: wrong rank, device, factor, gain, or a filter larger than the padded image.
        RuntimeError: the implementation asked for is not there.
    """
    require(impl, "upfirdn2d", x)
    ups, downs, pads = _pair(up, "up"), _pair(down, "down"), _four(padding)
    _check(x, f, ups, downs, pads, gain)
    run = _reference if impl == "reference" else _op
    return run(x, f, ups, downs, pads, flip_filter, float(gain))


def output_size(size: int, taps: int, up: int, down: int, before: int, after: int) -> int:
    """Samples along one axis after up-sampling, padding, filtering and decimation."""
    return (size * up + before + after - taps) // down + 1


def _pair(value: int | Sequence[int], name: str) -> list[int]:
    """(x, y) factors from one number or two."""
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise ValueError(f"upfirdn2d: {name} must be an integer of at least 1, or two (x, y); got {value!r}.")
    return pair


def _four(value: int | Sequence[int]) -> list[int]:
    """(left, right, top, bottom) from one number, (x, y) or four."""
    four = [value] * 4 if isinstance(value, int) else list(value)
    if len(four) == 2:
        four = [four[0], four[0], four[1], four[1]]
    if len(four) != 4 or not all(isinstance(v, int) for v in four):
        raise ValueError(f"upfirdn2d: padding must be 1, 2 or 4 integers; got {value!r}.")
    return four


def _taps(f: torch.Tensor | None) -> tuple[int, int]:
    """(KH, KW) of a filter; a 1-D filter acts along both axes."""
    if f is None:
        return 1, 1
    return f.shape[0], f.shape[-1]


def _check(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], gain: float
) -> None:
    """One-line refusals; see `upfirdn2d`."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"upfirdn2d: x must be a floating point tensor; got {getattr(x, 'dtype', type(x).__name__)}.")
    if x.ndim != 4:
        raise ValueError(f"upfirdn2d: x must be (B, C, H, W); got shape {tuple(x.shape)}.")
    if not math.isfinite(gain):
        raise ValueError(f"upfirdn2d: gain must be finite; got {gain}.")
    if f is not None:
        _check_filter(x, f)
    height, width = x.shape[2] * up[1] + pad[2] + pad[3], x.shape[3] * up[0] + pad[0] + pad[1]
    taps = _taps(f)
    if taps[0] > height or taps[1] > width:
        raise ValueError(f"upfirdn2d: f must fit into the padded image of {height}x{width}; got {taps[0]}x{taps[1]}.")


def _check_filter(x: torch.Tensor, f: torch.Tensor) -> None:
    """Refuses a filter of the wrong kind."""
    if not isinstance(f, torch.Tensor) or not f.is_floating_point():
        raise TypeError(f"upfirdn2d: f must be a floating point tensor; got {getattr(f, 'dtype', type(f).__name__)}.")
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"upfirdn2d: f must be (K,) or (KH, KW) with at least one tap; got shape {tuple(f.shape)}.")
    if f.device != x.device:
        raise ValueError(f"upfirdn2d: f must be on the device of x ({x.device}); got {f.device}.")
    if f.requires_grad:
        raise ValueError("upfirdn2d: f must not require gradients; got requires_grad=True. Detach it.")


def _format(x: torch.Tensor) -> torch.memory_format:
    """Channels-last when `x` is stored so, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _reference(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    """Plain PyTorch: depthwise convolutions without inserted zeros, differentiable by autograd itself."""
    exact = torch.promote_types(x.dtype, torch.float32)
    f = torch.ones(1, 1, dtype=exact, device=x.device) if f is None else f.to(exact)
    if f.ndim == 1 and f.shape[0] <= LONGEST_OUTER:
        f = f[:, None] * f[None, :]
    if f.ndim == 2:
        y = _resample(x, (f * gain).to(x.dtype), up, down, pad, flip)
    else:
        row, column = (f * gain).to(x.dtype)[None, :], f.to(x.dtype)[:, None]
        y = _resample(x, row, [up[0], 1], [down[0], 1], [pad[0], pad[1], 0, 0], flip)
        y = _resample(y, column, [1, up[1]], [1, down[1]], [0, 0, pad[2], pad[3]], flip)
    return y.contiguous(memory_format=_format(x))


def _resample(
    x: torch.Tensor, f: torch.Tensor, up: list[int], down: list[int], pad: list[int], flip: bool
) -> torch.Tensor:
    """One (KH, KW) filter in one depthwise convolution, transposed when it goes up."""
    if up == [1, 1]:
        return _filter_down(x, f if flip else f.flip(0, 1), down, pad)
    y = _filter_up(x, f.flip(0, 1) if flip else f, up, pad)
    return y if down == [1, 1] else y[:, :, :: down[1], :: down[0]]


def _filter_down(x: torch.Tensor, f: torch.Tensor, down: list[int], pad: list[int]) -> torch.Tensor:
    """Correlation with `f`, keeping every `down`-th sample.

    Uneven padding (a, b) equals even padding max(a, b) with |a - b| zero taps on the other side of the filter.
    """
    even, grow = [0, 0], [0, 0, 0, 0]  # even: (x, y); grow and pad: (left, right, top, bottom)
    rest = list(pad)
    for axis in (0, 1):
        before, after = pad[2 * axis : 2 * axis + 2]
        most = max(before, after)
        if most > 0 and abs(before - after) <= MOST_ZERO_TAPS:
            even[axis] = most
            grow[2 * axis : 2 * axis + 2] = [most - before, most - after]
            rest[2 * axis : 2 * axis + 2] = [0, 0]
    x = F.pad(x, rest) if any(rest) else x
    weight = _depthwise(F.pad(f, grow), x.shape[1])
    return F.conv2d(x, weight, stride=down[::-1], padding=even[::-1], groups=x.shape[1])


def _filter_up(x: torch.Tensor, f: torch.Tensor, up: list[int], pad: list[int]) -> torch.Tensor:
    """Convolution of the zero-stuffed image with `f`: a transposed convolution and a crop of its full extent."""
    cut, grow = [0, 0], [0, 0, 0, 0]
    rest = [0, 0, 0, 0]
    for axis, taps in ((0, f.shape[1]), (1, f.shape[0])):
        # The full extent starts taps - 1 samples before the first and ends before the last up - 1 zeros.
        before, after = taps - 1 - pad[2 * axis], taps - up[axis] - pad[2 * axis + 1]
        most = max(before, after)
        if most > 0 and abs(before - after) <= MOST_ZERO_TAPS:
            grow[2 * axis : 2 * axis + 2] = [most - before, most - after]
            before = after = most
            taps += abs(grow[2 * axis] - grow[2 * axis + 1])
        cut[axis] = max(0, min(before, after, taps - 1))
        rest[2 * axis : 2 * axis + 2] = [cut[axis] - before, cut[axis] - after]
    weight = _depthwise(F.pad(f, grow), x.shape[1])
    y = F.conv_transpose2d(x, weight, stride=up[::-1], padding=cut[::-1], groups=x.shape[1])
    return F.pad(y, rest) if any(rest) else y


def _depthwise(f: torch.Tensor, channels: int) -> torch.Tensor:
    """(C, 1, KH, KW) weight with the same filter for every channel."""
    return f[None, None].expand(channels, 1, *f.shape).contiguous()


@torch.library.custom_op("mattface::upfirdn2d", mutates_args=())
def _op(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    """Schema and default kernel; factors are (x, y), pad is (left, right, top, bottom)."""
    return _reference(x, f, up, down, pad, flip, gain)


@_op.register_kernel("cpu")
def _native(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    """The native kernel where it was built, else the reference."""
    if not runs_native(x):
        return _reference(x, f, up, down, pad, flip, gain)
    y = _empty_result(x, f, up, down, pad)
    if y.numel():
        taps = None if f is None else f.contiguous()
        torch.ops.mattface_native.upfirdn2d_(y, x, taps, up, down, pad, flip, gain, False)
    return y


@_op.register_fake
def _fake(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    return _empty_result(x, f, up, down, pad)


def _empty_result(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int]
) -> torch.Tensor:
    """Memory for the result, channels-last when `x` is stored so."""
    taps = _taps(f)
    height = output_size(x.shape[2], taps[0], up[1], down[1], pad[2], pad[3])
    width = output_size(x.shape[3], taps[1], up[0], down[0], pad[0], pad[1])
    return torch.empty((*x.shape[:2], height, width), dtype=x.dtype, device=x.device, memory_format=_format(x))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, f, up, down, pad, flip, gain = inputs
    ctx.save_for_backward(f)
    ctx.size, ctx.stated = x.shape[2:], (up, down, pad, flip, gain)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    """The adjoint: up and down exchanged, filter turned, padding that gives the input's size back."""
    (f,) = ctx.saved_tensors
    up, down, pad, flip, gain = ctx.stated
    taps, sizes, outs = _taps(f)[::-1], ctx.size[::-1], grad.shape[2:][::-1]  # (x, y)
    back = []
    for axis in (0, 1):
        before = taps[axis] - 1 - pad[2 * axis]
        back += [before, sizes[axis] * up[axis] - outs[axis] * down[axis] - before + taps[axis] - up[axis]]
    return _op(grad, f, down, up, back, not flip, gain), None, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)
