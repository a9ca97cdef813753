"""python -m mattface.benchmarks.training: what the trainer costs beside the networks it trains, and how it scales.

    python -m mattface.benchmarks.training --out runs/training.json

Three questions on one tiny mattface network with its discriminator, so that what is around the networks weighs most:
steps of the loop against a bare loop over the same networks and losses; steps with data read from disk against steps on
one cached batch; images per second of two processes against one. The second number is also measured for the recipe
mattface-demo as it is bundled, on triplets in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mattface.benchmarks.common import save
from mattface.errors import UsageError
from mattface.mesh import topology
from mattface.methods.mattface import build_network
from mattface.training.config import Data, DiscriminatorConfig, Loop, LossNetworks, SwapRecipe
from mattface.training.data.feed import PositionFeed
from mattface.training.data.triplet_batch import pack
from mattface.training.data.triplets import MemoryTriplets, TripletSamples
from mattface.training.distributed import World, world
from mattface.training.journal import Journal
from mattface.training.launch import find_recipe
from mattface.training.loop import Run
from mattface.training.modes import update_average
from mattface.training.task import Batch, Clock, Stage
from mattface.training.tasks import swap, triplets

CPU = torch.device("cpu")
BATCH = 4


def faces(root: Path, count: int = 24, size: int = 256) -> Path:
    """Pictures of noise with masks and landmarks, as `mattface data prepare` would leave them."""
    rng = np.random.default_rng(0)
    for name in ("img", "mask", "mesh"):
        (root / name).mkdir(parents=True, exist_ok=True)
    mesh = topology().mean * (0.25 * size)
    mesh[:, :2] += size / 2
    for k in range(count):
        small = rng.integers(0, 255, (size // 8, size // 8, 3), np.uint8)
        Image.fromarray(small).resize((size, size)).save(root / "img" / f"{k}.png")
        Image.fromarray(np.full((size, size), 255, np.uint8)).save(root / "mask" / f"{k}.png")
        np.save(root / "mesh" / f"{k}.npy", mesh.astype(np.float32))
    return root


def recipe() -> SwapRecipe:
    """The tiny mattface recipe without loss networks: its networks are all that is trained and all that runs."""
    tiny = find_recipe("mattface", True, [])
    loop = Loop(10**6, BATCH, average=0.9, log_every=10 * BATCH)
    loss_networks, discriminator = LossNetworks("resnet", "whole"), DiscriminatorConfig("global", "log", width=4)
    return replace(
        tiny,
        loop=loop,
        loss={"same": 10.0, "masked": 1.0, "adversarial": 0.1},
        loss_networks=loss_networks,
        discriminator=discriminator,
    )


def stage(root: Path, workers: int) -> Stage:
    """Task, feed and loop of the tiny network on the CPU."""
    return next(swap.stages(recipe(), Data(root, held_out=0, workers=workers), CPU))


def bundled(_: Path, workers: int, count: int = 32) -> Stage:
    """The swapping stage of the recipe mattface-demo on triplets of noise, kept in memory as its own are."""
    if workers:
        raise UsageError(f"expected no workers for triplets kept in memory; got {workers}.")
    chosen, rng = find_recipe("mattface-demo", False, []), torch.Generator().manual_seed(1)
    channels = {"source": 3, "target": 3, "swap": 3, "flow": 2, "source_canonical": 3, "canonical": 3}
    channels |= {"visible": 1, "matte": 1, "mask": 1}
    shape = (chosen.size, chosen.size)
    maps = {k: torch.rand((count, c, *shape), generator=rng) for k, c in channels.items()}
    memory = MemoryTriplets({k: torch.stack([pack(k, x) for x in v]) for k, v in maps.items()})
    feed = PositionFeed(TripletSamples(memory, chosen.loop.seed))
    return triplets.stage(chosen, "swap", build_network(chosen.config), feed)


class Bare:
    """The step without the trainer: the same networks, losses, optimisers, clip-free, and average, written out."""

    def __init__(self, task: Any) -> None:
        import copy

        self.task = task
        self.networks = task.networks
        self.optimisers = {n: o.build(list(self.networks[n].parameters())) for n, o in task.optimisers.items()}
        self.average = copy.deepcopy(self.networks["swapper"])

    def __call__(self, batch: Batch) -> None:
        """One step."""
        clock = Clock(0, 0, BATCH)
        for phase in self.task.phases:
            for name, network in self.networks.items():
                network.requires_grad_(name == phase.network)
            optimiser: torch.optim.Optimizer = self.optimisers[phase.network]
            optimiser.zero_grad(set_to_none=True)
            terms = phase.terms(batch, clock)
            loss = sum(phase.weights[k] * v for k, v in terms.items())
            torch.as_tensor(loss).backward()
            optimiser.step()
        update_average(self.average, self.networks["swapper"], 0.9)


def seconds(work: Any, count: int, clock: Any = time.perf_counter) -> list[float]:
    """Seconds of each of `count` calls."""
    found = []
    for _ in range(count):
        start = clock()
        work()
        found.append(clock() - start)
    return found


def overhead(root: Path, steps: int) -> dict[str, float]:
    """Median processor seconds of a step of the loop, logging included, and of the bare loop; both take turns.

    Processor time, because work of others on the machine would drown a difference of a few percent.
    """
    first, second = stage(root, 0), stage(root, 0)
    batch = next(first.feed.batches(iter([list(range(BATCH))])))
    with tempfile.TemporaryDirectory() as folder:
        run, bare = Run(first.task, first.loop, Path(folder), World(0, 1, CPU)), Bare(second.task)
        journal = Journal(Path(folder), quiet=True)

        def trained() -> None:
            terms, lrs = run.advance([dict(batch)])
            if run.loop.due(run.loop.log_every, run.step):
                run._log(journal, terms, lrs)

        works = {"bare": lambda: bare(dict(batch)), "trainer": trained}
        found: dict[str, list[float]] = {name: [] for name in works}
        for work in works.values():
            seconds(work, 2)
        for turn in range(steps):
            for name in sorted(works, reverse=bool(turn % 2)):
                found[name] += seconds(works[name], 1, time.process_time)
    ratios = [t / b for t, b in zip(found["trainer"], found["bare"], strict=True)]
    medians = {f"{name} seconds": statistics.median(values) for name, values in found.items()}
    return medians | {"overhead": statistics.median(ratios) - 1}


class Cached:
    """One batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """The batch for every list."""
        for _ in positions:
            yield dict(self.batch)


def loading(make: Callable[[Path, int], Stage], root: Path, steps: int, workers: int) -> dict[str, float]:
    """Median seconds of a step that waits for its batch, read from disk and cached; both take turns.

    "slower" is the median ratio of two steps that follow each other: others on the machine slow both.
    """
    made = [make(root, workers), make(root, 0)]
    micro = made[0].loop.batch // made[0].loop.accumulate
    batch = next(made[1].feed.batches(iter([list(range(micro))])))
    feeds: dict[str, Any] = {"read": made[0].feed, "cached": Cached(batch)}
    positions = {name: ([*range(k * micro, (k + 1) * micro)] for k in range(10**6)) for name in feeds}
    sources = {name: feed.batches(positions[name]) for name, feed in feeds.items()}
    found: dict[str, list[float]] = {name: [] for name in feeds}
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Run(m.task, m.loop, Path(folder), World(0, 1, CPU)) for name, m in zip(feeds, made, strict=True)}
        works = {name: lambda name=name: runs[name].advance([next(sources[name])]) for name in feeds}
        for work in works.values():
            seconds(work, 2)
        for turn in range(steps):
            for name in sorted(works, reverse=bool(turn % 2)):
                found[name] += seconds(works[name], 1)
    medians = {f"{name} seconds": statistics.median(values) for name, values in found.items()}
    ratios = [r / c for r, c in zip(found["read"], found["cached"], strict=True)]
    samples = seconds(lambda: next(made[1].feed.batches(iter([list(range(micro))]))), 5, time.process_time)
    return medians | {
        "processor seconds to make a batch": min(samples),
        "workers": workers,
        "slower": statistics.median(ratios) - 1,
    }


def share(root: Path, steps: int) -> None:
    """Steps of one of several processes that torchrun started; the first prints images per second of all."""
    torch.set_num_threads(1)
    made = stage(root, 0)
    batch = next(made.feed.batches(iter([list(range(BATCH))])))
    with tempfile.TemporaryDirectory() as folder, world("cpu") as here:
        loop = replace(made.loop, batch=BATCH * here.size)
        run = Run(made.task, loop, Path(folder), here)
        seconds(lambda: run.advance([dict(batch)]), 3)
        here.wait()
        spent = seconds(lambda: run.advance([dict(batch)]), steps)
        if here.first:
            print(json.dumps({"processes": here.size, "images per second": loop.batch / statistics.median(spent)}))


def scaling(root: Path, steps: int) -> dict[str, float]:
    """Images per second of one and of two processes of one thread each, every process with a batch of its own."""
    rates: dict[int, float] = {}
    for count in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", "mattface.benchmarks.training", "--share", str(root), "--steps", str(steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        rates[count] = json.loads(done.stdout.strip().splitlines()[-1])["images per second"]
    return {"one process": rates[1], "two processes": rates[2], "efficiency": rates[2] / (2 * rates[1])}


def parts(task: Any) -> dict[str, int]:
    """Parameters of the networks that are trained."""
    networks: dict[str, nn.Module] = task.networks
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1, help="processes that read data")
    parser.add_argument("--out", type=Path, default=Path("runs/training.json"))
    parser.add_argument("--share", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.share:
        share(args.share, args.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = faces(Path(folder))
        found: dict[str, Any] = {"parameters": parts(stage(root, 0).task), "batch": BATCH}
        found["overhead"] = overhead(root, args.steps)
        found["loading, tiny"] = loading(stage, root, args.steps, args.workers)
        found["loading, bundled"] = loading(bundled, Path(folder), max(args.steps // 3, 3), 0)
        found["scaling"] = scaling(root, args.steps)
    for name, row in found.items():
        print(name, row)
    save(found, args.out)
    print(args.out.resolve())


if __name__ == "__main__":
    main()
