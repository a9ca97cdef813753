"""The one training loop: phases, mixed precision, accumulation, average, checkpoints, and going on after anything.

All randomness of a step comes from the seed and the step's number, so a run that continues from a checkpoint goes on
as if it had never stopped: nothing random has to be saved.
"""

from __future__ import annotations

import copy
import itertools
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mattface.errors import DeviceError, MattfaceError, UsageError
from mattface.training.checkpoint import latest, load_checkpoint, save_checkpoint, save_state, write_json
from mattface.training.config import PRECISIONS, Loop
from mattface.training.distributed import AVERAGE, World, distribute, world
from mattface.training.journal import Journal, as_json, environment, settle_config
from mattface.training.modes import evaluating, train_all, train_only, update_average
from mattface.training.randomness import position_seed
from mattface.training.task import Batch, Clock, Feed, Phase, Task, Terms

TERMINATED = 143
CPU = torch.device("cpu")


class DivergedError(MattfaceError):
    """The loss is no longer a number; the batch was saved."""


def fit(
    task: Task,
    feed: Feed,
    loop: Loop,
    folder: Path,
    config: Any,
    device: str | torch.device = "auto",
    allow_change: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
    parallel: str = "ddp",
) -> dict[str, nn.Module]:
    """Trains a task, or continues where its folder left off.

    Args:
        task: networks and losses, as `mattface.training.task.Task` says.
        feed: where batches come from.
        loop: settings.
        folder: of the run: config, environment, metrics, grids, checkpoints, exported weights.
        config: frozen recipe or dictionary, with a "name"; a run continues only under the same one.
        device: see `mattface.devices.resolve_device`; torchrun's processes take one each.
        allow_change: continue under a changed config.
        tensorboard: write TensorBoard's files too.
        quiet: print nothing.
        parallel: of several processes, "ddp": all of them keep everything; "fsdp2": weights, gradients, moments and
            averages are sharded. A run may continue in the other way.

    Returns:
        Name -> network, averaged where an average is kept.

    Raises:
        UsageError: a folder of another recipe or config, a batch that the processes cannot share, or "fsdp2" where it
            does not fit (one process, or fp16).
        DivergedError: the loss is not finite; diverged.pt in the folder holds the batch.
        InputError: a checkpoint cannot be written; the last good one stays.
        SystemExit: 143 after SIGTERM, when the state is saved.
    """
    with world(device, parallel) as here:
        run = Run(task, loop, folder, here)
        if here.first:
            folder.mkdir(parents=True, exist_ok=True)
            settle_config(folder, as_json(config) | {"data": as_json(feed.describe())}, allow_change)
            write_json(folder / "environment.json", environment(here.size, here.device, here.parallel))
        here.wait()
        run.resume()
        journal = Journal(folder, run.images, tensorboard, quiet) if here.first else None
        try:
            with _collect(signal.SIGTERM) as stop:
                run.train(feed, journal, stop)
        finally:
            train_all(run.parameters)
            if journal is not None:
                journal.close()
        return run.final_networks()


class Run:
    """A task on its way: networks, their averages, optimisers and the step reached.

    Args:
        task: what is trained.
        loop: settings.
        folder: of the run.
        here: this process.
    """

    def __init__(self, task: Task, loop: Loop, folder: Path, here: World) -> None:
        self.task, self.loop, self.folder, self.here = task, loop, folder, here
        parts = here.size * loop.accumulate
        if loop.batch % parts:
            raise UsageError(
                f"batch must be a multiple of processes x accumulate = {here.size} x {loop.accumulate}; got "
                f"{loop.batch}."
            )
        if loop.precision == "fp16" and here.device.type != "cuda":
            raise DeviceError("expected a CUDA device for fp16; got the CPU. Set loop.precision to fp32 or bf16.")
        if loop.precision == "fp16" and here.parallel == "fsdp2":
            raise UsageError("parallel fsdp2 trains in fp32 or bf16; got fp16. Set loop.precision, or --parallel ddp.")
        self.micro, self.step = loop.batch // parts, 0
        for network in task.networks.values():
            network.to(here.device)
        names = task.averaged if loop.average else ()
        self.average = {n: copy.deepcopy(task.networks[n]).requires_grad_(False) for n in names}
        everything = task.networks | {f"{AVERAGE}{n}": m for n, m in self.average.items()}
        self.form = distribute(everything, task.optimisers, here)
        self.parameters = {n: self.form.trained(n) for n in task.optimisers}
        self.optimisers = {n: o.build(self.parameters[n]) for n, o in task.optimisers.items()}
        scaled = loop.precision == "fp16"
        self.scalers = {n: torch.amp.GradScaler(here.device.type, enabled=scaled) for n in task.optimisers}

    @property
    def images(self) -> int:
        """Images seen."""
        return self.step * self.loop.batch

    def final_networks(self) -> dict[str, nn.Module]:
        """The networks that are used after training. All processes must come here."""
        with self.form.whole(CPU) as networks:
            return self._final(networks)

    def _final(self, whole: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {n: whole[f"{AVERAGE}{n}" if n in self.average else n] for n in self.task.networks}

    def resume(self) -> None:
        """Continues from the newest checkpoint, if there is one."""
        path = latest(self.folder)
        if path is None:
            return
        with self.form.whole(CPU) as networks:
            optimisers, state = load_checkpoint(path, networks)
        self.form.scatter()
        for name, optimiser in self.optimisers.items():
            self.form.load(name, optimiser, optimisers[name])
            self.scalers[name].load_state_dict(optimisers[f"{name} scaler"])
        self.step = state["step"]

    def save(self) -> None:
        """Writes a checkpoint and what the task exports."""
        states = {n: self.form.state(n, o) for n, o in self.optimisers.items()}
        states |= {f"{n} scaler": s.state_dict() for n, s in self.scalers.items()}
        with self.form.whole(CPU) as networks:
            if self.here.first:
                state = {"step": self.step, "images": self.images, "recipe": self.task.name}
                save_checkpoint(self.folder, networks, states, state, self.loop.keep)
                self.task.export(self._final(networks), self.folder, f"{self.images} of {self.loop.images} images")
        self.here.wait()

    def positions(self) -> Iterator[list[int]]:
        """Positions of this process's micro-batches from the present step to the end."""
        for step in range(self.step, self.loop.steps):
            for part in range(self.loop.accumulate):
                first = step * self.loop.batch + (part * self.here.size + self.here.rank) * self.micro
                yield list(range(first, first + self.micro))

    def train(self, feed: Feed, journal: Journal | None, stop: list[int]) -> None:
        """Runs to the end, or until a signal is in `stop`."""
        batches = feed.batches(self.positions())
        while self.step < self.loop.steps:
            parts = [to_device(b, self.here.device) for b in itertools.islice(batches, self.loop.accumulate)]
            terms, lrs = self.advance(parts)
            if self.loop.due(self.loop.log_every, self.step):
                self._log(journal, terms, lrs)
            self._review(journal)
            ended = self.here.any(bool(stop))
            if ended or self.loop.due(self.loop.save_every, self.step) or self.step == self.loop.steps:
                self.save()
            if ended and self.step < self.loop.steps:
                raise SystemExit(TERMINATED)

    def advance(self, parts: list[Batch]) -> tuple[Terms, dict[str, float]]:
        """One step of every phase that is due; returns loss terms and learning rates."""
        clock = Clock(self.step, self.images, self.loop.batch)
        lrs = {n: o.lr_at(clock.images, clock.batch, self.loop.images) for n, o in self.task.optimisers.items()}
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = lrs[name]
        terms: Terms = {}
        for number, phase in enumerate(self.task.phases):
            if phase.due(clock):
                terms |= self._phase(number, phase, parts, clock)
        if not torch.isfinite(torch.stack(list(terms.values())).sum()):
            self._diverged(parts, terms)
        self.step += 1
        decay = min(self.loop.average, self.step / (self.step + 9))  # early averages forget the random start
        for name, average in self.average.items():
            update_average(average, self.task.networks[name], decay)
        return terms, {f"lr/{n}": lr for n, lr in lrs.items()}

    def _phase(self, number: int, phase: Phase, parts: list[Batch], clock: Clock) -> Terms:
        """Gradients of all micro-batches, then one optimiser step."""
        train_only(self.parameters, phase.network)
        optimiser, scaler = self.optimisers[phase.network], self.scalers[phase.network]
        optimiser.zero_grad(set_to_none=True)
        with self.form.phase(phase.network):
            sums = self._gradients(number, phase, [concatenate(parts)] if phase.gathered else parts, clock)
        clip = self.task.optimisers[phase.network].clip
        if clip is not None:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_([p for p in self.parameters[phase.network] if p.grad is not None], clip)
        scaler.step(optimiser)
        scaler.update()
        return sums

    def _gradients(self, number: int, phase: Phase, parts: list[Batch], clock: Clock) -> Terms:
        """Adds up the gradients of all micro-batches; returns the means of their terms."""
        sums: Terms = {}
        wrapped, dtype = self.form.wrapped[phase.network], PRECISIONS[self.loop.precision]
        for index, batch in enumerate(parts):
            part = (clock.step * self.loop.accumulate + index) * self.here.size + self.here.rank
            torch.manual_seed(position_seed(self.loop.seed, part) * 64 + number)
            with self.form.part(phase.network, index == len(parts) - 1):
                with torch.autocast(self.here.device.type, dtype, enabled=dtype != torch.float32):
                    terms = wrapped(partial(phase.terms, batch, clock))
                loss = phase.loss(terms) / len(parts)
                self.scalers[phase.network].scale(loss).backward()
            for name, value in (terms | {"loss": loss * len(parts)}).items():
                key = f"{phase.name}/{name}"
                sums[key] = sums.get(key, 0.0) + value.detach().float() / len(parts)
        return sums

    def _diverged(self, parts: list[Batch], terms: Terms) -> None:
        """Saves the batch and stops."""
        path = self.folder / (f"diverged-{self.here.rank}.pt" if self.here.size > 1 else "diverged.pt")
        found = {k: float(v) for k, v in terms.items()}
        save_state(path, {"step": self.step, "terms": found, "batches": parts})
        bad = ", ".join(k for k, v in found.items() if v != v or abs(v) == float("inf"))
        last = latest(self.folder)
        raise DivergedError(
            f"the loss must stay finite; {bad} is not in step {self.step}. {path} holds the batch; "
            f"the last good checkpoint is {last.name if last else 'none'}. Lower the learning rate, or leave the "
            "samples out."
        )

    def _log(self, journal: Journal | None, terms: Terms, lrs: dict[str, float]) -> None:
        values = self.here.mean(torch.stack(list(terms.values()))).tolist()
        if journal is not None:
            journal.write(self.images, dict(zip(terms, values, strict=True)) | lrs)

    def _review(self, journal: Journal | None) -> None:
        """Grid and scores, by the first process while the others wait."""
        grid, score = (self.loop.due(every, self.step) for every in (self.loop.grid_every, self.loop.score_every))
        if not grid and not score:
            return
        with self.form.whole(self.here.device) as whole:
            if journal is not None:
                with torch.no_grad(), evaluating(self._final(whole)) as networks:
                    picture = self.task.grid(networks) if grid else None
                    numbers = self.task.score(networks) if score else {}
                if picture is not None:
                    journal.grid(self.images, picture)
                if numbers:
                    journal.write(self.images, {f"score/{k}": v for k, v in numbers.items()})
        self.here.wait()


def concatenate(batches: list[Batch]) -> Batch:
    """Micro-batches as one."""
    if len(batches) == 1:
        return batches[0]
    columns = {k: [b[k] for b in batches] for k in batches[0]}
    return {
        k: torch.cat(v) if isinstance(v[0], torch.Tensor) else list(itertools.chain.from_iterable(v))
        for k, v in columns.items()
    }


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors of a batch on the device; the rest as it is."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


@contextmanager
def _collect(number: int) -> Iterator[list[int]]:
    """Collects a signal instead of dying of it, so that the step in progress ends and is saved."""
    heard: list[int] = []
    try:
        previous = signal.signal(number, lambda n, _frame: heard.append(n))
    except ValueError:  # not the main thread: the process belongs to somebody else, who decides
        yield heard
        return
    try:
        yield heard
    finally:
        signal.signal(number, previous)
