"""Which implementation of an op runs, and why a faster one does not."""

from __future__ import annotations

from typing import Literal

Impl = Literal["auto", "reference", "cpu", "cuda"]

NOT_BUILT = "not built: compiled kernels are not part of this version"
OPS = ("upfirdn2d", "bias_act")


def require(impl: str, op: str) -> None:
    """Refuses an implementation that is unknown or not there; only "auto" may choose for itself.

    Args:
        impl: "auto", "reference", "cpu" or "cuda".
        op: name of the op, for the message.

    Raises:
        ValueError: `impl` is none of the four.
        RuntimeError: a compiled kernel was asked for by name and is not there.
    """
    if impl in ("auto", "reference"):
        return
    if impl in ("cpu", "cuda"):
        raise RuntimeError(f'{op}: impl="{impl}" is {NOT_BUILT}. Use impl="auto" or impl="reference".')
    raise ValueError(f'{op}: impl must be "auto", "reference", "cpu" or "cuda"; got {impl!r}.')


def available() -> dict[str, dict[str, object]]:
    """What "auto" takes for every op, and why each faster implementation is missing.

    Returns:
        op name -> {"chosen": implementation, "missing": {implementation: reason}}.
    """
    return {op: {"chosen": "reference", "missing": {"cpu": NOT_BUILT, "cuda": NOT_BUILT}} for op in OPS}
