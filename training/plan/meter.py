"""What parts of a training step cost: seconds, floating point operations, and memory kept for the backward pass."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Cost:
    """What was spent.

    Attributes:
        seconds: of the wall clock.
        flop: floating point operations of convolutions and matrix products; a multiplication and an addition are two.
        kept: bytes that the forward pass left for the backward pass.
    """

    seconds: float = 0.0
    flop: float = 0.0
    kept: float = 0.0

    def add(self, end: Cost, start: Cost, sign: int = 1) -> None:
        """Adds what was spent between two readings, or takes it off."""
        self.seconds += sign * (end.seconds - start.seconds)
        self.flop += sign * (end.flop - start.flop)
        self.kept += sign * (end.kept - start.kept)


class Operations(TorchDispatchMode):
    """Counts floating point operations of what runs inside, backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and counts it."""
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flop += count(*args, **(kwargs or {}), out_val=result)
        return result


class Saved:
    """Follows what is kept for backward passes. Storages are counted once; parameters and inputs count too."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}
        self.now = self.largest = 0

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """For `saved_tensors_hooks`."""
        storage = tensor.untyped_storage()
        self.now += storage.nbytes() - self.alive.get(storage.data_ptr(), 0)
        self.alive[storage.data_ptr()] = storage.nbytes()
        self.largest = max(self.largest, self.now)
        return tensor

    def release(self, tensor: torch.Tensor) -> torch.Tensor:
        """For `saved_tensors_hooks`."""
        self.now -= self.alive.pop(tensor.untyped_storage().data_ptr(), 0)
        return tensor


class Meter:
    """Adds up costs by name. What is inside `counting` counts operations and memory, which takes time of its own.

    Args:
        device: where the work is done; it is waited for at every reading.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.costs = device, dict[str, Cost]()
        self.saved, self.operations = Saved(), Operations()

    def reading(self) -> Cost:
        """Totals up to now."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Cost(time.perf_counter(), self.operations.flop, self.saved.now)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts operations and memory meanwhile."""
        with self.operations, torch.autograd.graph.saved_tensors_hooks(self.saved.keep, self.saved.release):
            yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds what is spent inside to a part."""
        start = self.reading()
        yield
        self.costs.setdefault(name, Cost()).add(self.reading(), start)

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Adds what forward passes of modules spend to their names; none of them may lie inside another."""
        with ExitStack() as stack:
            for name, module in modules.items():
                starts: list[Cost] = []
                before = module.register_forward_pre_hook(lambda *_, starts=starts: starts.append(self.reading()))
                after = module.register_forward_hook(
                    lambda *_, starts=starts, name=name: self.costs.setdefault(name, Cost()).add(
                        self.reading(), starts.pop()
                    )
                )
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield
