"""Swapping with the papers' losses: a swap network against a discriminator, with loss networks that do not train."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from mattface.errors import InputError, UsageError
from mattface.measure.held_out import HeldOut
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.config import GROUND_TRUTH_LOSSES, Data, DiscriminatorConfig, Loop, Optimiser, SwapRecipe
from mattface.training.data.catalogue import Catalogue, catalogue
from mattface.training.data.face_batch import FaceBatch, concatenate_faces, take_face
from mattface.training.data.feed import FacePairs, PositionFeed, face_sample
from mattface.training.data.mesh_triplets import write_mesh_triplets
from mattface.training.data.triplets import ShardTriplets, SwapTriplets
from mattface.training.losses.network_losses import NetworkLosses, networks_needed
from mattface.training.losses.networks.loading import LoadedNetworks, load_loss_networks
from mattface.training.models.discriminators import AccumulatedDiscriminator, build_discriminator
from mattface.training.models.start import load_start
from mattface.training.models.swapper import (
    DecoderMaps,
    SwapOutput,
    build_swapper,
    conditioning_maps,
    network_config,
)
from mattface.training.task import Batch, Clock, Fallback, Phase, Stage, Terms


class SwapTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        network: the swap network.
        loss_networks: networks that the losses use.
        fixed: a batch of the same samples for every grid.
        held_out: scores people who do not train; None scores nobody.
    """

    averaged = ("swapper",)

    def __init__(
        self,
        recipe: SwapRecipe,
        network: nn.Module,
        loss_networks: LoadedNetworks,
        fixed: Batch,
        held_out: HeldOut | None = None,
    ) -> None:
        self.recipe, self.loss_networks, self.fixed, self.held_out = recipe, loss_networks, fixed, held_out
        self.network_losses = NetworkLosses(recipe, loss_networks)
        self.name, self.weights = recipe.name, recipe.weights()
        for part in recipe.frozen:
            network.get_submodule(part).requires_grad_(False).eval()
        self.networks: dict[str, nn.Module] = {"swapper": network}
        self.config = network_config(recipe)
        self.maps = DecoderMaps(network) if "feature" in self.weights else None
        self.discriminator = recipe.discriminator or DiscriminatorConfig()
        self.factor = 2.0 if recipe.both_ways else 1.0
        weights = {n: self.factor * w for n, w in self.weights.items()}
        self.phases: tuple[Phase, ...] = (Phase("swap", "swapper", self.terms, weights),)
        if "adversarial" in self.weights:
            self.phases += self._discriminator_phases(recipe.loop)
        self.optimisers: dict[str, Optimiser] = {n: recipe.optimisers[n] for n in self.networks}

    def _discriminator_phases(self, loop: Loop) -> tuple[Phase, ...]:
        """Builds the discriminator; its phases, on the whole batch where it compares samples with each other."""
        own = self.discriminator
        size = own.patch if own.kind == "afsa" else self.recipe.size
        faces = loop.batch * int(self.factor)
        network = self.networks["discriminator"] = build_discriminator(own.kind, size, own.width, faces)
        gathered = isinstance(network, AccumulatedDiscriminator)
        adversarial, r1 = {"adversarial": self.factor}, {"r1": own.gamma / 2 * own.r1_every}
        phases = (
            Phase("discriminator", "discriminator", self.discriminator_terms, adversarial, 1, own.begins, gathered),
            Phase("r1", "discriminator", self.r1_terms, r1, own.r1_every, own.begins, gathered),
        )
        return phases if own.gamma else phases[:1]

    def faces(self, batch: Batch) -> tuple[FaceBatch, FaceBatch]:
        """(sources, targets), both ways where the recipe says so."""
        source, target = take_face(batch, "source"), take_face(batch, "target")
        if not self.recipe.both_ways:
            return source, target
        return concatenate_faces(source, target), concatenate_faces(target, source)

    def run(self, network: nn.Module, source: FaceBatch, target: FaceBatch) -> SwapOutput:
        """The result with everything the network returns beside it."""
        if self.recipe.source == "picture":
            encoded = network.encode_source(source["image"])  # type: ignore[operator]
            swap = network(encoded, target["image"], target["mask"])
            return SwapOutput(swap.pixels.float(), swap.pixels.float(), flow=swap.extras.get("flow"))
        with torch.no_grad():
            code = self.network_losses.embed(source["image"], source)
        maps = (target["maps"],) if self.recipe.conditioning != "none" else ()
        found = network(target["image"], code, *maps).float()
        if found.shape[1] == 3:
            return SwapOutput(found, found)
        output = SwapOutput(found[:, :3], found[:, :3], (found[:, 3:] + 1) / 2)
        return replace(output, picture=output.composite(target["image"], output.matte))

    def swap(self, network: nn.Module, source: FaceBatch, target: FaceBatch) -> torch.Tensor:
        """(B, 3, S, S) result, float32."""
        return self.run(network, source, target).picture

    def terms(self, batch: Batch, clock: Clock) -> Terms:
        """Every loss of the swap network that has a weight."""
        source, target = self.faces(batch)
        network, wanted = self.networks["swapper"], self.weights
        output, maps = self._run_with_maps(network, source, target)
        found = output.composite(target["image"], batch.get("truth_matte"))
        batch["swap"] = found.detach()  # for the discriminator's phase
        terms = self._ground_truth_terms(output, take_face(batch, "truth"))
        if "same" in wanted:
            same = torch.cat([batch["same"]] * int(self.factor))
            terms["same"] = losses.same_identity_loss(found, target["image"], same)
        if "masked" in wanted:
            terms["masked"] = losses.masked_loss(found, target["image"], target["mask"])
        if "cycle" in wanted:
            again = target | {"image": found}  # the result has the target's pose, so its landmarks too
            terms["cycle"] = losses.cycle_loss(self.swap(network, target, again), target["image"])
        if wanted.keys() & {"self", "feature"}:
            terms |= self._self_terms(network, target, maps)
        if "weights" in wanted:
            terms["weights"] = losses.weight_penalty(p for p in network.parameters() if p.requires_grad)
        terms |= self.network_losses.terms(found, source, target)
        if "adversarial" in wanted and clock.images >= self.discriminator.begins:
            scores = self._scores(found, target)
            terms["adversarial"] = losses.afsa_generator_loss(self.discriminator.form, scores)
        return terms

    def _run_with_maps(
        self, network: nn.Module, source: FaceBatch, target: FaceBatch
    ) -> tuple[SwapOutput, list[torch.Tensor]]:
        """The result, and the decoder's maps where a loss wants them."""
        if self.maps is None:
            return self.run(network, source, target), []
        with self.maps as maps:
            return self.run(network, source, target), maps

    def _self_terms(self, network: nn.Module, target: FaceBatch, maps: list[torch.Tensor]) -> Terms:
        """Losses against the target swapped with itself."""
        own, own_maps = self._run_with_maps(network, target, target)
        terms: Terms = {}
        if "self" in self.weights:
            terms["self"] = losses.self_loss(own.picture, target["image"], self.recipe.power)
        if "feature" in self.weights:
            terms["feature"] = losses.feature_loss(maps, own_maps, target["mask"])
        return terms

    def _ground_truth_terms(self, output: SwapOutput, truth: FaceBatch) -> Terms:
        """Losses against the ground truth.

        Raises:
            UsageError: the network gives nothing that such a loss could compare.
        """
        wanted, terms = self.weights, {}
        for name, given in (("flow", output.flow), ("matte", output.matte)):
            if name in wanted and given is None:
                raise UsageError(
                    f"loss {name} compares a {name} of the network; {self.recipe.method} gives none. "
                    f"Leave the loss out: --set loss.{name}=0."
                )
        if "supervised" in wanted:
            terms["supervised"] = losses.supervised_loss(output.drawn, truth["image"], truth["matte"])
        if "flow" in wanted and output.flow is not None:
            trusted = truth["visible"] * truth["matte"]
            terms["flow"] = losses.flow_loss(output.flow.float(), truth["flow"], trusted)
        if "matte" in wanted and output.matte is not None:
            terms["matte"] = losses.cover_loss(output.matte, truth["matte"])
        return terms

    def _scores(self, pictures: torch.Tensor, target: FaceBatch) -> list[torch.Tensor]:
        """Scores of whole pictures (one entry) or of AFSA's patches (one per part of the face)."""
        network = self.networks["discriminator"]
        if self.discriminator.kind != "afsa":
            return [network(pictures)]
        patches = losses.landmark_patches(pictures, target["landmarks"], self.discriminator.patch)
        return list(network(torch.cat(patches)).chunk(len(patches)))

    def discriminator_terms(self, batch: Batch, _: Clock) -> Terms:
        """The discriminator's loss on the targets and on what the swap phase left in the batch."""
        target, network = self.faces(batch)[1], self.networks["discriminator"]
        real = self._scores(target["image"], target)
        if isinstance(network, AccumulatedDiscriminator):
            features = network.features(batch["swap"])
            fake = [network.score(features)]
            network.remember(features)
        else:
            fake = self._scores(batch["swap"], target)
        return {"adversarial": losses.afsa_discriminator_loss(self.discriminator.form, real, fake)}

    def r1_terms(self, batch: Batch, _: Clock) -> Terms:
        """R1 at the targets (Mescheder et al. 2018)."""
        target = self.faces(batch)[1]
        real = target["image"].detach().clone().requires_grad_()
        scores = torch.cat([s.flatten() for s in self._scores(real, target)])
        return {"r1": losses.r1_penalty(scores, real)}

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The swap network as the method of its name reads it."""
        metadata = {"method": self.recipe.method, "config": json.dumps(asdict(self.config))}
        metadata |= {"name": self.name, "training": progress}
        save_weights(folder / f"{self.name}.safetensors", networks["swapper"].state_dict(), metadata)

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor:
        """Rows of source, target, result."""
        network = networks["swapper"]
        batch = move_face(self.fixed, network)
        source, target = take_face(batch, "source"), take_face(batch, "target")
        found = self.swap(network, source, target)
        columns = [torch.cat(list(x), 1) for x in (source["image"], target["image"], found)]
        return torch.cat(columns, 2)

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Held-out people, see `mattface.measure.held_out`."""
        if self.held_out is None:
            return {}
        network = networks["swapper"]
        return self.held_out(lambda *faces: self.swap(network, *(move_face(face, network) for face in faces)))


def move_face(face: FaceBatch, network: nn.Module) -> FaceBatch:
    """Tensors of a batch where a network is; the rest as it is."""
    device = next(network.parameters()).device
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in face.items()}


def stages(recipe: SwapRecipe, data: Data, device: torch.device, fallback: Fallback | None = None) -> Iterator[Stage]:
    """The one stage of a swap training.

    Raises:
        WeightsError: a network that the recipe names is not here.
        InputError: the data lacks what the recipe needs.
    """
    loss_networks = load_loss_networks(recipe.loss_networks, networks_needed(recipe), device, fallback)
    torch.manual_seed(recipe.loop.seed)
    network = build_swapper(recipe)
    notes = load_start(network, recipe.start)
    if wanted := sorted(recipe.weights().keys() & GROUND_TRUTH_LOSSES):
        stage = ground_truth_stage(recipe, network, loss_networks, data, wanted)
        stage.notes += notes
        yield stage
        return
    train, held = catalogue(data.root, data.layout).split(data.held_out)
    draw = conditioning_maps(recipe)
    meshes = recipe.loss_networks.framing == "own" or draw is not None
    meshes |= recipe.discriminator is not None and recipe.discriminator.kind == "afsa"
    pairs = FacePairs(train, recipe.size, recipe.same, recipe.loop.seed, meshes, True, draw)
    check_captions(recipe, pairs.catalogue)
    held_out = None
    if data.scoring is not None:
        faces = {r.name: face_sample(r, recipe.size, True, draw=draw) for r in held.records if r.mesh is not None}
        held_out = HeldOut(faces, data.scoring, recipe.loss_networks.identity, recipe.loop.seed)
    task = SwapTask(recipe, network, loss_networks, pairs.batch(range(4)), held_out)
    yield Stage("", task, PositionFeed(pairs, data.workers), recipe.loop, notes=(*pairs.catalogue.notes, *notes))


def ground_truth_stage(
    recipe: SwapRecipe, network: nn.Module, loss_networks: LoadedNetworks, data: Data, wanted: list[str]
) -> Stage:
    """A training on triplets.

    Raises:
        UsageError: a network or a loss that needs what triplets lack.
        InputError: there are none.
    """
    if recipe.both_ways or recipe.conditioning != "none" or "clip_text" in recipe.weights():
        raise UsageError(
            f"losses {', '.join(wanted)} train on triplets, which go one way and have neither captions nor depth "
            f"maps; recipe {recipe.name} asks for one of these. Leave those losses out, or set both_ways=false."
        )
    folders = [data.root]
    if recipe.mesh_swaps:
        folders.append(data.out / "mesh-triplets")
        seed = recipe.loop.seed
        write_mesh_triplets(data.root, folders[-1], recipe.mesh_swaps, recipe.size, recipe.same, seed)
    try:
        triplets = ShardTriplets(folders, recipe.size)
    except InputError as error:
        raise InputError(f"losses {', '.join(wanted)} need ground truth: {error}") from error
    samples = SwapTriplets(triplets, recipe.loop.seed)
    task = SwapTask(recipe, network, loss_networks, samples.batch(range(4)))
    return Stage("", task, PositionFeed(samples, data.workers), recipe.loop, notes=triplets.notes)


def check_captions(recipe: SwapRecipe, data: Catalogue) -> None:
    """Rejects a text loss without any caption.

    Raises:
        UsageError: no picture has one.
    """
    if "clip_text" in recipe.weights() and all(r.caption is None for r in data.records):
        raise UsageError(
            f"loss clip_text needs captions; no picture of {data.root} has one. "
            "Make them: mattface data prepare --caption-url URL, or set loss.clip_text=0."
        )
