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

from mattface.cuda_ops._arguments import check_device, check_filter, check_flag, check_tensor, factors, number, paddings
from mattface.cuda_ops._implementations import Impl, native, require, runs_native
from mattface.cuda_ops._pool import empty
from mattface.cuda_ops.precision import exact_type, without_autocast

LONGEST_OUTER = 8
"""A 1-D filter up to this length is applied as its outer product in one pass, a longer one axis by axis."""


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
    times `gain`, and every `down`-th sample is kept, starting with the first. Sums are kept in at least single
    precision and rounded once. Under autocast too the result has the type of `x`.

    Args:
        x: (B, C, H, W) floating point; channels-last memory is fastest on a CPU and is kept.
        f: (K,) separable or (KH, KW) filter of any floating point type, not normalised here; None is the single tap 1.
        up: factor, or (x, y) factors, at least 1.
        down: factor, or (x, y) factors, at least 1.
        padding: one number, (x, y), or (left, right, top, bottom) in samples after up-sampling.
        flip_filter: False convolves, True correlates.
        gain: finite factor of the result.
        impl: "auto", "reference" (plain PyTorch), "cpu" or "cuda".

    Returns:
        (B, C, (H * up + top + bottom - KH) // down + 1, the same for W) of `x`'s type.

    Raises:
        TypeError: wrong type of tensor or number.
        ValueError: wrong rank, device, factor, gain, or a filter larger than the padded image.
        RuntimeError: the requested implementation is not available.
    """
    op = "upfirdn2d"
    ups, downs, pads = factors(op, "up", up), factors(op, "down", down), paddings(op, padding)
    return resample(op, x, f, ups, downs, pads, flip_filter, gain, impl)


def resample(
    op: str,
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: list[int],
    down: list[int],
    pad: list[int],
    flip_filter: bool,
    gain: float,
    impl: Impl,
) -> torch.Tensor:
    """`upfirdn2d` in the name of `op`, with two factors and four paddings."""
    check_tensor(op, "x", x)
    require(impl, op, x)
    check_filter(op, f)
    check_flag(op, "flip_filter", flip_filter)
    gain = number(op, "gain", gain)
    check_sizes(op, x, f, up, pad)
    run = _reference if impl == "reference" else _op
    return run(x, f, up, down, pad, flip_filter, gain)


def taps_of(f: torch.Tensor | None) -> tuple[int, int]:
    """(KH, KW) of a filter; a 1-D filter acts along both axes."""
    if f is None:
        return 1, 1
    return f.shape[0], f.shape[-1]


def result_shape(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int]
) -> tuple[int, int, int, int]:
    """(B, C, H', W')."""
    taps = taps_of(f)
    height = output_size(x.shape[2], taps[0], up[1], down[1], pad[2], pad[3])
    width = output_size(x.shape[3], taps[1], up[0], down[0], pad[0], pad[1])
    return x.shape[0], x.shape[1], height, width


def output_size(size: int, taps: int, up: int, down: int, before: int, after: int) -> int:
    """Samples along one axis after up-sampling, padding, filtering and decimation."""
    return (size * up + before + after - taps) // down + 1


def check_rank(op: str, x: torch.Tensor) -> None:
    """Rejects what is not a batch of images."""
    if x.ndim != 4:
        raise ValueError(f"{op}: x must be (B, C, H, W); got shape {tuple(x.shape)}.")


def check_sizes(op: str, x: torch.Tensor, f: torch.Tensor | None, up: list[int], pad: list[int]) -> None:
    """Rejects another rank, a filter elsewhere, and one that is larger than the padded image."""
    check_rank(op, x)
    if f is not None:
        check_device(op, "f", f, x)
    height, width = x.shape[2] * up[1] + pad[2] + pad[3], x.shape[3] * up[0] + pad[0] + pad[1]
    taps = taps_of(f)
    if taps[0] > height or taps[1] > width:
        raise ValueError(f"{op}: f must fit into the padded image of {height}x{width}; got {taps[0]}x{taps[1]}.")


def layout_of(x: torch.Tensor) -> torch.memory_format:
    """Channels-last when `x` is stored so, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _reference(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    """Plain PyTorch: depthwise convolutions without inserted zeros, differentiable by autograd itself."""
    if not (x.numel() and math.prod(result_shape(x, f, up, down, pad))):  # convolutions reject empty tensors
        return empty_result(x, f, up, down, pad).zero_() + x.sum()  # a sum of nothing keeps the graph connected
    exact = exact_type(x.dtype)
    f = torch.ones(1, 1, dtype=exact, device=x.device) if f is None else f.to(exact)
    if f.ndim == 1 and f.shape[0] <= LONGEST_OUTER:
        f = f[:, None] * f[None, :]
    with without_autocast(x.device):
        t = x.to(exact)
        if f.ndim == 2:
            t = _resample(t, f * gain, up, down, pad, flip)
        else:
            t = _resample(t, (f * gain)[None, :], [up[0], 1], [down[0], 1], [pad[0], pad[1], 0, 0], flip)
            t = _resample(t, f[:, None], [1, up[1]], [1, down[1]], [0, 0, pad[2], pad[3]], flip)
    return t.to(x.dtype).contiguous(memory_format=layout_of(x))


def _resample(
    x: torch.Tensor, f: torch.Tensor, up: list[int], down: list[int], pad: list[int], flip: bool
) -> torch.Tensor:
    """One (KH, KW) filter in one depthwise convolution, transposed when it goes up.

    No tap is ever added to the filter: a zero tap would spread infinities further.
    """
    if up == [1, 1]:
        return _filter_down(x, f if flip else f.flip(0, 1), down, pad)
    y = _filter_up(x, f.flip(0, 1) if flip else f, up, pad)
    return y if down == [1, 1] else y[:, :, :: down[1], :: down[0]]


def _filter_down(x: torch.Tensor, f: torch.Tensor, down: list[int], pad: list[int]) -> torch.Tensor:
    """Correlation with `f`, keeping every `down`-th sample."""
    even, rest = [0, 0], list(pad)  # even: (x, y), padded by the convolution itself; rest: (left, right, top, bottom)
    for axis in (0, 1):
        before, after = pad[2 * axis : 2 * axis + 2]
        if before == after and before > 0:
            even[axis], rest[2 * axis], rest[2 * axis + 1] = before, 0, 0
    x = F.pad(x, rest) if any(rest) else x
    return F.conv2d(x, _depthwise(f, x.shape[1]), stride=down[::-1], padding=even[::-1], groups=x.shape[1])


def _filter_up(x: torch.Tensor, f: torch.Tensor, up: list[int], pad: list[int]) -> torch.Tensor:
    """Convolution of the zero-stuffed image with `f`: a transposed convolution and a crop of its full extent."""
    cut, rest = [0, 0], [0, 0, 0, 0]
    for axis, taps in ((0, f.shape[1]), (1, f.shape[0])):
        # The full extent starts taps - 1 samples before the first and ends before the last up - 1 zeros.
        before, after = taps - 1 - pad[2 * axis], taps - up[axis] - pad[2 * axis + 1]
        cut[axis] = max(0, min(before, after, taps - 1))
        rest[2 * axis : 2 * axis + 2] = [cut[axis] - before, cut[axis] - after]
    weight = _depthwise(f, x.shape[1])
    y = F.conv_transpose2d(x, weight, stride=up[::-1], padding=cut[::-1], groups=x.shape[1])
    return F.pad(y, rest) if any(rest) else y


def _depthwise(f: torch.Tensor, channels: int) -> torch.Tensor:
    """(C, 1, KH, KW) weight with the same filter for every channel."""
    return f[None, None].expand(channels, 1, *f.shape).contiguous()


@torch.library.custom_op("mattface::upfirdn2d", mutates_args=())
def _op(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    """The native kernel where it was built, else the reference; pad is (left, right, top, bottom)."""
    if not runs_native(x):
        return _reference(x, f, up, down, pad, flip, gain)
    y = empty(result_shape(x, f, up, down, pad), x.dtype, layout_of(x), x.device)
    if y.numel():
        taps = None if f is None else f.contiguous()
        native(x).upfirdn2d_(y, x, taps, up, down, pad, flip, gain, False)
    return y


@_op.register_fake
def _fake(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int], flip: bool, gain: float
) -> torch.Tensor:
    return empty_result(x, f, up, down, pad)


def empty_result(
    x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], pad: list[int]
) -> torch.Tensor:
    """Memory for the result, channels-last when `x` is stored so."""
    shape = result_shape(x, f, up, down, pad)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, f, up, down, pad, flip, gain = inputs
    ctx.save_for_backward(f)
    ctx.size, ctx.stated = x.shape[2:], (up, down, pad, flip, gain)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    """The adjoint: up and down exchanged, filter turned, padding that gives the input's size back."""
    (f,) = ctx.saved_tensors
    up, down, pad, flip, gain = ctx.stated
    taps, sizes, outs = taps_of(f)[::-1], ctx.size[::-1], grad.shape[2:][::-1]  # (x, y)
    back = []
    for axis in (0, 1):
        before = taps[axis] - 1 - pad[2 * axis]
        back += [before, sizes[axis] * up[axis] - outs[axis] * down[axis] - before + taps[axis] - up[axis]]
    return _op(grad, f, down, up, back, not flip, gain), None, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)
