"""Pre-training of StyleGAN2 generators (Karras et al. 2020): lazy R1 and path length, ADA-style augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from mattface.generate.discriminator import Discriminator
from mattface.generate.generator import Generator, build_generator
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.config import Data, GeneratorRecipe, Optimiser
from mattface.training.data.catalogue import catalogue
from mattface.training.data.feed import Faces, PositionFeed
from mattface.training.models.ada import Statistics, augment
from mattface.training.models.start import load_start
from mattface.training.task import Batch, Clock, Fallback, Phase, Stage, Terms

MIXED = 0.9
"""Ratio of samples with two styles (Karras et al. 2019, section 3.1)."""


def lazy_optimiser(optimiser: Optimiser, every: int) -> Optimiser:
    """The optimiser of a network with a penalty every n steps (Karras et al. 2020, appendix B)."""
    ratio = every / (every + 1)
    return replace(
        optimiser,
        lr=optimiser.lr * ratio,
        betas=(optimiser.betas[0] ** ratio, optimiser.betas[1] ** ratio),
    )


class GeneratorTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
    """

    averaged = ("generator",)

    def __init__(self, recipe: GeneratorRecipe) -> None:
        self.recipe, self.name = recipe, recipe.name
        base, most = recipe.channel_base, recipe.channel_max
        self.generator: Generator = build_generator(
            recipe.size, recipe.style, recipe.layers, channel_base=base, channel_max=most
        )
        self.discriminator = Discriminator(recipe.size, base, most)
        self.statistics = Statistics()
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "statistics": self.statistics,
        }
        given = recipe.optimisers
        self.optimisers = {
            "generator": lazy_optimiser(given["generator"], recipe.path_every),
            "discriminator": lazy_optimiser(given["discriminator"], recipe.r1_every),
        }
        r1, path = recipe.gamma / 2 * recipe.r1_every, recipe.path_weight * recipe.path_every
        self.phases = (
            Phase("generator", "generator", self.generator_terms, {"adversarial": 1.0}),
            Phase("path", "generator", self.path_terms, {"path": path}, recipe.path_every),
            Phase("discriminator", "discriminator", self.discriminator_terms, {"adversarial": 1.0}),
            Phase("r1", "discriminator", self.r1_terms, {"r1": r1}, recipe.r1_every),
        )
        draw = torch.Generator().manual_seed(recipe.loop.seed)
        self.fixed = torch.randn(16, recipe.style, generator=draw)

    def styles(self, count: int, device: torch.device) -> torch.Tensor:
        """(count, L, D) styles of random samples, most of them of two."""
        mapping = self.generator.mapping
        one, two = (mapping.style(torch.randn(count, mapping.z_dim, device=device)) for _ in range(2))
        with torch.no_grad():
            mapping.w_avg.lerp_(one.detach().mean(0), 0.002 if self.generator.training else 0.0)
        cut = torch.randint(1, mapping.num_styles, (count, 1), device=device)
        cut = torch.where(torch.rand(count, 1, device=device) < MIXED, cut, mapping.num_styles)
        late = torch.arange(mapping.num_styles, device=device)[None] >= cut  # (count, L)
        return torch.where(late[:, :, None], two[:, None], one[:, None])

    def generate(self, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and their styles."""
        styles = self.styles(count, device)
        image = self.generator.synthesis(styles, noise="random").image
        return image, styles

    def generator_terms(self, batch: Batch, _: Clock) -> Terms:
        """The generator against the discriminator."""
        count, device = len(batch["image"]), batch["image"].device
        scores = self.discriminator(augment(self.generate(count, device)[0], self.statistics.p))
        return {"adversarial": losses.generator_loss("log", scores)}

    def path_terms(self, batch: Batch, _: Clock) -> Terms:
        """Path length penalty on a part of the batch."""
        count = max(1, int(len(batch["image"]) * self.recipe.path_ratio))
        image, styles = self.generate(count, batch["image"].device)
        lengths = losses.path_lengths(image, styles, torch.randn_like(image))
        mean = self.statistics.path
        with torch.no_grad():
            mean.lerp_(self._mean(lengths.detach().mean()), 0.01)
        return {"path": losses.path_penalty(lengths, mean)}

    def discriminator_terms(self, batch: Batch, clock: Clock) -> Terms:
        """The discriminator tells real pictures from made ones, both augmented."""
        real = batch["image"]
        with torch.no_grad():
            fake = self.generate(len(real), real.device)[0]
        scores = [self.discriminator(augment(x, self.statistics.p)) for x in (real, fake)]
        if self.recipe.augment > 0:
            sign = self._mean(torch.sign(scores[0].detach()).mean())
            images = clock.batch // max(1, self._parts(clock, len(real)))
            self.statistics.follow(sign, self.recipe.augment, images, self.recipe.span)
        return {"adversarial": losses.discriminator_loss("log", scores[0], scores[1])}

    @staticmethod
    def _parts(clock: Clock, count: int) -> int:
        """Micro-batches in a step: the probability moves a part of its way in each."""
        processes = dist.get_world_size() if dist.is_initialized() else 1
        return clock.batch // (count * processes)

    @staticmethod
    def _mean(value: torch.Tensor) -> torch.Tensor:
        """Mean over processes, so that all of them keep the same statistics."""
        if dist.is_initialized():
            value = value.clone()
            dist.all_reduce(value)
            value = value / dist.get_world_size()
        return value

    def r1_terms(self, batch: Batch, _: Clock) -> Terms:
        """R1 at the real pictures as the discriminator sees them."""
        real = augment(batch["image"], self.statistics.p).detach().requires_grad_()
        return {"r1": losses.r1_penalty(self.discriminator(real), real)}

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The generator."""
        metadata = {"name": self.name, "training": progress, "resolution": str(self.recipe.size)}
        save_weights(folder / f"{self.name}.safetensors", networks["generator"].state_dict(), metadata)

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor:
        """Sixteen fixed samples."""
        network = networks["generator"]
        z = self.fixed.to(next(network.parameters()).device)
        images = [network(part, truncation_psi=0.7).image for part in z.split(4)]
        return torch.cat([torch.cat(list(row), 2) for row in images], 1)

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Nothing: made people have no identity to keep."""
        return {}


def stages(
    recipe: GeneratorRecipe, data: Data, device: torch.device, fallback: Fallback | None = None
) -> Iterator[Stage]:
    """The one stage of a generator's training."""
    torch.manual_seed(recipe.loop.seed)
    train, _ = catalogue(data.root, data.layout).split(data.held_out)
    faces = Faces(train, recipe.size, recipe.loop.seed)
    task = GeneratorTask(recipe)
    notes = (*faces.catalogue.notes, *load_start(task.generator, recipe.start))
    yield Stage("", task, PositionFeed(faces, data.workers), recipe.loop, notes=notes)
