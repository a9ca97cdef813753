"""A training small enough for tests, as a module and as a program:

python trainee.py FOLDER [SECONDS_PER_STEP [IMAGES [ddp|fsdp2]]]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mattface.training import losses
from mattface.training.config import Loop, Optimiser
from mattface.training.loop import fit
from mattface.training.task import Batch, Clock, Phase, Terms

CONFIG = {"name": "toy", "width": 8}


class Gain(nn.Module):
    """A factor, as a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain


class ToyTask:
    """A generator with batch normalisation, dropout and a gain against a discriminator with R1."""

    name = "toy"
    averaged = ("maker",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        maker = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.3), nn.Conv2d(8, 3, 1))
        maker.append(Gain())
        discriminator = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Softplus(), nn.Conv2d(8, 1, 3))
        self.networks: dict[str, nn.Module] = {"maker": maker, "discriminator": discriminator}
        adamw = Optimiser("adamw", 1e-2, clip=1.0, schedule="cosine", warmup=8)
        self.optimisers = {"maker": adamw, "discriminator": Optimiser("adam", 1e-3)}
        self.phases = (
            Phase("maker", "maker", self.maker, {"photo": 2.0, "adversarial": 0.1}),
            Phase("discriminator", "discriminator", self.discriminator, {"adversarial": 1.0}),
            Phase("r1", "discriminator", self.r1, {"r1": 1.0}, every=3),
        )

    def maker(self, batch: Batch, _: Clock) -> Terms:
        made = self.networks["maker"](batch["image"] + 0.1 * torch.randn_like(batch["image"]))
        batch["made"] = made.detach()
        fake = self.networks["discriminator"](made)
        photo = losses.cycle_loss(made, batch["image"])
        return {"photo": photo, "adversarial": losses.generator_loss("hinge", fake)}

    def discriminator(self, batch: Batch, _: Clock) -> Terms:
        real, fake = (self.networks["discriminator"](batch[k]) for k in ("image", "made"))
        return {"adversarial": losses.discriminator_loss("hinge", real, fake)}

    def r1(self, batch: Batch, _: Clock) -> Terms:
        real = batch["image"].detach().clone().requires_grad_()
        return {"r1": losses.r1_penalty(self.networks["discriminator"](real), real)}

    def export(self, networks: Any, folder: Path, progress: str) -> None:
        (folder / "exported.txt").write_text(progress)

    def grid(self, networks: Any) -> torch.Tensor:
        return networks["maker"](ToyFeed().sample(0)["image"][None])[0]

    def score(self, networks: Any) -> dict[str, float]:
        return {"weight": float(networks["maker"][0].weight.abs().mean())}


class ToyFeed:
    """Pictures of two colours drawn from their position."""

    def __init__(self, pause: float = 0.0, poison: int = -1) -> None:
        self.pause, self.poison = pause, poison

    def sample(self, position: int) -> Batch:
        rng = torch.Generator().manual_seed(position)
        image = torch.rand(3, 1, 1, generator=rng).expand(3, 8, 8).clone()
        image[:, :, :4] = torch.rand(3, 1, 1, generator=rng)
        return {"image": image * 2 - 1 if position != self.poison else image * float("nan")}

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        for chosen in positions:
            time.sleep(self.pause)
            yield {"image": torch.stack([self.sample(p)["image"] for p in chosen])}

    def describe(self) -> dict[str, Any]:
        return {"pictures": "drawn"}


def toy_loop(**changes: Any) -> Loop:
    settings: dict[str, Any] = {"images": 96, "batch": 4, "accumulate": 2, "average": 0.9, "log_every": 4}
    return Loop(**settings | {"save_every": 16} | changes)


if __name__ == "__main__":
    folder, pause, images, parallel = [*sys.argv[1:], *("", "0", "96", "ddp")[len(sys.argv) - 1 :]]
    settings = toy_loop(accumulate=1, images=int(images), grid_every=48, score_every=48)
    fit(ToyTask(), ToyFeed(float(pause)), settings, Path(folder), CONFIG, "cpu", quiet=True, parallel=parallel)
