"""Which implementation of an op runs, and why a faster one does not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

import torch

from mattface.cuda_ops._build import ARCHS, BuildError, Target, build, compiler, how

Impl = Literal["auto", "reference", "cpu", "cuda"]

OPS = ("upfirdn2d", "bias_act", "noise_bias_act", "upsample_add", "modulated_conv2d")
_plain: ContextVar[bool] = ContextVar("plain", default=False)
_tried: dict[str, str | None] = {}
"""Architectures whose first use on a GPU tried to build -> why that failed, or None."""


@cache
def missing(kind: str) -> str | None:
    """Loads the native kernels if they were built; a failure is remembered.

    Args:
        kind: "cpu", "cuda" for those of the current GPU, or an architecture like "sm_90".

    Returns:
        None when they are there, else why not, in one line.
    """
    if kind == "cuda":
        return _no_gpu() or missing(_architecture(torch.cuda.current_device()))
    target = Target(kind)
    if target.cuda and kind not in ARCHS:
        return f"no kernels for {kind}: expected {', '.join(ARCHS)}"
    library = target.found()
    if library is None:
        return _unbuilt(target)
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        cause = error.__cause__ or error  # torch names the file only
        return f"cannot be loaded: {' '.join(str(cause).split())}. Type: {how(target)} --force"
    if target.cuda and not torch.cuda.is_current_stream_capturing():
        return _obstacle(target, torch.device("cuda", _served(target)))
    return None


def _served(target: Target) -> int:
    """The first GPU that takes a target's kernels."""
    return next(index for index in range(torch.cuda.device_count()) if _architecture(index) == target.name)


def _obstacle(target: Target, device: torch.device) -> str | None:
    """Why a first launch fails: the driver may be too old for the toolkit that compiled."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():  # torch.compile may ask, which works with tensors that have no memory
        y = torch.zeros(1, device=device)
        launch = getattr(torch.ops, target.namespace).epilogue_
        try:
            launch(y, y, None, None, None, None, 1, 1, 1, False, 0, 0.0, 1.0, -1.0)
        except RuntimeError as error:
            return f"cannot run: {str(error).splitlines()[0]}. Compile with a CUDA toolkit that the driver supports"
    return None


def _no_gpu() -> str | None:
    """Why torch reaches no NVIDIA GPU."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA. Install one with CUDA to use a GPU"
    if not torch.cuda.is_available():
        return "torch finds no GPU that it can use"
    return None


def _unbuilt(target: Target) -> str:
    """Why there is no library."""
    if not target.cuda:
        return f"not built. Type: {how(target)}"
    failure = _tried.get(target.name)
    if failure is not None:
        return f"building failed: {failure}"
    try:
        compiler(target)
    except BuildError as error:
        return f"not built, {error}"
    if os.environ.get("MATTFACE_OPS_BUILD") == "0":
        return f"not built, and MATTFACE_OPS_BUILD=0 forbids to do so on first use. Type: {how(target)}"
    return f"not built: the first use on a GPU does, or type: {how(target)}"


@cache
def _architecture(index: int) -> str:
    """Architecture that serves a GPU: its own, else the newest older one of its family, which it runs too."""
    major, minor = torch.cuda.get_device_capability(index)
    family = [int(arch.removeprefix("sm_")) for arch in ARCHS]
    served = [number for number in family if number // 10 == major and number % 10 <= minor]
    return f"sm_{max(served, default=10 * major + minor)}"


def targets() -> list[str]:
    """What this machine can use: "cpu", and the architectures of its GPUs."""
    if _no_gpu() is not None:
        return ["cpu"]
    return ["cpu", *sorted({_architecture(index) for index in range(torch.cuda.device_count())} & set(ARCHS))]


def _kind(device: torch.device) -> str:
    """What `missing` calls the kernels of a device."""
    if device.type != "cuda":
        return device.type
    return _architecture(torch.cuda.current_device() if device.index is None else device.index)


def _missing_for(device: torch.device) -> str | None:
    """Like `missing`; the first use of a GPU builds its kernels."""
    if device.type == "cuda" and (reason := _no_gpu()) is not None:
        return reason
    kind = _kind(device)
    reason = missing(kind)
    if reason is not None and device.type == "cuda" and kind in ARCHS and kind not in _tried:
        _build_on_first_use(Target(kind))
        missing.cache_clear()
        reason = missing(kind)
    return reason


def _build_on_first_use(target: Target) -> None:
    """Once per process, unless MATTFACE_OPS_BUILD=0; says on stderr what happens."""
    _tried[target.name] = None
    if target.found() is not None or os.environ.get("MATTFACE_OPS_BUILD") == "0":
        return
    print(f"mattface: compiling kernels for {target.name}, once, for about half a minute ...", file=sys.stderr)
    start = time.perf_counter()
    try:
        build(target)
    except BuildError as error:
        _tried[target.name] = str(error)
        print(f"mattface: GPUs run the slower reference: {error}", file=sys.stderr)
    else:
        print(f"mattface: compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def native(x: torch.Tensor) -> Any:
    """The native kernels for tensors on x's device, as a namespace of torch.ops; only where `runs_native(x)`."""
    return getattr(torch.ops, Target(_kind(x.device)).namespace)


@contextmanager
def reference_only() -> Iterator[None]:
    """Inside, "auto" takes the reference: for comparing, and for finding out whether a kernel is to blame."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def runs_native(x: torch.Tensor) -> bool:
    """Whether native kernels run on x's device; the first use of a GPU builds them."""
    return not _plain.get() and x.device.type in ("cpu", "cuda") and _missing_for(x.device) is None


def require(impl: str, op: str, x: object) -> None:
    """Rejects an implementation that is unknown or cannot run; only "auto" may choose for itself.

    Args:
        impl: "auto", "reference", "cpu" or "cuda".
        op: name of the op, for the message.
        x: the op's input.

    Raises:
        ValueError: `impl` is none of the four, or `x` is on another device.
        RuntimeError: a native kernel was requested by name and is not available.
    """
    if impl in ("auto", "reference"):
        return
    if impl not in ("cpu", "cuda"):
        raise ValueError(f'{op}: impl must be "auto", "reference", "cpu" or "cuda"; got {impl!r}.')
    device = x.device if isinstance(x, torch.Tensor) else None
    reason = _unavailable(impl, device)
    if reason is not None:
        raise RuntimeError(f'{op}: impl="{impl}" cannot run: {reason}. Or use impl="auto".')
    if device is not None and device.type != impl:
        raise ValueError(f'{op}: impl="{impl}" needs x on that device; got {device}.')


def _unavailable(impl: str, device: torch.device | None) -> str | None:
    """Why an implementation cannot run on a device."""
    return missing(impl) if device is None or device.type != impl else _missing_for(device)


# What torch.compiler.assume_constant_result does, without the second that its import takes: torch.compile asks once.
_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def available() -> dict[str, dict[str, Any]]:
    """What "auto" takes for every op, and why each faster implementation is missing.

    Returns:
        op name -> {"chosen": implementation, "missing": {implementation: reason}}.
    """
    reasons = {kind: reason for kind in ("cuda", "cpu") if (reason := missing(kind)) is not None}
    chosen = next((kind for kind in ("cuda", "cpu") if kind not in reasons), "reference")
    return {op: {"chosen": chosen, "missing": dict(reasons)} for op in OPS}
