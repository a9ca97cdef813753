"""Networks in shards (FSDP2): every process keeps a part of all weights, gradients and moments.

A network is one group: a phase that trains it gathers it whole, and so does a phase that uses it. What is saved is
whole, so that a checkpoint continues in either way, with any number of processes.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils.parametrize import register_parametrization

from mattface.cuda_ops import release_memory
from mattface.training.distributed.networks import AVERAGE, Trained
from mattface.training.distributed.processes import World

CPU = torch.device("cpu")


class Scalar(nn.Module):
    """A parameter without dimensions kept as one of one number: FSDP2 rejects the former."""

    def forward(self, kept: torch.Tensor) -> torch.Tensor:
        """(1,) to ()."""
        return kept[0]

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        """() to (1,)."""
        return value.reshape(1)


def shard_network(network: nn.Module, mesh: DeviceMesh) -> FSDPModule:
    """The network as `Trained`, in shards; the network itself is changed in place."""
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                register_parametrization(module, name, Scalar())
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # as FSDP2 demands; channels-last is none for it
    return fully_shard(Trained(network), mesh=mesh)


class ShardedNetworks:
    """Networks of which every process has a shard. The methods are those of `ReplicatedNetworks`.

    Args:
        networks: name -> network.
        trained: names of those that are trained; these and their averages are sharded.
        here: this process.
    """

    def __init__(self, networks: Mapping[str, nn.Module], trained: Collection[str], here: World) -> None:
        mesh = init_device_mesh(here.device.type, (here.size,))
        self.networks, self.here = dict(networks), here
        parts = [n for n in networks if n in trained or n.startswith(AVERAGE)]
        self.copies = {n: copy.deepcopy(networks[n]).to(CPU) for n in parts}
        """Whole ones, brought up to date by `whole`."""
        wrapped = {n: shard_network(networks[n], mesh) for n in parts}
        self.wrapped = {n: wrapped[n] for n in trained}

    def pairs(self, name: str) -> list[tuple[DTensor, nn.Parameter]]:
        """ShardedNetworks and whole parameters of a network, in the order of the latter."""
        shards = cast(dict[str, DTensor], dict(self.networks[name].named_parameters()))
        found = []
        for path, whole in self.copies[name].named_parameters():
            owner, _, last = path.rpartition(".")
            scalar = f"{owner}.parametrizations.{last}.original".lstrip(".")
            found.append((shards[scalar if scalar in shards else path], whole))
        return found

    def trained(self, name: str) -> list[DTensor]:
        """Parameters of a network that its optimiser changes."""
        return [shard for shard, whole in self.pairs(name) if whole.requires_grad]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Gathers the other networks, which a phase may use, while it lasts."""
        others = [wrapped for other, wrapped in self.wrapped.items() if other != name]
        for wrapped in others:
            wrapped.unshard()
        try:
            yield
        finally:
            for wrapped in others:
                wrapped.reshard()
            release_memory()  # copies of weights made in no_grad: gathered weights change without telling

    def part(self, name: str, last: bool) -> AbstractContextManager[Any]:
        """Nothing: gradients are averaged after every micro-batch, so that nobody holds whole ones."""
        return nullcontext()

    @contextmanager
    def whole(self, device: torch.device) -> Iterator[dict[str, nn.Module]]:
        """All networks whole, to read. All processes must come here; the first one gets them on the device."""
        with torch.no_grad():
            for name, network in self.copies.items():
                for shard, whole in self.pairs(name):
                    whole.copy_(gather(shard).view_as(whole))
                for old, new in zip(network.buffers(), self.networks[name].buffers(), strict=True):
                    old.copy_(new)
        moved = self.copies.values() if self.here.first else ()
        for network in moved:
            network.to(device)
        try:
            yield self.networks | self.copies
        finally:
            for network in moved:
                network.to(CPU)

    @torch.no_grad()
    def scatter(self) -> None:
        """Takes over what was loaded into the networks that `whole` gave."""
        for name, network in self.copies.items():
            for shard, whole in self.pairs(name):
                shard.copy_(shard_like(whole, shard))
            for old, new in zip(self.networks[name].buffers(), network.buffers(), strict=True):
                old.copy_(new)

    def state(self, name: str, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State dict of a network's optimiser, whole. All processes must come here."""
        shapes = [whole.shape for _, whole in self.pairs(name) if whole.requires_grad]
        state = optimiser.state_dict()
        moments = {
            i: {k: gather(v).view(shapes[i]) if isinstance(v, DTensor) else v for k, v in entry.items()}
            for i, entry in state["state"].items()
        }
        return state | {"state": moments}

    def load(self, name: str, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Gives an optimiser such a state dict."""
        shards = self.trained(name)
        moments = {
            i: {k: v if k == "step" else shard_like(v, shards[i]) for k, v in entry.items()}
            for i, entry in state["state"].items()
        }
        optimiser.load_state_dict(state | {"state": moments})


def gather(shard: DTensor) -> torch.Tensor:
    """The whole of a shard, on the CPU."""
    whole: torch.Tensor = shard.full_tensor()
    return whole.detach().to(CPU)


def shard_like(whole: torch.Tensor, like: DTensor) -> DTensor:
    """This process's shard of a tensor that all of them have, cut as another shard is."""
    there = whole.detach().to(like.device).view(like.shape)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)
