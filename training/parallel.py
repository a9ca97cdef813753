"""One process or many: what torchrun tells, torch.distributed, DistributedDataParallel. Nothing of our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mattface.devices import resolve_device


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: number of this process, 0 writes the run's folder.
        size: number of processes.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

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
def world(device: str | torch.device) -> Iterator[World]:
    """Joins the other processes when torchrun started this one, and leaves them in the end.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; of many processes on CUDA each takes its own device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, resolve_device(device))
        return
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        chosen = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


class Trained(nn.Module):
    """A network whose forward is a phase's losses, so that one wrapper serves every phase that trains it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, terms: Callable[..., Any], *arguments: Any) -> Any:
        """terms(*arguments), which reach the network on their own."""
        return terms(*arguments)


def replicate(network: nn.Module, world: World) -> nn.Module:
    """The network as `Trained`; of several processes, one that averages its gradients over them."""
    trained = Trained(network)
    return trained if world.size == 1 else DistributedDataParallel(trained, find_unused_parameters=True)
