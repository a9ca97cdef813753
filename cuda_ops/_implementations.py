"""Which implementation of an op runs, and why a faster one does not."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch

from mattface.cuda_ops._build import Target, how

Impl = Literal["auto", "reference", "cpu", "cuda"]

OPS = ("upfirdn2d", "bias_act", "noise_bias_act", "upsample_add")


@cache
def missing(kind: str) -> str | None:
    """Loads the native kernels on first use; a failure is remembered.

    Args:
        kind: "cpu" or "cuda".

    Returns:
        None when they are there, else why not, in one line.
    """
    if kind == "cuda":
        return "not part of this version: GPUs run the reference"
    target = Target("cpu")
    library = target.found()
    if library is None:
        return f"not built. Type: {how(target)}"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"cannot be loaded: {' '.join(str(error).split())}. Type: {how(target)} --force"
    return None


def native(x: torch.Tensor) -> Any:
    """The native kernels for tensors on x's device, as a namespace of torch.ops; only where `runs_native(x)`."""
    return torch.ops.mattface_native


def runs_native(x: torch.Tensor) -> bool:
    """Whether a native kernel exists for tensors on x's device."""
    return x.device.type == "cpu" and missing("cpu") is None


def require(impl: str, op: str, x: object) -> None:
    """Refuses an implementation that is unknown or cannot run; only "auto" may choose for itself.

    Args:
        impl: "auto", "reference", "cpu" or "cuda".
        op: name of the op, for the message.
        x: the op's input.

    Raises:
        ValueError: `impl` is none of the four, or `x` is on another device.
        RuntimeError: a native kernel was asked for by name and is not there.
    """
    if impl in ("auto", "reference"):
        return
    if impl not in ("cpu", "cuda"):
        raise ValueError(f'{op}: impl must be "auto", "reference", "cpu" or "cuda"; got {impl!r}.')
    reason = missing(impl)
    if reason is not None:
        raise RuntimeError(f'{op}: impl="{impl}" cannot run: {reason}. Or use impl="auto".')
    if isinstance(x, torch.Tensor) and x.device.type != impl:
        raise ValueError(f'{op}: impl="{impl}" needs x on that device; got {x.device}.')


def available() -> dict[str, dict[str, Any]]:
    """What "auto" takes for every op, and why each faster implementation is missing.

    Returns:
        op name -> {"chosen": implementation, "missing": {implementation: reason}}.
    """
    reasons = {kind: reason for kind in ("cuda", "cpu") if (reason := missing(kind)) is not None}
    chosen = next((kind for kind in ("cuda", "cpu") if kind not in reasons), "reference")
    return {op: {"chosen": chosen, "missing": dict(reasons)} for op in OPS}
