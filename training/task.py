"""What a recipe gives to the loop: trained networks and phases with their losses, and where their batches come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.training.config import Loop, Optimiser

Batch = dict[str, Any]
"""Name -> tensor (B, ...) or list of B strings. A phase may leave tensors in it for the phases after it."""
Terms = dict[str, torch.Tensor]
"""Name -> unweighted scalar loss."""
Fallback = Callable[[str, str, torch.device], dict[str, Any]]
"""(kind, name, device) of a loss network that is missing -> what takes its place; for plans, which train nothing."""


@dataclass(frozen=True)
class Clock:
    """Where the training is.

    Attributes:
        step: steps done before this one.
        images: images seen before this step.
        batch: images per step.
    """

    step: int
    images: int
    batch: int


@dataclass(frozen=True)
class Phase:
    """One backward pass and one optimiser step of one network.

    Attributes:
        name: prefix of its terms in the metrics.
        network: key of the network it trains; all others stand still meanwhile.
        terms: batch and clock to unweighted losses.
        weights: of every term that `terms` can give.
        every: runs every n steps (lazy regularisation).
        begins: images after which it begins.
        gathered: runs once on all micro-batches of the process together, for what depends on the whole batch.
    """

    name: str
    network: str
    terms: Callable[[Batch, Clock], Terms]
    weights: Mapping[str, float]
    every: int = 1
    begins: int = 0
    gathered: bool = False

    def due(self, clock: Clock) -> bool:
        """Whether it runs in this step."""
        return clock.images >= self.begins and clock.step % self.every == 0

    def loss(self, terms: Terms) -> torch.Tensor:
        """The weighted sum, float32."""
        missing = sorted(set(terms) - set(self.weights))
        if missing:
            raise UsageError(f"phase {self.name} has no weight for {', '.join(missing)}; add it to the recipe.")
        return torch.stack([self.weights[name] * value.float() for name, value in terms.items()]).sum()


class Task(Protocol):
    """What is trained. Methods get `networks`: the averaged ones where an average is kept, else the trained ones.

    Losses may use networks that do not train; a task that has such keeps them as `loss_networks` too, of the type
    `mattface.training.losses.networks.loading.LoadedNetworks`, and a plan measures them one by one.
    """

    name: str
    networks: dict[str, nn.Module]
    """Everything a checkpoint must hold; a network without an optimiser keeps statistics."""
    optimisers: dict[str, Optimiser]

    @property
    def phases(self) -> Sequence[Phase]:
        """What a step does, in order."""

    @property
    def averaged(self) -> Sequence[str]:
        """Networks of which an average is kept, if any is."""

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """Writes what is used after training into the run's folder."""

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor | None:
        """(3, H, W) in [-1, 1] of fixed samples, or None."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Numbers on people who never train; empty without them."""


class Feed(Protocol):
    """Where batches come from. What is at a position never depends on what was read before."""

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """A batch for every list of positions; a position is the running number of an image in the training."""

    def describe(self) -> dict[str, Any]:
        """What the data is, for the run's config; a change of it is a changed config."""


@dataclass
class Stage:
    """One training of a recipe. `result` is filled in by who runs it, before the next stage is asked for.

    Attributes:
        name: folder below the run's; empty for a recipe of one stage.
        task, feed, loop: see `mattface.training.loop.fit`.
        result: networks after it.
        notes: sentences about the data.
    """

    name: str
    task: Task
    feed: Feed
    loop: Loop
    result: dict[str, nn.Module] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
