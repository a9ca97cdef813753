"""One process or many: the variables of torchrun, torch.distributed, DistributedDataParallel. Nothing of our own.

`mattface.training.distributed.sharded` has the other way, FSDP2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from mattface.devices import resolve_device
from mattface.errors import UsageError

WAYS = ("ddp", "fsdp2")
"""Every process keeps everything and gradients are averaged; or weights and optimiser states are sharded."""
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
        UsageError: an unknown way, or "fsdp2" for one process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if parallel not in WAYS:
        raise UsageError(f"parallel must be one of {', '.join(WAYS)}; got {parallel!r}.")
    if parallel == "fsdp2" and size == 1:
        raise UsageError(
            "parallel fsdp2 needs several processes to shard a network over; got one. Start them: "
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
