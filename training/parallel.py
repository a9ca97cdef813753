"""One process or many: what torchrun tells, torch.distributed, DistributedDataParallel. Nothing of our own.

`mattface.training.shares` has the other way, FSDP2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mattface.devices import resolve_device
from mattface.errors import UsageError

WAYS = ("ddp", "fsdp2")
"""Every process keeps everything and gradients are averaged; or each keeps a share of weights and optimiser."""
AVERAGE = "average."
"""How names of averaged networks begin."""
SETTLE = 0.2
"""Seconds before a process leaves the others: threads of gloo still let go of tensors, for which they need the
interpreter; one that comes when the interpreter has ended aborts the process."""


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: number of this process, 0 writes the run's folder.
        size: number of processes.
        device: of this process.
        parallel: one of `WAYS`.
    """

    rank: int
    size: int
    device: torch.device
    parallel: str = "ddp"

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over processes of a tensor that all of them have."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        found = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def world(device: str | torch.device, parallel: str = "ddp") -> Iterator[World]:
    """Joins the other processes when torchrun started this one, and leaves them in the end.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; of many processes on CUDA each takes its own device.
        parallel: one of `WAYS`.

    Raises:
        UsageError: an unknown way, or shares for one process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if parallel not in WAYS:
        raise UsageError(f"parallel must be one of {', '.join(WAYS)}; got {parallel!r}.")
    if parallel == "fsdp2" and size == 1:
        raise UsageError(
            "parallel fsdp2 needs several processes to share a network; got one. Start them: "
            "torchrun --nproc-per-node N -m mattface.training RECIPE ..., or leave --parallel out."
        )
    if size == 1:
        yield World(0, 1, resolve_device(device))
        return
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        chosen = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), chosen, parallel)
    finally:
        time.sleep(SETTLE)
        dist.destroy_process_group()


class Trained(nn.Module):
    """A network whose forward is a phase's losses, so that one wrapper serves every phase that trains it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, terms: Callable[[], Any]) -> Any:
        """terms(), which reaches the network on its own."""
        return terms()


class Replicas:
    """Networks that every process has whole. `mattface.training.shares.Shares` has the same methods.

    Args:
        networks: name -> network.
        trained: names of those that are trained.
        here: this process.
    """

    def __init__(self, networks: Mapping[str, nn.Module], trained: Collection[str], here: World) -> None:
        self.networks = dict(networks)
        whole = {n: Trained(networks[n]) for n in trained}
        self.wrapped: dict[str, nn.Module] = {
            n: t if here.size == 1 else DistributedDataParallel(t, find_unused_parameters=True)
            for n, t in whole.items()
        }

    def trained(self, name: str) -> list[nn.Parameter]:
        """Parameters of a network that its optimiser changes."""
        return [p for p in self.networks[name].parameters() if p.requires_grad]

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Surrounds all micro-batches of a step that trains a network."""
        return nullcontext()

    def part(self, name: str, last: bool) -> AbstractContextManager[Any]:
        """Surrounds one micro-batch; gradients are averaged over processes after the last one."""
        wrapped = self.wrapped[name]
        return nullcontext() if last or not isinstance(wrapped, DistributedDataParallel) else wrapped.no_sync()

    @contextmanager
    def whole(self, device: torch.device) -> Iterator[dict[str, nn.Module]]:
        """All networks whole, to read. All processes must come here; the first one gets them on the device."""
        yield self.networks

    def spread(self) -> None:
        """Takes over what was loaded into the networks that `whole` gave."""

    def state(self, name: str, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State dict of a network's optimiser. All processes must come here."""
        return optimiser.state_dict()

    def load(self, name: str, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Gives an optimiser such a state dict."""
        optimiser.load_state_dict(state)


def form_of(networks: Mapping[str, nn.Module], trained: Collection[str], here: World) -> Any:
    """How a training keeps its networks: `Replicas` or `Shares`. FSDP2 is imported only where it is asked for."""
    if here.parallel == "ddp":
        return Replicas(networks, trained, here)
    from mattface.training.shares import Shares

    return Shares(networks, trained, here)
