"""The mattface network taught by answered pairs, in four stages.

First encoder, latent heads and generator learn to draw people (`generator`), then the generator's blocks above the
recipe's `size` follow at full resolution (`generator-fine`). Then the generator stands still and the rest learns to
swap up to that size (`swap`); last come its own blocks above (`swap-fine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mattface import weights as registry
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import Latents
from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork, build_network, network_of
from mattface.training import losses
from mattface.training.augment import PlacedPairs, augment
from mattface.training.checkpoint import save_weights
from mattface.training.kept_pairs import store_of
from mattface.training.latents import fit_latents, sources_of
from mattface.training.pairs import Teacher, crops_of, pictures, training_portraits
from mattface.training.recipes.mattface_demo import Recipe
from mattface.training.task import Batch, Clock, Feed, Optimiser, Phase, Terms
from mattface.training.tasks import Data, Stage
from mattface.vocabulary import Swap


class Store(Protocol):
    """Answered pairs by number."""

    count: int

    def batch(self, indices: Sequence[int]) -> PlacedPairs:
        """The pairs of these numbers."""


def pair_losses(swap: Swap, pair: PlacedPairs) -> Terms:
    """Every loss term of one batch, unweighted."""
    size = swap.pixels.shape[-1]
    truth, matte, visible = (resize(x, size) for x in (pair.swap, pair.matte, pair.visible))
    trusted = visible * matte
    around = matte + 0.1
    extras = swap.extras
    terms = {
        "flow": losses.flow_loss(extras["flow"], resize(pair.flow, size), trusted),
        "swap": losses.photo_loss(swap.pixels, truth, around),
        "decoded": losses.photo_loss(extras["decoded"], truth, around),
        "side": losses.photo_loss(extras["side"].float(), truth, around),
        "matte": losses.matte_loss(extras["matte_logit"], resize(pair.matte, extras["matte_logit"].shape[-1])),
        "warped": losses.photo_loss(extras["warped"], truth, trusted),
        "smooth": losses.smoothness_loss(extras["flow"]),
        "confidence": losses.balanced_loss(extras["confidence"], visible, matte),
    }
    for level in ("coarse", "medium", "fine"):
        if (flow := extras.get(f"flow_{level}")) is not None:
            side = flow.shape[-1]
            term = losses.flow_loss(flow, resize(pair.flow, side), resize(trusted, side))
            terms["attention"] = terms.get("attention", 0) + term
    for name, logit in extras.items():
        if name.startswith("mask_logit_"):
            term = losses.matte_loss(logit, resize(pair.matte, logit.shape[-1]))
            terms["masks"] = terms.get("masks", 0) + term
    return terms


class PairTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        network: what is trained; parameters without gradient stay.
        optimiser: how.
        upto: highest resolution that is computed.
        stage: for the exported file's metadata.
    """

    averaged = ("network",)
    latents: Latents | None = None
    """Of the people the generator learned to draw; exported with the network."""

    def __init__(self, recipe: Recipe, network: MattfaceNetwork, optimiser: Optimiser, upto: int, stage: str) -> None:
        self.recipe, self.name, self.upto, self.stage = recipe, recipe.name, upto, stage
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"network": self.network}
        self.optimisers = {"network": optimiser}
        self.phases = (Phase("pair", "network", self.terms, recipe.loss),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """See `pair_losses`."""
        pair = PlacedPairs(**batch)
        told = self.recipe.config.places
        source = self.network.encode_source(pair.source, pair.source_places if told else None, self.upto)
        places = pair.places if told else None
        return pair_losses(self.network(source, pair.target, pair.mask, places, self.upto), pair)

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with its configuration, in the stage's folder; that of the last stage is the one to use."""
        training = f"stage {self.stage}, {progress}"
        latents = {} if self.latents is None else self.latents.tensors()
        metadata = {"config": self.recipe.config.to_json(), "method": "mattface", "name": self.name}
        path = folder / f"{self.name}.safetensors"
        save_weights(path, networks["network"].state_dict() | latents, metadata | {"training": training})

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: the pairs are augmented."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None: `mattface.benchmarks.quality` scores the exported file."""
        return {}


class DrawTask(PairTask):
    """Encoder, latent heads and generator draw the sources and the answers as they are; nothing is swapped."""

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """How far the drawings are off; the face counts ten times what is around it."""
        pair = PlacedPairs(**batch)
        wanted, places = torch.cat([pair.source, pair.swap]), torch.cat([pair.source_places, pair.places])
        network = self.network
        w_plus = network.invert(network.encode(wanted, places if self.recipe.config.places else None))
        drawn = network.generate(w_plus, noise="const" if self.recipe.config.noise else "none", upto=self.upto).image
        if drawn is None:
            raise UsageError("a generator that draws no picture cannot learn to.")
        size = drawn.shape[-1]
        return {"side": losses.photo_loss(drawn.float(), resize(wanted, size), resize(places[:, 2:], size) + 0.1)}


class PairFeed:
    """Augmented pairs of a store; the same position always gives the same batch.

    Args:
        store: answered pairs.
        seed: of choice and augmentation.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.seed = store, seed

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        for chosen in positions:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + chosen[0])
            index = torch.randint(self.store.count, (len(chosen),), generator=rng).tolist()
            yield dict(vars(augment(self.store.batch(index), rng)))

    def describe(self) -> dict[str, Any]:
        """Number of pairs."""
        return {"pairs": self.store.count}


class TeacherFeed:
    """Full-resolution pairs that the teacher answers when they are asked for.

    Args:
        teacher: who answers.
        seed: of the choice.
    """

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self.teacher, self.seed = teacher, seed

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        for chosen in positions:
            made = []
            for position in chosen:
                rng = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
                s, t = torch.randint(len(self.teacher.crops), (2,), generator=rng).tolist()
                made.append(vars(self.teacher.pair(s, t)))
            yield {name: torch.cat([m[name] for m in made]) for name in made[0]}

    def describe(self) -> dict[str, Any]:
        """Number of people."""
        return {"people": len(self.teacher.crops)}


def above(network: MattfaceNetwork, size: int, drawing: bool) -> None:
    """Leaves only the blocks of resolutions above `size` to train: the generator's, or those of the blend."""
    network.requires_grad_(False).eval()  # batch statistics stay: a batch of one would ruin them
    groups = [network.blend.encoder.levels, network.blend.blends, network.blend.decoder]
    chosen = [m for group in groups for r, m in group.items() if int(r) > size]
    if drawing:
        chosen = [network.generate.get_submodule(f"b{r}") for r in network.generate.resolutions if r > size]
    for module in chosen:
        module.requires_grad_(True)


def stage(recipe: Recipe, name: str, network: MattfaceNetwork, feed: Feed, latents: Latents | None = None) -> Stage:
    """One of the four stages, see the module; freezes what does not train in it; exports `latents` too."""
    drawing, fine = name.startswith("generator"), name.endswith("fine")
    size, steps = recipe.size, recipe.draw_steps if drawing else recipe.steps
    batch, rate, warmup = recipe.batch, recipe.rate, recipe.warmup * recipe.batch
    if fine:
        above(network, size, drawing)
        size, steps = recipe.config.resolution, recipe.draw_fine_steps if drawing else recipe.fine_steps
        batch, rate, warmup = 1, recipe.fine_rate, 0
    else:
        network.requires_grad_(True).train()
        network.generate.requires_grad_(drawing)
    optimiser = Optimiser("adamw", rate, decay=recipe.decay, clip=1.0, schedule="cosine", warmup=warmup)
    kind = DrawTask if drawing else PairTask
    average = recipe.average if steps > 1 / (1 - recipe.average) else 0.0  # a shorter run would keep its random start
    log, save = recipe.log_every * batch, recipe.save_every * batch
    loop = replace(recipe.loop, images=steps * batch, batch=batch, average=average, log_every=log, save_every=save)
    task = kind(recipe, network, optimiser, size, name)
    task.latents = latents
    return Stage(name, task, feed, loop)


def begun(recipe: Recipe) -> MattfaceNetwork:
    """The network as training finds it: fresh, or with the weights that the recipe starts from.

    Raises:
        WeightsError: the weights are missing, or of another network than the recipe's.
    """
    if not recipe.start:
        return build_network(recipe.config)
    tensors, metadata = registry.load_tensors(registry.checkpoint_in(recipe.start))
    network = network_of(tensors, metadata, recipe.start)
    if network.config != recipe.config:
        raise WeightsError(
            f"start must be a network of the recipe's sizes; got {recipe.start}, which has others. Leave start out."
        )
    return network


def stages(recipe: Recipe, data: Data, device: torch.device) -> Iterator[Stage]:
    """The four stages on the portraits and the shards of triplets in one folder; full resolution needs portraits."""
    store, notes = store_of(recipe, data)
    torch.manual_seed(recipe.seed)
    network = begun(recipe)
    teacher: list[Teacher] = []
    latents: Latents | None = None
    for name in ("generator", "generator-fine", "swap", "swap-fine"):
        feed: Feed = PairFeed(store, recipe.seed)
        if name.endswith("fine"):
            if not pictures(data.root):
                continue
            if not teacher:
                crops = crops_of(training_portraits(data.root), recipe.config.resolution)
                teacher.append(Teacher(crops, recipe.config.shape))
            feed = TeacherFeed(teacher[0], recipe.seed)
        made = stage(recipe, name, network, feed, latents)
        made.notes = notes
        if made.loop.steps:
            yield made
            network.load_state_dict(made.result["network"].state_dict())
            if name.startswith("generator"):
                latents = fit_latents(network, sources_of(store))
