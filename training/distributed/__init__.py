"""Several processes: who they are, and how they keep the networks of a training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from mattface.training.distributed.networks import AVERAGE, ReplicatedNetworks
from mattface.training.distributed.processes import WAYS, World, world

__all__ = ["AVERAGE", "WAYS", "World", "distribute", "world"]


def distribute(networks: Mapping[str, nn.Module], trained: Collection[str], here: World) -> Any:
    """`ReplicatedNetworks` or `ShardedNetworks`, as `here` says; FSDP2 is imported only where it is asked for.

    Args:
        networks: name -> network.
        trained: names of those that are trained.
        here: this process.
    """
    if here.parallel == "ddp":
        return ReplicatedNetworks(networks, trained, here)
    from mattface.training.distributed.sharded import ShardedNetworks

    return ShardedNetworks(networks, trained, here)
