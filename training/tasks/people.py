"""The generator learns to draw people: it and a code for every picture are found together.

Bojanowski et al. 2018, "Optimizing the Latent Space of Generative Networks" (arXiv 1707.05776). A few hundred pictures
are drawn far sooner this way, without a discriminator, than through an encoder that has to learn at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from mattface.generate.latents import Latents
from mattface.generate.synthesis import SynthesisNetwork
from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.config import Optimiser, TripletRecipe
from mattface.training.losses.chips import LocatedFaces, chip_loss
from mattface.training.losses.networks.loading import LoadedNetworks
from mattface.training.task import Batch, Clock, Phase, Terms

FASTER = 10.0
"""Codes move so many times as fast as the generator."""
STD = 0.3
"""Standard deviation of codes before training."""
BLUR = 0.02
"""Standard deviation of what is added to a code whenever it is drawn: nearby codes look alike."""
AROUND = 0.25
"""Weight of what is not face."""


class People(nn.Module):
    """A generator with the codes of the people it draws.

    Args:
        generate: the generator.
        count: number N of pictures.
    """

    def __init__(self, generate: SynthesisNetwork, count: int) -> None:
        super().__init__()
        self.generate = generate
        start = STD / FASTER * torch.randn(count, 1, generate.w_dim)
        self.slow = nn.Parameter(start.repeat(1, generate.num_styles, 1))

    @property
    def codes(self) -> torch.Tensor:
        """(N, L, D) W+."""
        return self.slow * FASTER


class PeopleTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        network: whose generator learns.
        people: that generator with codes.
        optimiser: how.
        upto: highest resolution that is computed.
        stage: for the exported file's metadata.
        loss_networks: that compare features of faces; None leaves that out.
    """

    averaged = ("people",)

    def __init__(
        self,
        recipe: TripletRecipe,
        network: MattfaceNetwork,
        people: People,
        optimiser: Optimiser,
        upto: int,
        stage: str,
        loss_networks: LoadedNetworks | None,
    ) -> None:
        self.recipe, self.name, self.upto, self.stage = recipe, recipe.name, upto, stage
        self.network, self.people, self.loss_networks = network, people, loss_networks
        self.networks: dict[str, nn.Module] = {"people": people}
        self.optimisers = {"people": optimiser}
        self.phases = (Phase("people", "people", self.terms, recipe.loss),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """How far the drawings are off."""
        codes = self.people.codes[batch["index"]]
        noise = "const" if self.recipe.config.noise else "none"
        w_plus = codes + BLUR * torch.randn_like(codes)
        drawn = self.people.generate(w_plus, noise=noise, upto=self.upto).image.float()
        image, canonical = batch["image"], batch["canonical"]
        face = resize(canonical[:, 2:], drawn.shape[-1])
        terms = {"drawn": losses.photo_loss(drawn, resize(image, drawn.shape[-1]), face + AROUND)}
        if self.loss_networks is not None:
            terms["features"] = chip_loss(self.loss_networks, drawn, LocatedFaces(image, canonical))
        return terms

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with this generator, and latents fitted to the codes."""
        people = networks["people"]
        drawn = {f"generate.{name}": value for name, value in people.generate.state_dict().items()}  # type: ignore[operator,union-attr]
        tensors = self.network.state_dict() | drawn | latents_of(people).tensors()
        export_network(self.recipe, tensors, folder, f"stage {self.stage}, {progress}")

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: `mattface sample --weights FOLDER` draws the exported file's people."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None."""
        return {}


def latents_of(people: nn.Module) -> Latents:
    """The normal distribution of the codes of `People`."""
    with torch.no_grad():
        return Latents.fit(people.codes)  # type: ignore[arg-type]


def export_network(recipe: TripletRecipe, tensors: Mapping[str, torch.Tensor], folder: Path, training: str) -> None:
    """Writes a network of the recipe, latents beside it, into a stage's folder; `training` says how far it is."""
    metadata = {"config": recipe.config.to_json(), "method": "mattface", "name": recipe.name, "training": training}
    save_weights(folder / f"{recipe.name}.safetensors", dict(tensors), metadata)
