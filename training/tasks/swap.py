"""Swapping with the papers' losses: a swap network against a critic, judged by networks that do not train."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import default_collate

from mattface.errors import InputError, UsageError
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.critics import build_critic
from mattface.training.data.answered import Answered, write_mesh_swaps
from mattface.training.data.catalogue import Catalogue, catalogue
from mattface.training.data.feed import FacePairs, LoaderFeed, face_sample
from mattface.training.judged import JudgedLosses, needs
from mattface.training.judges import Frozen, load_judges
from mattface.training.scoring import HeldOut
from mattface.training.swapping import (
    ANSWERED,
    Critic,
    DecoderMaps,
    Made,
    Side,
    SwapRecipe,
    build_swapper,
    draw_of,
    joined,
    module_of,
    network_config,
    side,
)
from mattface.training.task import Batch, Clock, Optimiser, Phase, Terms
from mattface.training.tasks import Data, Stage


class SwapTask:
    """See `mattface.training.task.Task`.

    Args:
        recipe: configuration.
        network: swap network, as `Swapper` calls it.
        judges: what the losses ask.
        fixed: a batch of the same samples for every grid.
        held_out: scores people who do not train; None scores nobody.
    """

    averaged = ("swapper",)

    def __init__(
        self, recipe: SwapRecipe, network: nn.Module, judges: Frozen, fixed: Batch, held_out: HeldOut | None = None
    ) -> None:
        self.recipe, self.judges, self.fixed, self.held_out = recipe, judges, fixed, held_out
        self.judged = JudgedLosses(recipe, judges)
        self.name, self.weights = recipe.name, recipe.weights()
        for part in recipe.frozen:
            network.get_submodule(part).requires_grad_(False).eval()
        self.networks: dict[str, nn.Module] = {"swapper": network}
        self.config = network_config(recipe)
        self.maps = DecoderMaps(network) if "feature" in self.weights else None
        factor = 2.0 if recipe.both_ways else 1.0
        phases = [Phase("swap", "swapper", self.terms, {n: factor * w for n, w in self.weights.items()})]
        if "adversarial" in self.weights:
            critic = recipe.critic or Critic()
            self.critic = critic
            self.networks["critic"] = build_critic(
                critic.kind, critic.patch if critic.kind == "afsa" else recipe.size, critic.width
            )
            phases.append(Phase("critic", "critic", self.critic_terms, {"adversarial": factor}, begins=critic.begins))
        self.phases = tuple(phases)
        self.optimisers: dict[str, Optimiser] = {n: recipe.optimisers[n] for n in self.networks}

    def sides(self, batch: Batch) -> tuple[Side, Side]:
        """(sources, targets), both ways where the recipe says so."""
        source, target = side(batch, "source"), side(batch, "target")
        return (joined(source, target), joined(target, source)) if self.recipe.both_ways else (source, target)

    def make(self, network: nn.Module, source: Side, target: Side) -> Made:
        """The result with everything the network says beside it."""
        if self.recipe.network.startswith("mattface.methods."):
            encoded = network.encode_source(source["image"])  # type: ignore[operator]
            swap = network(encoded, target["image"], target["mask"])
            return Made(swap.pixels.float(), swap.pixels.float(), flow=swap.extras.get("flow"))
        with torch.no_grad():
            code = self.judged.embed(source["image"], source)
        maps = (target["maps"],) if "maps" in target else ()
        found = network(target["image"], code, *maps).float()
        if found.shape[1] == 3:
            return Made(found, found)
        made = Made(found[:, :3], found[:, :3], (found[:, 3:] + 1) / 2)
        return replace(made, picture=made.laid(target["image"], made.matte))

    def swap(self, network: nn.Module, source: Side, target: Side) -> torch.Tensor:
        """(B, 3, S, S) result, float32."""
        return self.make(network, source, target).picture

    def terms(self, batch: Batch, clock: Clock) -> Terms:
        """Every loss of the swap network that has a weight."""
        source, target = self.sides(batch)
        network, wanted = self.networks["swapper"], self.weights
        made, maps = self._with_maps(network, source, target)
        found = made.laid(target["image"], batch.get("answer_matte"))
        batch["swap"] = found.detach()  # for the critic's phase
        terms = self._answered(made, side(batch, "answer"))
        if "same" in wanted:
            same = torch.cat([batch["same"]] * (2 if self.recipe.both_ways else 1))
            terms["same"] = losses.same_identity_loss(found, target["image"], same)
        if "masked" in wanted:
            terms["masked"] = losses.masked_loss(found, target["image"], target["mask"])
        if "cycle" in wanted:
            again = target | {"image": found}  # the result has the target's pose, so its landmarks too
            terms["cycle"] = losses.cycle_loss(self.swap(network, target, again), target["image"])
        if wanted.keys() & {"self", "feature"}:
            own, own_maps = self._with_maps(network, target, target)
            if "self" in wanted:
                terms["self"] = losses.self_loss(own.picture, target["image"], self.recipe.power)
            if "feature" in wanted:
                terms["feature"] = losses.feature_loss(maps, own_maps, target["mask"])
        if "weights" in wanted:
            terms["weights"] = losses.weight_penalty(p for p in network.parameters() if p.requires_grad)
        terms |= self.judged.terms(found, source, target)
        if "adversarial" in wanted and self._critic_takes_part(clock):
            terms["adversarial"] = self._deceive(found, target)
        return terms

    def _with_maps(self, network: nn.Module, source: Side, target: Side) -> tuple[Made, list[torch.Tensor]]:
        """The result, and the decoder's maps where a loss wants them."""
        if self.maps is None:
            return self.make(network, source, target), []
        with self.maps as maps:
            return self.make(network, source, target), maps

    def _answered(self, made: Made, answer: Side) -> Terms:
        """Losses against the known answer.

        Raises:
            UsageError: the network gives nothing that such a loss could compare.
        """
        wanted, terms = self.weights, {}
        for name, given in (("flow", made.flow), ("matte", made.matte)):
            if name in wanted and given is None:
                raise UsageError(
                    f"loss {name} compares a {name} of the network; {self.recipe.network} gives none. "
                    f"Leave the loss out: --set loss.{name}=0."
                )
        if "supervised" in wanted:
            terms["supervised"] = losses.supervised_loss(made.drawn, answer["image"], answer["matte"])
        if "flow" in wanted and made.flow is not None:
            trusted = answer["visible"] * answer["matte"]
            terms["flow"] = losses.flow_loss(made.flow.float(), answer["flow"], trusted)
        if "matte" in wanted and made.matte is not None:
            terms["matte"] = losses.cover_loss(made.matte, answer["matte"])
        return terms

    def _critic_takes_part(self, clock: Clock) -> bool:
        return clock.images >= self.critic.begins

    def _scores(self, pictures: torch.Tensor, target: Side) -> list[torch.Tensor]:
        """Scores of whole pictures (one entry) or of AFSA's patches (one per part of the face)."""
        critic = self.networks["critic"]
        if self.critic.kind != "afsa":
            return [critic(pictures)]
        patches = losses.landmark_patches(pictures, target["landmarks"], self.critic.patch)
        return list(critic(torch.cat(patches)).chunk(len(patches)))

    def _deceive(self, found: torch.Tensor, target: Side) -> torch.Tensor:
        return losses.afsa_loss(self.critic.form, self._scores(found, target))

    def critic_terms(self, batch: Batch, _: Clock) -> Terms:
        """The critic's loss on the targets and on what the swap phase left in the batch."""
        target = self.sides(batch)[1]
        real, fake = self._scores(target["image"], target), self._scores(batch["swap"], target)
        return {"adversarial": losses.afsa_critic_loss(self.critic.form, real, fake)}

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The swap network as the method of its name reads it."""
        method = getattr(module_of(self.recipe), "NAME", "mattface")
        text = self.config.to_json() if hasattr(self.config, "to_json") else json.dumps(asdict(self.config))
        metadata = {"method": method, "config": text, "name": self.name, "training": progress}
        save_weights(folder / f"{self.name}.safetensors", networks["swapper"].state_dict(), metadata)

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor:
        """Rows of source, target, result."""
        network = networks["swapper"]
        device = next(network.parameters()).device
        batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in self.fixed.items()}
        source, target = side(batch, "source"), side(batch, "target")
        found = self.swap(network, source, target)
        columns = [torch.cat(list(x), 1) for x in (source["image"], target["image"], found)]
        return torch.cat(columns, 2)

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Held-out people, see `mattface.training.scoring`."""
        if self.held_out is None:
            return {}
        network = networks["swapper"]
        device = next(network.parameters()).device

        def run(source: Side, target: Side) -> torch.Tensor:
            faces = [
                {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in face.items()}
                for face in (source, target)
            ]
            return self.swap(network, *faces)

        return self.held_out(run)


def stages(recipe: SwapRecipe, data: Data, device: torch.device) -> Iterator[Stage]:
    """The one stage of a swap training.

    Raises:
        WeightsError: a network that the recipe names is not here.
        InputError: the data lacks what the recipe needs.
    """
    judges = load_judges(recipe.judges, needs(recipe), device)
    torch.manual_seed(recipe.loop.seed)
    network = build_swapper(recipe)
    if wanted := sorted(recipe.weights().keys() & ANSWERED):
        yield answered_stage(recipe, network, judges, data, wanted)
        return
    train, held = catalogue(data.root, data.layout).split(data.held_out)
    meshes = recipe.judges.framing == "own" or draw_of(recipe, network) is not None
    meshes |= recipe.critic is not None and recipe.critic.kind == "afsa"
    draw = draw_of(recipe, network)
    pairs = FacePairs(train, recipe.size, recipe.same, recipe.loop.seed, meshes, True, draw)
    check_captions(recipe, pairs.catalogue)
    fixed = default_collate([pairs[p] for p in range(4)])
    held_out = None
    if data.scoring is not None:
        faces = {r.name: face_sample(r, recipe.size, True, draw=draw) for r in held.records if r.mesh is not None}
        held_out = HeldOut(faces, data.scoring, recipe.judges.identity, recipe.loop.seed)
    task = SwapTask(recipe, network, judges, fixed, held_out)
    yield Stage("", task, LoaderFeed(pairs, data.workers), recipe.loop, notes=pairs.catalogue.notes)


def answered_stage(recipe: SwapRecipe, network: nn.Module, judges: Frozen, data: Data, wanted: list[str]) -> Stage:
    """A training on swaps whose answers are known.

    Raises:
        UsageError: a network or a loss that needs what such samples lack.
        InputError: there are no answers.
    """
    if recipe.both_ways or draw_of(recipe, network) is not None or "clip_text" in recipe.weights():
        raise UsageError(
            f"losses {', '.join(wanted)} train on answered swaps, which go one way and have neither captions nor depth "
            f"maps; recipe {recipe.name} asks for one of these. Leave those losses out, or set both_ways=false."
        )
    folders = [data.root]
    if recipe.answers:
        folders.append(data.out / "answers")
        loop = recipe.loop
        write_mesh_swaps(data.root, folders[-1], recipe.answers, recipe.size, recipe.same, loop.seed)
    try:
        samples = Answered(folders, recipe.size, recipe.loop.seed)
    except InputError as error:
        raise InputError(f"losses {', '.join(wanted)} need answers: {error}") from error
    fixed = default_collate([samples[p] for p in range(4)])
    task = SwapTask(recipe, network, judges, fixed)
    return Stage("", task, LoaderFeed(samples, data.workers), recipe.loop, notes=samples.notes)


def check_captions(recipe: SwapRecipe, data: Catalogue) -> None:
    """Refuses a text loss without any caption.

    Raises:
        UsageError: no picture has one.
    """
    if "clip_text" in recipe.weights() and all(r.caption is None for r in data.records):
        raise UsageError(
            f"loss clip_text needs captions; no picture of {data.root} has one. "
            "Make them: mattface data prepare --caption-url URL, or set loss.clip_text=0."
        )
