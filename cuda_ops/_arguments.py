"""What every op requires of its arguments, as errors of one line."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch

from mattface.cuda_ops.precision import autocasts

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MOST = 2**31 - 1
"""Largest factor and padding."""


def shown(value: object) -> str:
    """A value for a message of one line."""
    text = type(value).__name__ if isinstance(value, torch.Tensor) else repr(value)
    return text if len(text) <= 80 and "\n" not in text else type(value).__name__


def check_tensor(op: str, name: str, t: object) -> None:
    """Rejects what is not a dense floating point tensor.

    Raises:
        TypeError: not a tensor, another type, or sparse.
    """
    if not isinstance(t, torch.Tensor) or t.dtype not in TYPES:
        got = getattr(t, "dtype", type(t).__name__)
        raise TypeError(f"{op}: {name} must be a float64, float32, bfloat16 or float16 tensor; got {got}.")
    if t.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a dense tensor; got {t.layout}. Call to_dense() on it.")


def check_device(op: str, name: str, t: torch.Tensor, x: torch.Tensor) -> None:
    """Rejects a tensor on another device than `x`.

    Raises:
        ValueError: it is elsewhere.
    """
    if t.device != x.device:
        raise ValueError(f"{op}: {name} must be on the device of x ({x.device}); got {t.device}.")


def matched(op: str, name: str, t: torch.Tensor, x: torch.Tensor, whose: str = "x") -> torch.Tensor:
    """`t` in the type of `x`, which messages call `whose`: cast under autocast, else it must have that type already.

    Raises:
        TypeError: another type outside autocast.
    """
    if t.dtype == x.dtype:
        return t
    if autocasts(x.device):
        return t.to(x.dtype)
    raise TypeError(f"{op}: {name} must be {x.dtype} like {whose}; got {t.dtype}. Only autocast casts by itself.")


def check_filter(op: str, f: torch.Tensor | None) -> None:
    """Rejects what is not a constant filter.

    Raises:
        TypeError: not a floating point tensor.
        ValueError: wrong rank, no taps, or gradients wanted.
    """
    if f is None:
        return
    check_tensor(op, "f", f)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{op}: f must be (K,) or (KH, KW) with at least one tap; got shape {tuple(f.shape)}.")
    if f.requires_grad:
        raise ValueError(f"{op}: f must not require gradients; got requires_grad=True. Detach it.")


def number(op: str, name: str, value: object) -> float:
    """A finite number.

    Raises:
        TypeError: not a number.
        ValueError: not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} must be a number; got {shown(value)}.")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not -math.inf < result < math.inf:  # false for NaN; isfinite cannot be traced
        raise ValueError(f"{op}: {name} must be finite; got {result}.")
    return result


def check_flag(op: str, name: str, value: object) -> None:
    """Rejects what is neither True nor False.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be True or False; got {shown(value)}.")


def factors(op: str, name: str, value: int | Sequence[int]) -> list[int]:
    """(x, y) factors of at least 1 from one number or two.

    Raises:
        ValueError: anything else.
    """
    pair = _whole_numbers(value, {1: 2, 2: 1})
    if pair is None or not all(v >= 1 for v in pair):
        limits = f"an integer of at least 1 and at most {MOST}"
        raise ValueError(f"{op}: {name} must be {limits}, or two (x, y); got {shown(value)}.")
    return pair


def paddings(op: str, value: int | Sequence[int]) -> list[int]:
    """(left, right, top, bottom) from one number, (x, y) or four.

    Raises:
        ValueError: anything else.
    """
    four = _whole_numbers(value, {1: 4, 2: 2, 4: 1})
    if four is None:
        raise ValueError(f"{op}: padding must be 1, 2 or 4 integers of at most {MOST}; got {shown(value)}.")
    return four


def _whole_numbers(value: object, repeats: dict[int, int]) -> list[int] | None:
    """Integers, each repeated as often as `repeats` says for their count, or None."""
    found: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(found) not in repeats:
        return None
    result: list[int] = []
    for v in found:
        if not isinstance(v, torch.SymInt):  # a size of a traced graph stays as it is
            if isinstance(v, bool) or not isinstance(v, numbers.Integral) or abs(int(v)) > MOST:
                return None
            v = int(v)
        result += [v] * repeats[len(found)]
    return result
