"""What a training will need, before it begins: parameters, memory, arithmetic, time of every part, from two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mattface.training.config import Loop
from mattface.training.distributed import World
from mattface.training.loop import Run, to_device
from mattface.training.plan.meter import Cost, Meter
from mattface.training.task import Batch, Clock, Feed, Phase, Task, Terms

GIB = 2**30
SMALL = 0.01
"""Parts below this part of seconds and of operations are shown as one."""
LONG = 20.0
"""Seconds after which the first step's times will do: warming up and counting are a small part of them."""


@dataclass(frozen=True)
class Measured:
    """What a micro-batch costs.

    Attributes:
        images: of the micro-batch.
        parts: "phase/part" -> cost of its forward pass, of "phase/others" (losses and what lies outside the parts), of
            "phase/backward", which holds the optimiser too.
        every: phase -> it runs every n steps.
        static: bytes of weights, gradients, moments and averages.
        saved: most bytes that were kept for backward passes at once.
    """

    images: int
    parts: dict[str, Cost]
    every: dict[str, int]
    static: int
    saved: int

    @property
    def mean(self) -> Cost:
        """Seconds and operations of a micro-batch, of phases that run now and then in proportion."""
        parts = [(c, 1 / self.every[name.split("/")[0]]) for name, c in self.parts.items()]
        return Cost(sum(c.seconds * s for c, s in parts), sum(c.flop * s for c, s in parts))


class Trial(Run):
    """A run of which only single steps are taken, to see what they cost."""

    def __init__(self, task: Task, loop: Loop, device: torch.device, meter: Meter, parts: dict[str, nn.Module]) -> None:
        super().__init__(task, loop, Path("."), World(0, 1, device))
        self.meter, self.watched = meter, parts
        self.spent: dict[str, Cost] = {}

    def _phase(self, number: int, phase: Phase, parts: list[Batch], clock: Clock) -> Terms:
        """The phase, with its costs written down; a later step's replace an earlier one's."""
        self.meter.costs = {}
        network = self.form.wrapped[phase.network]
        with self.meter.part("all"), self.meter.watching(self.watched):
            start: list[Cost] = []
            hooks = [
                network.register_forward_pre_hook(lambda *_: start.append(self.meter.reading())),
                network.register_forward_hook(lambda *_: start.append(self.meter.reading())),
            ]
            terms = super()._phase(number, phase, parts, clock)
            for hook in hooks:
                hook.remove()
        costs = self.meter.costs
        whole, others = costs.pop("all"), Cost()
        others.add(start[1], start[0])
        backward = Cost(whole.seconds - others.seconds, whole.flop - others.flop)
        for cost in costs.values():
            others.add(cost, Cost(), -1)
        for name, cost in {**costs, "others": others, "backward": backward}.items():
            self._note(f"{phase.name}/{name}", cost)
        return terms

    def _note(self, name: str, cost: Cost) -> None:
        """Operations and memory of the first step, which counted them; seconds of the last one."""
        first = self.spent.setdefault(name, cost)
        self.spent[name] = Cost(cost.seconds, first.flop, first.kept)

    def _diverged(self, parts: list[Batch], terms: Terms) -> None:
        """Seeded loss networks may give anything; nothing is trained here."""


def parts_of(task: Task) -> dict[str, nn.Module]:
    """What is measured one by one: the parts of every network, and loss networks."""
    found = {f"{n}.{part}": m for n, network in task.networks.items() for part, m in network.named_children()}
    for name, own in vars(getattr(task, "loss_networks", object)).items():
        network = getattr(own, "network", own)
        if isinstance(network, nn.Module):
            found[f"loss network {name}"] = network
    return found


def measure(task: Task, feed: Feed, loop: Loop, device: torch.device) -> Measured:
    """Runs two steps with one micro-batch each: one with every phase, which is counted, and one that is timed.

    Operations inside our own kernels (filters, activations) are not counted; they are bound by memory.

    The task's networks are trained by these steps: give it away afterwards.
    """
    alone = Loop(loop.batch, loop.batch // loop.accumulate, precision=loop.precision, average=loop.average)
    meter = Meter(device)
    run = Trial(task, alone, device, meter, parts_of(task))
    batches = feed.batches(iter([list(range(k * run.micro, (k + 1) * run.micro)) for k in range(2)]))
    with meter.counting():
        run.advance([to_device(next(batches), device)])
    if sum(cost.seconds for cost in run.spent.values()) < LONG:
        run.advance([to_device(next(batches), device)])
    weights = size_of([p for n in task.networks.values() for p in n.parameters()])
    trained = size_of([p for group in run.parameters.values() for p in group])
    kept = size_of([p for n in run.average.values() for p in n.parameters()])
    every = {phase.name: phase.every for phase in task.phases}
    return Measured(run.micro, run.spent, every, weights + 3 * trained + kept, meter.saved.largest)


def size_of(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def plan(task: Task, feed: Feed, loop: Loop, device: torch.device, notes: Sequence[str] = ()) -> str:
    """The plan of a training as text.

    Args:
        task, feed, loop: as for `mattface.training.loop.fit`.
        device: where a micro-batch is measured.
        notes: sentences about what was measured in place of something else.
    """
    lines = [f"recipe {task.name}: {loop.images} images in {loop.steps} steps of {loop.batch}, {loop.precision}"]
    for name, network in task.networks.items():
        total = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        how = task.optimisers.get(name)
        text = f"{how.kind} {how.lr:g}, {how.schedule}" if how else "not optimised"
        lines.append(f"  network {name}: {total:,} parameters, {trained:,} trained ({text})")
    for phase in task.phases:
        terms = ", ".join(f"{k} {v:g}" for k, v in phase.weights.items())
        often = "" if phase.every == 1 else f", every {phase.every} steps"
        begins = f", from {phase.begins} images" if phase.begins else ""
        lines.append(f"  phase {phase.name} trains {phase.network}{often}{begins}: {terms}")
    lines.append(f"  data: {', '.join(f'{k} {v}' for k, v in feed.describe().items())}")
    lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines + costs(measure(task, feed, loop, device), loop, device))


def costs(found: Measured, loop: Loop, device: torch.device) -> list[str]:
    """Lines about parts, time and memory."""
    mean = found.mean
    lines = [f"  parts of a micro-batch of {found.images} on {device}: seconds, GFLOP, GiB kept for the backward pass"]
    small: dict[str, Any] = {}
    for name, cost in found.parts.items():
        if cost.seconds < SMALL * mean.seconds and cost.flop < SMALL * mean.flop:
            rest = small.setdefault(name.split("/")[0], Cost())
            rest.add(cost, Cost())
        else:
            lines.append(row(name, cost))
    lines += [row(f"{phase}/small parts", cost) for phase, cost in small.items()]
    times = loop.images / found.images
    lines.append(
        f"  measured on {device}: {mean.seconds:.3g} s for a micro-batch of {found.images} ({mean.flop / 1e12:.3g} "
        f"TFLOP), so {mean.seconds * times / 3600:.3g} h ({mean.flop * times / 1e18:.3g} EFLOP) in all on one "
        "such device (reading data, scores and grids not counted)"
    )
    lines.append(
        f"  memory: {found.static / GIB:.3g} GiB of weights, gradients, moments and averages, "
        f"about {found.saved / GIB:.3g} GiB of activations for a micro-batch"
    )
    return lines


def row(name: str, cost: Cost) -> str:
    """A line of the table."""
    return f"    {name:34} {cost.seconds:9.3f} {cost.flop / 1e9:10.1f} {max(cost.kept, 0) / GIB:8.3f}"
