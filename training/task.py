"""What a recipe gives to the loop: trained networks, phases with their losses, optimisers; and the loop's own settings.

Progress is counted in images: one sample seen by the whole step, however many processes and micro-batches share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mattface.errors import UsageError

Batch = dict[str, Any]
"""Name -> tensor (B, ...) or list of B strings. A phase may leave tensors in it for the phases after it."""
Terms = dict[str, torch.Tensor]
"""Name -> unweighted scalar loss."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class Optimiser:
    """How one network is optimised.

    Attributes:
        kind: "adam" or "adamw".
        rate: peak learning rate.
        betas: of the moments.
        epsilon: of the denominator.
        decay: weight decay (of AdamW's kind only with "adamw").
        clip: largest norm of the gradient; None for no limit.
        schedule: "constant", "cosine" (to zero at the end), or "step" (times `factor` every `every` images).
        warmup: images of linear growth from zero.
    """

    kind: str = "adam"
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    decay: float = 0.0
    clip: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    factor: float = 1.0
    every: int = 0

    def __post_init__(self) -> None:
        if self.kind not in OPTIMISERS or self.schedule not in SCHEDULES:
            raise UsageError(
                f"optimiser must be one of {', '.join(OPTIMISERS)} with a schedule of {', '.join(SCHEDULES)}; got "
                f"{self.kind!r} with {self.schedule!r}."
            )
        if self.schedule == "step" and self.every < 1:
            raise UsageError(f'schedule "step" needs every > 0 images; got {self.every}.')

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser."""
        made = OPTIMISERS[self.kind]
        return made(parameters, self.rate, betas=self.betas, eps=self.epsilon, weight_decay=self.decay)

    def rate_at(self, images: int, batch: int, total: int) -> float:
        """Learning rate of the step that begins after `images` of `total` images."""
        if images < self.warmup:
            return self.rate * min(1.0, (images + batch) / self.warmup)
        if self.schedule == "cosine":
            return self.rate * 0.5 * (1 + math.cos(math.pi * (images - self.warmup) / max(total - self.warmup, 1)))
        return self.rate * self.factor ** (images // self.every) if self.schedule == "step" else self.rate


@dataclass(frozen=True)
class Loop:
    """Settings of the loop. All intervals are in images and are rounded up to whole steps; 0 means never.

    Attributes:
        images: length of the training.
        batch: images per step of all processes and micro-batches together.
        accumulate: micro-batches per step and process.
        precision: "fp32", "bf16" or "fp16" (CUDA only), by autocast.
        average: decay per step of the exponential moving average of the weights; 0 keeps none.
        log_every, save_every, grid_every, score_every: intervals.
        keep: checkpoints kept.
        seed: of everything random.
    """

    images: int
    batch: int
    accumulate: int = 1
    precision: str = "fp32"
    average: float = 0.0
    log_every: int = 1000
    save_every: int = 10000
    grid_every: int = 0
    score_every: int = 0
    keep: int = 2
    seed: int = 20261121

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UsageError(
                f"batch must be a multiple of accumulate, both at least 1; got {self.batch} and {self.accumulate}."
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return -(-self.images // self.batch)

    def due(self, interval: int, step: int) -> bool:
        """Whether something that happens every `interval` images is due after `step` steps."""
        return interval > 0 and (step == self.steps or step % max(1, -(-interval // self.batch)) == 0)


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
        every: runs in every so manieth step (lazy regularisation).
        begins: images after which it begins.
    """

    name: str
    network: str
    terms: Callable[[Batch, Clock], Terms]
    weights: Mapping[str, float]
    every: int = 1
    begins: int = 0

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

    Losses may ask networks that stand still; a task that has such keeps them as `judges` too, of the type
    `mattface.training.judges.Frozen`, and a plan measures them one by one.
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


@dataclass(frozen=True)
class Recipe:
    """One complete configuration; every recipe's own class adds to this.

    Attributes:
        name: of the recipe, its run and its checkpoint.
        loop: settings of the loop.
        optimisers: network -> how it is optimised.
        task: module of `mattface.training.tasks` that trains it.
    """

    name: str
    loop: Loop
    optimisers: dict[str, Optimiser] = field(default_factory=dict)
    task: str = ""
