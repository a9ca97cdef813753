"""The generator learns to draw people: it and a code for every picture are found together, without encoder or critic.

Bojanowski et al. 2018, "Optimizing the Latent Space of Generative Networks" (arXiv 1707.05776). A few hundred pictures
are drawn far sooner this way than through an encoder that has to learn at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mattface.generate.latents import Latents
from mattface.generate.synthesis import SynthesisNetwork
from mattface.layers import resize
from mattface.mesh.shape import canonical
from mattface.methods.mattface import MattfaceNetwork
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.framing import Framed, chip_loss
from mattface.training.judges import Frozen
from mattface.training.pairs import PairStore, crops_of, pack, training_portraits, unpack
from mattface.training.recipes.mattface_demo import Recipe
from mattface.training.task import Batch, Clock, Optimiser, Phase, Terms

FASTER = 10.0
"""Codes move so many times as fast as the generator."""
SPREAD = 0.3
"""Standard deviation of codes before training."""
BLUR = 0.02
"""Standard deviation of what is added to a code whenever it is drawn: nearby codes look alike."""
AROUND = 0.25
"""Weight of what is not face."""
MOST = 1024
"""Pictures of a store that are learned where there are no portraits."""


class Shown:
    """Pictures of people and their mirror images, as small numbers.

    Args:
        pixels: (N, 3, S, S) packed.
        places: (N, 3, s, s) packed.
    """

    def __init__(self, pixels: torch.Tensor, places: torch.Tensor) -> None:
        self.pixels, self.places = pixels, places
        self.count = 2 * len(pixels)

    @classmethod
    def portraits(cls, root: Path, size: int, side: int) -> Shown:
        """The training people of a folder of portraits, aligned to `size`, with places of `side`."""
        pixels, places = [], []
        for crop in crops_of(training_portraits(root), size):
            if crop.mesh is not None:
                pixels.append(pack("source", crop.pixels[0]))
                places.append(pack("places", torch.from_numpy(canonical(crop.mesh * (side / size), side))))
        return cls(torch.stack(pixels), torch.stack(places))

    @classmethod
    def sources(cls, store: PairStore) -> Shown:
        """The sources of a store's pairs, at most `MOST` of them, evenly spread."""
        chosen = torch.linspace(0, store.count - 1, min(MOST, store.count)).long()
        return cls(store.maps["source"][chosen], store.maps["source_places"][chosen])

    def batch(self, index: torch.Tensor) -> Batch:
        """Pictures and places of these numbers (B,); the second half of all are mirror images."""
        flip = (index >= len(self.pixels))[:, None, None, None]
        which = index % len(self.pixels)
        image, places = unpack("source", self.pixels[which]), unpack("places", self.places[which])
        sign = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
        image = torch.where(flip, image.flip(-1), image)
        return {"index": index, "image": image, "places": torch.where(flip, places.flip(-1) * sign, places)}


class PeopleFeed:
    """Pictures drawn at random; the same position always gives the same batch.

    Args:
        shown: the pictures.
        seed: of the choice.
    """

    def __init__(self, shown: Shown, seed: int) -> None:
        self.shown, self.seed = shown, seed

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        for chosen in positions:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + chosen[0])
            yield self.shown.batch(torch.randint(self.shown.count, (len(chosen),), generator=rng))

    def describe(self) -> dict[str, Any]:
        """Number of pictures, mirror images counted."""
        return {"pictures": self.shown.count}


class People(nn.Module):
    """A generator with the codes of the people it draws.

    Args:
        generate: the generator.
        count: number N of pictures.
    """

    def __init__(self, generate: SynthesisNetwork, count: int) -> None:
        super().__init__()
        self.generate = generate
        start = SPREAD / FASTER * torch.randn(count, 1, generate.w_dim)
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
        judges: who compares features of faces; None leaves that out.
    """

    averaged = ("people",)

    def __init__(
        self,
        recipe: Recipe,
        network: MattfaceNetwork,
        people: People,
        optimiser: Optimiser,
        upto: int,
        stage: str,
        judges: Frozen | None,
    ) -> None:
        self.recipe, self.name, self.upto, self.stage, self.judges = recipe, recipe.name, upto, stage, judges
        self.network, self.people = network, people
        self.networks: dict[str, nn.Module] = {"people": people}
        self.optimisers = {"people": optimiser}
        self.phases = (Phase("people", "people", self.terms, recipe.loss),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """How far the drawings are off."""
        codes = self.people.codes[batch["index"]]
        noise = "const" if self.recipe.config.noise else "none"
        w_plus = codes + BLUR * torch.randn_like(codes)
        drawn = self.people.generate(w_plus, noise=noise, upto=self.upto).image.float()
        image, places = batch["image"], batch["places"]
        face = resize(places[:, 2:], drawn.shape[-1])
        terms = {"drawn": losses.photo_loss(drawn, resize(image, drawn.shape[-1]), face + AROUND)}
        if self.judges is not None:
            terms["features"] = chip_loss(self.judges, drawn, Framed(image, places))
        return terms

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with this generator, and latents fitted to the codes."""
        people = networks["people"]
        drawn = {f"generate.{name}": value for name, value in people.generate.state_dict().items()}  # type: ignore[operator,union-attr]
        tensors = self.network.state_dict() | drawn | latents_of(people).tensors()
        export(self.recipe, tensors, folder, f"stage {self.stage}, {progress}")

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: `mattface sample --weights FOLDER` draws the exported file's people."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None."""
        return {}


def latents_of(people: nn.Module) -> Latents:
    """The normal distribution of the codes of `People`."""
    with torch.no_grad():
        return Latents.fit(people.codes)  # type: ignore[arg-type]


def export(recipe: Recipe, tensors: Mapping[str, torch.Tensor], folder: Path, training: str) -> None:
    """Writes a network of the recipe, latents beside it, into a stage's folder; `training` says how far it is."""
    metadata = {"config": recipe.config.to_json(), "method": "mattface", "name": recipe.name, "training": training}
    save_weights(folder / f"{recipe.name}.safetensors", dict(tensors), metadata)
