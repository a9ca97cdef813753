"""What recipes train: networks and phases. A recipe's `task` names a module here, which has

    stages(recipe, data: Data, device) -> Iterator[Stage]

A method that trains otherwise (by diffusion, say) adds a module with such a function and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from mattface.training.task import Feed, Loop, Task


@dataclass(frozen=True)
class Data:
    """What a recipe is trained on.

    Attributes:
        root: folder of the data.
        layout: see `mattface.training.data.catalogue`.
        held_out: one in so many people is left out of the training; 0 leaves nobody out.
        workers: processes that prepare batches.
        scoring: embedder that scores held-out people ("resnet", "arcface", FILE.onnx); None scores nobody.
        out: folder of the run, where prepared data may be kept.
    """

    root: Path
    layout: str = "auto"
    held_out: int = 4
    workers: int = 0
    scoring: str | None = None
    out: Path = Path("run")


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
