"""Where and in which dtype networks run, and how long stages take there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from mattface.errors import DeviceError, UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """A device that is really here, from "auto", "cpu", "cuda" or "cuda:N"."""
    text = str(device)
    if text == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        wanted = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"expected device auto, cpu, cuda or cuda:N; got {text!r}.") from error
    if wanted.type == "cpu":
        return torch.device("cpu")
    if wanted.type != "cuda":
        raise UsageError(f"expected device auto, cpu, cuda or cuda:N; got {text!r}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = wanted.index or 0
    if index >= count:
        raise DeviceError(f"expected CUDA device {index}; this torch sees {count}. Use --device cpu, or a CUDA build.")
    return torch.device("cuda", index)


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """A dtype that the device computes in; bf16 runs on every CPU, fast on those with AVX-512 or AMX."""
    kind = DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if kind is None or kind not in DTYPES.values():
        raise UsageError(f"expected dtype {', '.join(DTYPES)}; got {dtype!r}.")
    if kind == torch.float16 and device.type == "cpu":
        raise DeviceError("expected a CUDA device for fp16; got the CPU. Use --dtype fp32 or bf16.")
    if kind == torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(f"expected a GPU with bf16; {torch.cuda.get_device_name(device)} has none. Use fp32.")
    return kind


def quick_dtype(device: torch.device) -> str:
    """Name of the dtype in which networks run fastest, for live pictures: bf16 where the processor has AMX for it."""
    units = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return "bf16" if units else "fp32"


@dataclass
class Stopwatch:
    """Seconds per stage, added up; waits for the GPU at both ends of a stage."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what happens inside."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
