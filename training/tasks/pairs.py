"""The mattface network taught by answered pairs, in five stages.

First the generator learns to draw people (`generator`), then its blocks above the recipe's `size` follow at full
resolution (`generator-fine`). From then on it stands still. Encoder and latent heads learn its codes (`invert`; of a
network that was trained before, the heads alone). Then everything but the generator learns to swap up to that size
(`swap`); last come the blend's blocks above (`swap-fine`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mattface import weights as registry
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import PREFIX, Latents
from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork, build_network, network_of
from mattface.training import losses
from mattface.training.augment import PlacedPairs
from mattface.training.framing import Framed, likeness_loss
from mattface.training.judges import Frozen, Judges, load_judges
from mattface.training.kept_pairs import store_of
from mattface.training.pair_feeds import PairFeed, TeacherFeed
from mattface.training.pairs import PairStore, Teacher, crops_of, pictures, training_portraits
from mattface.training.people import People, PeopleFeed, PeopleTask, Shown, export, latents_of
from mattface.training.recipes.mattface_demo import Recipe
from mattface.training.task import Batch, Clock, Feed, Loop, Optimiser, Phase, Terms
from mattface.training.tasks import Data, Stage
from mattface.vocabulary import Swap

JUDGES = Judges("resnet", "own", perceptual="resnet-maps")
WITHOUT = dict.fromkeys(("identity", "perceptual"), "--set loss.identity=0 --set loss.features=0 do without it")
"""Kind of judge -> what to do without it."""


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
        judges: who compares identities; None leaves that out.
        latents: of the people the generator draws; exported with the network.
    """

    averaged = ("network",)

    def __init__(
        self,
        recipe: Recipe,
        network: MattfaceNetwork,
        optimiser: Optimiser,
        upto: int,
        stage: str,
        judges: Frozen | None = None,
        latents: Latents | None = None,
    ) -> None:
        self.recipe, self.name, self.upto, self.stage = recipe, recipe.name, upto, stage
        self.judges, self.latents = judges, latents
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
        swap = self.network(source, pair.target, pair.mask, places, self.upto)
        terms = pair_losses(swap, pair)
        if self.judges is not None:
            truths = Framed(pair.source, pair.source_places), Framed(pair.swap, pair.places)
            terms["identity"] = likeness_loss(self.judges, Framed(swap.pixels, pair.places), truths)
        return terms

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with its configuration, in the stage's folder; that of the last stage is the one to use."""
        latents = {} if self.latents is None else self.latents.tensors()
        export(self.recipe, networks["network"].state_dict() | latents, folder, f"stage {self.stage}, {progress}")

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: the pairs are augmented."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None: `mattface.benchmarks.quality` scores the exported file."""
        return {}


class InvertTask(PairTask):
    """Sources and answers are encoded and drawn as they are; nothing is swapped."""

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


def above(network: MattfaceNetwork, size: int) -> None:
    """Leaves only the blend's blocks of resolutions above `size` to train."""
    network.requires_grad_(False).eval()  # batch statistics stay: a batch of one would ruin them
    for group in (network.blend.encoder.levels, network.blend.blends, network.blend.decoder):
        for resolution, module in group.items():
            module.requires_grad_(int(resolution) > size)


def loop_of(recipe: Recipe, steps: int, batch: int) -> Loop:
    """Settings of a stage."""
    average = recipe.average if steps > 1 / (1 - recipe.average) else 0.0  # a shorter run would keep its random start
    log, save = recipe.log_every * batch, recipe.save_every * batch
    return replace(recipe.loop, images=steps * batch, batch=batch, average=average, log_every=log, save_every=save)


def stage(
    recipe: Recipe,
    name: str,
    network: MattfaceNetwork,
    feed: Feed,
    judges: Frozen | None = None,
    latents: Latents | None = None,
) -> Stage:
    """`invert`, `swap` or `swap-fine`, see the module; freezes what does not train in it."""
    size, batch, rate, warmup = recipe.size, recipe.batch, recipe.rate, recipe.warmup * recipe.batch
    steps = recipe.invert_steps if name == "invert" else recipe.steps
    if name == "swap-fine":
        above(network, size)
        size, steps = recipe.config.resolution, recipe.fine_steps
        batch, rate, warmup = 1, recipe.fine_rate, 0
    else:
        known = name == "invert" and bool(recipe.start)
        network.train(not known).requires_grad_(not known)  # what stands still keeps its batch statistics, too
        network.invert.train().requires_grad_(True)
        network.generate.requires_grad_(False)
    optimiser = Optimiser("adamw", rate, decay=recipe.decay, clip=1.0, schedule="cosine", warmup=warmup)
    kind, asked = InvertTask if name == "invert" else PairTask, judges if name == "swap" else None
    task = kind(recipe, network, optimiser, size, name, asked, latents)
    return Stage(name, task, feed, loop_of(recipe, steps, batch))


def draw_stages(
    recipe: Recipe,
    data: Data,
    store: PairStore,
    network: MattfaceNetwork,
    judges: Frozen | None,
    notes: tuple[str, ...],
) -> Generator[Stage, None, Latents | None]:
    """`generator` and `generator-fine`, see the module; returns the latents of the people, if any were learned.

    `notes` are about the data.

    Raises:
        UsageError: fine steps alone, for which there are no codes.
    """
    if recipe.draw_fine_steps and not recipe.draw_steps:
        raise UsageError(f"draw_fine_steps needs draw_steps, which find the codes; got {recipe.draw_fine_steps} and 0.")
    portraits, people = bool(pictures(data.root)), None
    for name, steps in (("generator", recipe.draw_steps), ("generator-fine", recipe.draw_fine_steps)):
        fine = name.endswith("fine")
        if not steps or (fine and not portraits):
            continue
        size = recipe.config.resolution if fine else recipe.size
        shown = Shown.portraits(data.root, size, recipe.size) if portraits else Shown.sources(store)
        people = people or People(network.generate, shown.count)
        people.requires_grad_(not fine)
        for resolution in network.generate.resolutions:
            network.generate.get_submodule(f"b{resolution}").requires_grad_((resolution > recipe.size) == fine)
        optimiser = Optimiser("adam", recipe.draw_rate, (0.9, 0.99), schedule="cosine")
        task = PeopleTask(recipe, network, people, optimiser, size, name, None if fine else judges)
        feed, batch = PeopleFeed(shown, recipe.seed), 1 if fine else recipe.batch
        made = Stage(name, task, feed, loop_of(recipe, steps, batch), notes=notes)
        yield made
        people.load_state_dict(made.result["people"].state_dict())
    return None if people is None else latents_of(people)


def begun(recipe: Recipe) -> tuple[MattfaceNetwork, Latents | None]:
    """The network as training finds it: fresh, or with weights and latents that the recipe starts from.

    Raises:
        WeightsError: the weights are missing, or of another network than the recipe's.
    """
    if not recipe.start:
        return build_network(recipe.config), None
    tensors, metadata = registry.load_tensors(registry.checkpoint_in(recipe.start))
    network = network_of(tensors, metadata, recipe.start)
    if network.config != recipe.config:
        raise WeightsError(
            f"start must be a network of the recipe's sizes; got {recipe.start}, which has others. Leave start out."
        )
    if not any(name.startswith(PREFIX) for name in tensors):
        return network, None
    return network, Latents.read(tensors, (network.generate.num_styles, network.generate.w_dim), recipe.start)


def stages(recipe: Recipe, data: Data, device: torch.device) -> Iterator[Stage]:
    """The five stages on the portraits and the shards of triplets in one folder; full resolution needs portraits."""
    store, notes = store_of(recipe, data)
    judges = load_judges(JUDGES, set(WITHOUT), device, WITHOUT) if recipe.judged else None
    torch.manual_seed(recipe.seed)
    network, latents = begun(recipe)
    drawing, swapping = (judges if recipe.loss[name] else None for name in ("features", "identity"))
    latents = (yield from draw_stages(recipe, data, store, network, drawing, notes)) or latents
    for name in ("invert", "swap", "swap-fine"):
        feed: Feed = PairFeed(store, recipe.seed)
        if name == "swap-fine":
            if not pictures(data.root):
                continue
            crops = crops_of(training_portraits(data.root), recipe.config.resolution)
            feed = TeacherFeed(Teacher(crops, recipe.config.shape), recipe.seed)
        made = stage(recipe, name, network, feed, swapping, latents)
        made.notes = notes
        if made.loop.steps:
            yield made
            network.load_state_dict(made.result["network"].state_dict())
