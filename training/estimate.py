"""What a training will need, before it begins: parameters, memory and time from one measured micro-batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from mattface.training.loop import Run, to_device
from mattface.training.parallel import World
from mattface.training.task import Feed, Loop, Task

GIB = 2**30


def saved_bytes(work: Any) -> tuple[Any, int]:
    """Runs `work`; returns its result and the bytes that were kept for backward passes at the most demanding moment.

    Storages are counted once; parameters and inputs among them count too.
    """
    alive: dict[int, int] = {}
    largest = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        storage = tensor.untyped_storage()
        alive[storage.data_ptr()] = storage.nbytes()
        largest = max(largest, sum(alive.values()))
        return tensor

    def release(tensor: torch.Tensor) -> torch.Tensor:
        alive.pop(tensor.untyped_storage().data_ptr(), None)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, release):
        result = work()
    return result, largest


def measured(task: Task, feed: Feed, loop: Loop, device: torch.device) -> dict[str, float]:
    """Runs two steps with one micro-batch each: warm-up with every phase, then a timed one without lazy penalties.

    The task's networks are trained by these steps: give it away afterwards.

    Returns:
        "images" of a micro-batch, "seconds" of it, "saved" bytes for backward passes, "static" bytes of weights,
        gradients, moments and averages.
    """
    alone = Loop(loop.batch, loop.batch // loop.accumulate, precision=loop.precision, average=loop.average)
    run = Run(task, alone, Path("."), World(0, 1, device))
    batches = feed.batches(iter([list(range(k * run.micro, (k + 1) * run.micro)) for k in range(2)]))
    first = to_device(next(batches), device)
    _, saved = saved_bytes(lambda: run.advance([first]))
    second = to_device(next(batches), device)
    start = time.perf_counter()
    run.advance([second])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    weights = sum(p.numel() * p.element_size() for n in task.networks.values() for p in n.parameters())
    trained = sum(p.numel() * p.element_size() for group in run.parameters.values() for p in group)
    kept = sum(p.numel() * p.element_size() for n in run.average.values() for p in n.parameters())
    return {"images": run.micro, "seconds": seconds, "saved": saved, "static": weights + 3 * trained + kept}


def plan(task: Task, feed: Feed, loop: Loop, device: torch.device) -> str:
    """The plan of a training as text.

    Args:
        task, feed, loop: as for `mattface.training.loop.fit`.
        device: where a micro-batch is measured.
    """
    lines = [f"recipe {task.name}: {loop.images} images in {loop.steps} steps of {loop.batch}, {loop.precision}"]
    for name, network in task.networks.items():
        total = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        how = task.optimisers.get(name)
        text = f"{how.kind} {how.rate:g}, {how.schedule}" if how else "not optimised"
        lines.append(f"  network {name}: {total:,} parameters, {trained:,} trained ({text})")
    for phase in task.phases:
        terms = ", ".join(f"{k} {v:g}" for k, v in phase.weights.items())
        often = "" if phase.every == 1 else f", every {phase.every} steps"
        begins = f", from {phase.begins} images" if phase.begins else ""
        lines.append(f"  phase {phase.name} trains {phase.network}{often}{begins}: {terms}")
    lines.append(f"  data: {', '.join(f'{k} {v}' for k, v in feed.describe().items())}")
    found = measured(task, feed, loop, device)
    hours = found["seconds"] * loop.images / found["images"] / 3600
    lines.append(
        f"  measured on {device}: {found['seconds']:.3g} s for a micro-batch of {found['images']:g}, so {hours:.3g} h "
        "for everything on one such device (reading data, scores and grids not counted)"
    )
    lines.append(
        f"  memory: {found['static'] / GIB:.3g} GiB of weights, gradients, moments and averages, "
        f"about {found['saved'] / GIB:.3g} GiB of activations for a micro-batch"
    )
    return "\n".join(lines)
