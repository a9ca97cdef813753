"""Names and shapes of the tensors that common layers hold, so that a whole key list is a few lines of rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Shapes = dict[str, tuple[int, ...]]
"""Key -> shape, in the order of the original's state dict where that order is known."""
COUNTER = r".*\.num_batches_tracked"
"""Pattern of batch counters: they compute nothing, and old files lack them."""


def conv(name: str, channels: int, before: int, kernel: int | tuple[int, int] = 3, bias: bool = False) -> Shapes:
    """A convolution: `before` channels in, `channels` out."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return {f"{name}.weight": (channels, before, *size)} | ({f"{name}.bias": (channels,)} if bias else {})


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    """A matrix, with biases by default."""
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def scale(name: str, channels: int) -> Shapes:
    """Weights of a layer or group normalisation."""
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def batch_norm(name: str, channels: int) -> Shapes:
    """A batch normalisation with its statistics and counter."""
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return scale(name, channels) | statistics | {f"{name}.num_batches_tracked": ()}


def prelu(name: str, channels: int) -> Shapes:
    """Slopes per channel."""
    return {f"{name}.weight": (channels,)}


def below(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """The same list with `prefix` and a dot before every key."""
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}


def joined(parts: Iterable[Shapes]) -> Shapes:
    """One list of several."""
    out: Shapes = {}
    for part in parts:
        out |= part
    return out
