"""How a training keeps its networks: the interface, and the way in which every process has all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mattface.training.distributed.processes import World

AVERAGE = "average."
"""How names of averaged networks begin."""


class Trained(nn.Module):
    """A network whose forward is a phase's losses, so that one wrapper serves every phase that trains it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, terms: Callable[[], Any]) -> Any:
        """terms(), which reaches the network on its own."""
        return terms()


class ReplicatedNetworks:
    """Networks that every process has whole. `ShardedNetworks` has the same methods.

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

    def scatter(self) -> None:
        """Takes over what was loaded into the networks that `whole` gave."""

    def state(self, name: str, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State dict of a network's optimiser. All processes must come here."""
        return optimiser.state_dict()

    def load(self, name: str, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Gives an optimiser such a state dict."""
        optimiser.load_state_dict(state)
