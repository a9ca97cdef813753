"""dtypes: what results are computed in, what the processor multiplies, and autocast's part in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """The type a result is computed in before it is rounded once: at least single precision."""
    return torch.promote_types(dtype, torch.float32)


@cache
def multiplies_bf16() -> bool:
    """Whether oneDNN convolves bfloat16 on this processor: it needs AVX-512 (BW, VL, DQ) or AVX-NE-CONVERT."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for tensors of a device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which torch keeps the types it is given."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()
