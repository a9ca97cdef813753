"""The mattface network trained on triplets, in five stages.

First the generator learns to draw people (`generator`), then its blocks above the recipe's `size` follow at full
resolution (`generator-fine`). From then on it stands still. Encoder and latent heads learn its codes (`invert`; of a
network that was trained before, the heads alone). Then everything but the generator learns to swap up to that size
(`swap`); last come the blend's blocks above (`swap-fine`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from mattface import weights as registry
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import PREFIX, Latents
from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork, build_network
from mattface.training import losses
from mattface.training.config import Data, LossNetworks, Optimiser, TripletRecipe
from mattface.training.data.feed import PositionFeed
from mattface.training.data.mesh_triplets import MeshSamples, MeshSwapper
from mattface.training.data.people_pictures import PeoplePictures
from mattface.training.data.portraits import crop_portraits, pictures_in, training_portraits
from mattface.training.data.triplet_batch import Triplets
from mattface.training.data.triplet_cache import load_triplets
from mattface.training.data.triplets import MemoryTriplets, TripletSamples
from mattface.training.losses.chips import LocatedFaces, likeness_loss
from mattface.training.losses.networks.loading import LoadedNetworks, load_loss_networks
from mattface.training.models.start import load_start
from mattface.training.task import Batch, Clock, Fallback, Feed, Phase, Stage, Terms
from mattface.training.tasks.people import People, PeopleTask, export_network, latents_of
from mattface.vocabulary import Swap

LOSS_NETWORKS = LossNetworks("resnet", "own", perceptual="resnet-maps")
WITHOUT = dict.fromkeys(("identity", "perceptual"), "--set loss.identity=0 --set loss.features=0 do without it")
"""Kind of loss network -> what to do without it."""


def triplet_losses(swap: Swap, triplets: Triplets) -> Terms:
    """Every loss term of one batch, unweighted."""
    size = swap.pixels.shape[-1]
    truth, matte, visible = (resize(x, size) for x in (triplets.swap, triplets.matte, triplets.visible))
    trusted = visible * matte
    around = matte + 0.1
    extras = swap.extras
    terms = {
        "flow": losses.flow_loss(extras["flow"], resize(triplets.flow, size), trusted),
        "swap": losses.photo_loss(swap.pixels, truth, around),
        "decoded": losses.photo_loss(extras["decoded"], truth, around),
        "side": losses.photo_loss(extras["side"].float(), truth, around),
        "matte": losses.matte_loss(extras["matte_logit"], resize(triplets.matte, extras["matte_logit"].shape[-1])),
        "warped": losses.photo_loss(extras["warped"], truth, trusted),
        "smooth": losses.smoothness_loss(extras["flow"]),
        "confidence": losses.balanced_loss(extras["confidence"], visible, matte),
    }
    for level in ("coarse", "medium", "fine"):
        if (flow := extras.get(f"flow_{level}")) is not None:
            side = flow.shape[-1]
            term = losses.flow_loss(flow, resize(triplets.flow, side), resize(trusted, side))
            terms["attention"] = terms.get("attention", 0) + term
    for name, logit in extras.items():
        if name.startswith("mask_logit_"):
            term = losses.matte_loss(logit, resize(triplets.matte, logit.shape[-1]))
            terms["masks"] = terms.get("masks", 0) + term
    return terms


class TripletTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        network: what is trained; parameters without gradient stay.
        optimiser: how.
        upto: highest resolution that is computed.
        stage: for the exported file's metadata.
        loss_networks: that compare identities; None leaves that out.
        latents: of the people the generator draws; exported with the network.
    """

    averaged = ("network",)

    def __init__(
        self,
        recipe: TripletRecipe,
        network: MattfaceNetwork,
        optimiser: Optimiser,
        upto: int,
        stage: str,
        loss_networks: LoadedNetworks | None = None,
        latents: Latents | None = None,
    ) -> None:
        self.recipe, self.name, self.upto, self.stage = recipe, recipe.name, upto, stage
        self.loss_networks, self.latents = loss_networks, latents
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"network": self.network}
        self.optimisers = {"network": optimiser}
        self.phases = (Phase("triplets", "network", self.terms, recipe.loss),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """See `triplet_losses`."""
        triplets = Triplets(**batch)
        placed = self.recipe.config.coordinates
        source = self.network.encode_source(triplets.source, triplets.source_canonical if placed else None, self.upto)
        canonical = triplets.canonical if placed else None
        swap = self.network(source, triplets.target, triplets.mask, canonical, self.upto)
        terms = triplet_losses(swap, triplets)
        if self.loss_networks is not None:
            where = triplets.canonical_maps
            source_face = LocatedFaces(triplets.source, where[0])
            truth, found = (LocatedFaces(pixels, where[1]) for pixels in (triplets.swap, swap.pixels))
            terms["identity"] = likeness_loss(self.loss_networks, found, (source_face, truth))
        return terms

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with its configuration, in the stage's folder; that of the last stage is the one to use."""
        latents = {} if self.latents is None else self.latents.tensors()
        tensors = networks["network"].state_dict() | latents
        export_network(self.recipe, tensors, folder, f"stage {self.stage}, {progress}")

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: the triplets are augmented."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None: `mattface.benchmarks.quality` scores the exported file."""
        return {}


class InvertTask(TripletTask):
    """Sources and swaps are encoded and drawn as they are; nothing is swapped."""

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """How far the drawings are off; the face counts ten times what is around it."""
        triplets = Triplets(**batch)
        wanted = torch.cat([triplets.source, triplets.swap])
        canonical = torch.cat(triplets.canonical_maps)
        network = self.network
        w_plus = network.invert(network.encode(wanted, canonical if self.recipe.config.coordinates else None))
        drawn = network.generate(w_plus, noise="const" if self.recipe.config.noise else "none", upto=self.upto).image
        if drawn is None:
            raise UsageError("expected a generator that draws a picture; this one returned none.")
        size = drawn.shape[-1]
        return {"side": losses.photo_loss(drawn.float(), resize(wanted, size), resize(canonical[:, 2:], size) + 0.1)}


def train_blend_above(network: MattfaceNetwork, size: int) -> None:
    """Leaves only the blend's blocks of resolutions above `size` to train."""
    network.requires_grad_(False).eval()  # batch statistics stay: a batch of one would ruin them
    for group in (network.blend.encoder.levels, network.blend.blends, network.blend.decoder):
        for resolution, module in group.items():
            module.requires_grad_(int(resolution) > size)


def stage(
    recipe: TripletRecipe,
    name: str,
    network: MattfaceNetwork,
    feed: Feed,
    loss_networks: LoadedNetworks | None = None,
    latents: Latents | None = None,
) -> Stage:
    """`invert`, `swap` or `swap-fine`, see the module; freezes what does not train in it."""
    size = recipe.size
    if name == "swap-fine":
        train_blend_above(network, size)
        size = recipe.config.resolution
    else:
        known = name == "invert" and recipe.start is not None
        network.train(not known).requires_grad_(not known)  # what stands still keeps its batch statistics, too
        network.invert.train().requires_grad_(True)
        network.generate.requires_grad_(False)
    kind, networks = InvertTask if name == "invert" else TripletTask, loss_networks if name == "swap" else None
    task = kind(recipe, network, recipe.optimisers[name], size, name, networks, latents)
    return Stage(name, task, feed, recipe.stage_loop(name))


def draw_stages(
    recipe: TripletRecipe,
    data: Data,
    triplets: MemoryTriplets,
    network: MattfaceNetwork,
    loss_networks: LoadedNetworks | None,
    notes: tuple[str, ...],
) -> Generator[Stage, None, Latents | None]:
    """`generator` and `generator-fine`, see the module; returns the latents of the people, if any were learned.

    `notes` are about the data.

    Raises:
        UsageError: fine steps alone, for which there are no codes.
    """
    steps = {name: recipe.stages[name].steps for name in ("generator", "generator-fine")}
    if steps["generator-fine"] and not steps["generator"]:
        raise UsageError(
            "stage generator-fine needs stage generator, which finds the codes; "
            f"got {steps['generator-fine']} and 0 steps."
        )
    portraits, people = bool(pictures_in(data.root)), None
    for name in steps:
        fine = name.endswith("fine")
        if not steps[name] or (fine and not portraits):
            continue
        size, seed = recipe.config.resolution if fine else recipe.size, recipe.loop.seed
        shown = (
            PeoplePictures.of_portraits(data.root, size, recipe.size, seed)
            if portraits
            else PeoplePictures.of_sources(triplets, seed)
        )
        people = people or People(network.generate, shown.count)
        people.requires_grad_(not fine)
        for resolution in network.generate.resolutions:
            network.generate.get_submodule(f"b{resolution}").requires_grad_((resolution > recipe.size) == fine)
        task = PeopleTask(
            recipe, network, people, recipe.optimisers[name], size, name, None if fine else loss_networks
        )
        made = Stage(name, task, PositionFeed(shown), recipe.stage_loop(name), notes=notes)
        yield made
        people.load_state_dict(made.result["people"].state_dict())
    return None if people is None else latents_of(people)


def start_network(recipe: TripletRecipe) -> tuple[MattfaceNetwork, Latents | None, tuple[str, ...]]:
    """The network as training finds it: fresh, or with weights and latents that the recipe starts from; and notes.

    Raises:
        WeightsError: the weights are missing, or of another network than the recipe's.
    """
    network = build_network(recipe.config)
    if recipe.start is None:
        return network, None, ()
    try:
        notes = load_start(network, recipe.start)
    except WeightsError as error:
        raise WeightsError(f"start must be a network of the recipe's sizes: {error}") from error
    tensors, _ = registry.load_tensors(registry.checkpoint_in(recipe.start))
    if not any(name.startswith(PREFIX) for name in tensors):
        return network, None, notes
    sizes = network.generate.num_styles, network.generate.w_dim
    return network, Latents.read(tensors, sizes, recipe.start), notes


def stages(
    recipe: TripletRecipe, data: Data, device: torch.device, fallback: Fallback | None = None
) -> Iterator[Stage]:
    """The five stages on the portraits and the shards of triplets in one folder; full resolution needs portraits."""
    triplets, notes = load_triplets(recipe, data)
    loss_networks = (
        load_loss_networks(LOSS_NETWORKS, set(WITHOUT), device, fallback, WITHOUT) if recipe.uses_identity else None
    )
    torch.manual_seed(recipe.loop.seed)
    network, latents, started = start_network(recipe)
    notes += started
    drawing, swapping = (loss_networks if recipe.loss[name] else None for name in ("features", "identity"))
    latents = (yield from draw_stages(recipe, data, triplets, network, drawing, notes)) or latents
    for name in ("invert", "swap", "swap-fine"):
        feed = PositionFeed(TripletSamples(triplets, recipe.loop.seed), data.workers)
        if not recipe.stages[name].steps:
            continue
        if name == "swap-fine":
            if not pictures_in(data.root):
                continue
            crops = crop_portraits(training_portraits(data.root), recipe.config.resolution)
            feed = PositionFeed(MeshSamples(MeshSwapper(crops, recipe.config.shape), recipe.loop.seed))
        made = stage(recipe, name, network, feed, swapping, latents)
        made.notes = notes
        yield made
        network.load_state_dict(made.result["network"].state_dict())
