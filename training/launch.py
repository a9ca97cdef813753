"""From a command line to a training: recipe, overrides, data, stages; or only the plan of it."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mattface import weights
from mattface.devices import resolve_device
from mattface.errors import UsageError
from mattface.training.config import Data
from mattface.training.distributed import WAYS
from mattface.training.loop import fit
from mattface.training.losses.networks.seeded import SeededNetworks
from mattface.training.plan.estimate import plan
from mattface.training.recipes import RECIPES
from mattface.training.task import Fallback, Stage

EPILOG = """examples:
  mattface data prepare photos/ faces/
  mattface train mattface --data faces/ --out runs/first --dry-run
  torchrun --nproc-per-node 4 -m mattface.training mattface --data faces/ --out runs/first

The same command continues an interrupted run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mattface train`."""
    parser.add_argument("recipe", choices=sorted(RECIPES), metavar="RECIPE", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of training data")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--layout", default="auto", help="layout of the data (default: auto)")
    parser.add_argument("--held-out", type=int, default=4, metavar="N", help="one in N people never trains; 0: all do")
    parser.add_argument("--scoring", metavar="NAME|FILE.onnx", help="identity network that scores held-out people")
    parser.add_argument("--tiny", action="store_true", help="the recipe at a size that a processor trains in a minute")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change it: loop.batch=4")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    parser.add_argument("--parallel", choices=WAYS, default="ddp", help="of several processes; fsdp2 shards networks")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that prepare batches")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's files too")
    parser.add_argument("--allow-change", action="store_true", help="continue under a changed config")
    parser.add_argument("--dry-run", action="store_true", help="print plan, memory and time; train nothing")


def find_recipe(name: str, tiny: bool, overrides: Sequence[str]) -> Any:
    """The frozen configuration of a recipe.

    Args:
        name: of `RECIPES`.
        tiny: its small version.
        overrides: "loop.batch=4"; values are JSON, or text where they are none.

    Raises:
        UsageError: an unknown name or key, or a value that does not fit.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe must be one of {', '.join(sorted(RECIPES))}; got {name!r}.")
    module = importlib.import_module(RECIPES[name])
    recipe = module.tiny() if tiny else module.recipe()
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set must be KEY=VALUE; got {text!r}.")
        recipe = change(recipe, key.split("."), parse_value(value), key)
    return recipe


def parse_value(text: str) -> Any:
    """JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def change(config: Any, path: Sequence[str], value: Any, key: str) -> Any:
    """A copy of a config with one value changed.

    Raises:
        UsageError: no such key, or a value of another type.
    """
    name, *rest = path
    if is_dataclass(config) and not isinstance(config, type):
        known: Sequence[str] = [f.name for f in fields(config)]
        old = getattr(config, name) if name in known else None
    elif isinstance(config, dict):
        known, old = list(config), config.get(name)
    else:
        raise UsageError(f"--set {key}: nothing lies below a {type(config).__name__}.")
    if name not in known:
        raise UsageError(f"--set {key}: {name} must be one of {', '.join(known)}.")
    new = change(old, rest, value, key) if rest else convert(old, value, key)
    return {**config, name: new} if isinstance(config, dict) else replace(config, **{name: new})


def convert(old: Any, value: Any, key: str) -> Any:
    """The value in the type of what it replaces.

    Raises:
        UsageError: it does not fit.
    """
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    number = isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool)
    if old is None or value is None or number or type(old) is type(value):
        return float(value) if number else value
    raise UsageError(f"--set {key}: expected a {type(old).__name__} like {old!r}; got {value!r}.")


def run(args: argparse.Namespace) -> None:
    """Trains, continues, or prints the plan."""
    recipe = find_recipe(args.recipe, args.tiny, args.set)
    data = Data(args.data, args.layout, args.held_out, args.workers, args.scoring, args.out)
    device = resolve_device(args.device)
    if args.dry_run:
        print(make_plan(recipe, data, device))
        return
    for stage in stages_of(recipe, data, device):
        print_notes(stage)
        stage.result = fit(
            stage.task,
            stage.feed,
            stage.loop,
            args.out / stage.name,
            recipe,
            args.device,
            args.allow_change,
            args.tensorboard,
            parallel=args.parallel,
        )
    print(args.out.resolve())


def stages_of(recipe: Any, data: Data, device: torch.device, fallback: Fallback | None = None) -> Iterator[Stage]:
    """The trainings of a recipe, one after the other; `fallback` as for a task's `stages`."""
    module = importlib.import_module(f"mattface.training.tasks.{recipe.task}")
    yield from module.stages(recipe, data, device, fallback)


def print_notes(stage: Stage) -> None:
    """What is worth knowing of the data."""
    for note in stage.notes:
        print(f"data: {note}")


def make_plan(recipe: Any, data: Data, device: torch.device) -> str:
    """The plan of a recipe's first training; what it lacks is replaced by something of the same cost, and named."""
    fallback = SeededNetworks()
    notes = fallback.notes
    if recipe.start is not None and not start_present(recipe.start):
        notes.append(f"network: {recipe.start} is not here, the same parts with seeded weights were measured")
        recipe = replace(recipe, start=None)
    stage = next(stages_of(recipe, data, device, fallback))
    print_notes(stage)
    if stage.name:
        notes.append(f"this is the first stage, {stage.name}, alone; those after it begin with its result")
    return plan(stage.task, stage.feed, stage.loop, device, notes)


def start_present(start: str) -> bool:
    """Whether weights to start from are here, be they a file, a folder or a name."""
    return Path(start).exists() or weights.present(start)
