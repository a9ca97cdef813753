"""What of networks trains and what stands still, how they evaluate, and how their averages follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


def train_only(parameters: Mapping[str, list[nn.Parameter]], network: str) -> None:
    """Lets gradients reach the trained parameters of one network alone."""
    for name, group in parameters.items():
        for p in group:
            p.requires_grad_(name == network)


def train_all(parameters: Mapping[str, list[nn.Parameter]]) -> None:
    """Lets gradients reach the trained parameters of all networks again."""
    for group in parameters.values():
        for p in group:
            p.requires_grad_(True)


@torch.no_grad()
def update_average(into: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of all weights; buffers are copied."""
    torch._foreach_lerp_(list(into.parameters()), list(network.parameters()), 1 - decay)
    for old, new in zip(into.buffers(), network.buffers(), strict=True):
        old.copy_(new)


@contextmanager
def evaluating(networks: Mapping[str, nn.Module]) -> Iterator[Mapping[str, nn.Module]]:
    """The networks in evaluation mode; as before afterwards."""
    modes = [(module, module.training) for network in networks.values() for module in network.modules()]
    for network in networks.values():
        network.eval()
    try:
        yield networks
    finally:
        for module, mode in modes:
            module.training = mode
