"""Joint pre-training of a small encoder and generator: what is encoded comes out again, and random styles are faces.

The encoder's features, its latent heads and the generator are those of `mattface`; its checkpoint starts from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.generate.mapping import MappingNetwork
from mattface.layers import resize
from mattface.methods.mattface import Config, build_network
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.config import Data, JointRecipe
from mattface.training.data.catalogue import catalogue
from mattface.training.data.feed import Faces, PositionFeed
from mattface.training.losses.networks.loading import LoadedNetworks, load_loss_networks
from mattface.training.models.discriminators import build_global_discriminator
from mattface.training.models.start import load_start
from mattface.training.task import Batch, Clock, Fallback, Phase, Stage, Terms


class EncoderGenerator(nn.Module):
    """Encoder, latent heads, generator, and a mapping from random samples to styles.

    Args:
        config: sizes.
        layers: of the mapping.
    """

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        whole = build_network(config)
        self.size, self.noise = config.encoder_size, config.noise
        self.encoder, self.invert, self.generate = whole.encoder, whole.invert, whole.generate
        self.mapping = MappingNetwork(config.style, config.style, self.generate.num_styles, layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) to its reconstruction."""
        return self._decode(self.invert(self.encoder(resize(image, self.size))))

    def sample(self, z: torch.Tensor) -> torch.Tensor:
        """(B, D) normal samples to pictures."""
        return self._decode(self.mapping(z))

    def _decode(self, w_plus: torch.Tensor) -> torch.Tensor:
        return self.generate(w_plus, noise="const" if self.noise else "none").image


class JointTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        loss_networks: networks that the losses use.
        fixed: (N, 3, S, S) pictures of the grid.
    """

    averaged = ("pair",)

    def __init__(self, recipe: JointRecipe, loss_networks: LoadedNetworks, fixed: torch.Tensor) -> None:
        unknown = sorted(set(recipe.loss) - {"photo", "perceptual", "identity", "adversarial", "sampled"})
        if unknown:
            raise UsageError(f"losses are photo, perceptual, identity, adversarial, sampled; got {', '.join(unknown)}.")
        self.recipe, self.name, self.loss_networks, self.fixed = recipe, recipe.name, loss_networks, fixed
        self.pair = EncoderGenerator(recipe.config, recipe.layers)
        self.pair.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = build_global_discriminator(recipe.config.resolution, recipe.width, recipe.loop.batch)
        self.networks: dict[str, nn.Module] = {"pair": self.pair, "discriminator": self.discriminator}
        self.optimisers = {n: recipe.optimisers[n] for n in self.networks}
        self.weights = {n: w for n, w in recipe.loss.items() if w}
        r1 = recipe.gamma / 2 * recipe.r1_every
        self.phases = (
            Phase("pair", "pair", self.terms, self.weights),
            Phase("discriminator", "discriminator", self.discriminator_terms, {"adversarial": 1.0}, gathered=True),
            Phase("r1", "discriminator", self.r1_terms, {"r1": r1}, recipe.r1_every, gathered=True),
        )

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """Reconstruction and realness."""
        image, wanted = batch["image"], self.weights
        back = self.pair(image)
        made = self.pair.sample(torch.randn(len(image), self.recipe.config.style, device=image.device))
        batch["back"], batch["made"] = back.detach(), made.detach()
        terms: Terms = {}
        if "photo" in wanted:
            terms["photo"] = losses.photo_loss(back, image, torch.ones_like(image[:, :1]))
        if "perceptual" in wanted and self.loss_networks.features is not None:
            terms["perceptual"] = losses.perceptual_loss(self.loss_networks.features, back, image)
        if "identity" in wanted:
            with torch.no_grad():
                truth = self.loss_networks.embed(image, None, None)
            terms["identity"] = losses.identity_loss(self.loss_networks.embed(back, None, None), truth)
        for name, picture in (("adversarial", back), ("sampled", made)):
            if name in wanted:
                terms[name] = losses.generator_loss("log", self.discriminator(picture))
        return terms

    def discriminator_terms(self, batch: Batch, _: Clock) -> Terms:
        """The discriminator tells pictures from reconstructions and samples."""
        real, made = self.discriminator(batch["image"]), []
        for name in ("back", "made"):
            features = self.discriminator.features(batch[name])
            made.append(losses.discriminator_loss("log", real, self.discriminator.score(features)))
        self.discriminator.remember(features)
        return {"adversarial": torch.stack(made).mean()}

    def r1_terms(self, batch: Batch, _: Clock) -> Terms:
        """R1 at the real pictures."""
        real = batch["image"].detach().clone().requires_grad_()
        return {"r1": losses.r1_penalty(self.discriminator(real), real)}

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """Encoder, heads, generator and mapping with their configuration."""
        metadata = {"config": self.recipe.config.to_json(), "name": self.name, "training": progress}
        save_weights(folder / f"{self.name}.safetensors", networks["pair"].state_dict(), metadata)

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor:
        """Rows of picture, reconstruction, sample."""
        network = networks["pair"]
        image = self.fixed.to(next(network.parameters()).device)
        draw = torch.Generator().manual_seed(self.recipe.loop.seed)
        z = torch.randn(len(image), self.recipe.config.style, generator=draw).to(image)
        columns = (image, network(image), network.sample(z))  # type: ignore[operator]
        return torch.cat([torch.cat(list(x.float()), 1) for x in columns], 2)

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Mean absolute error of the grid's pictures, in grey levels."""
        network = networks["pair"]
        image = self.fixed.to(next(network.parameters()).device)
        return {"grey_levels": float((network(image) - image).abs().mean() * 127.5)}


def stages(recipe: JointRecipe, data: Data, device: torch.device, fallback: Fallback | None = None) -> Iterator[Stage]:
    """The one stage of a joint pre-training. Its grid and score are of held-out pictures where there are any."""
    needed = {n for n in ("perceptual", "identity") if recipe.loss.get(n)}
    loss_networks = load_loss_networks(recipe.loss_networks, needed, device, fallback)
    torch.manual_seed(recipe.loop.seed)
    train, held = catalogue(data.root, data.layout).split(data.held_out)
    size, seed = recipe.config.resolution, recipe.loop.seed
    faces = Faces(train, size, seed)
    shown = Faces(held, size, seed) if held.records else faces
    task = JointTask(recipe, loss_networks, shown.batch(range(4))["image"])
    notes = (*faces.catalogue.notes, *load_start(task.pair, recipe.start))
    yield Stage("", task, PositionFeed(faces, data.workers), recipe.loop, notes=notes)
