"""The mattface network taught by answered pairs, in two stages.

Stage one trains everything up to the recipe's `size`. Stage two freezes that and trains only the blocks above it, on
full-resolution pairs, so that the whole network has seen its own output size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork, build_network
from mattface.training import losses
from mattface.training.augment import PairBatch, augment
from mattface.training.checkpoint import load_state, save_state, save_weights
from mattface.training.data.feed import LoaderFeed
from mattface.training.data.triplets import TripletShards
from mattface.training.pairs import PairStore, Teacher, crops_of, make_pairs, training_portraits
from mattface.training.recipes.mattface_demo import Recipe
from mattface.training.task import Batch, Clock, Feed, Loop, Optimiser, Phase, Terms
from mattface.training.tasks import Data, Stage
from mattface.vocabulary import Swap


class Store(Protocol):
    """Answered pairs by number."""

    count: int

    def batch(self, indices: Sequence[int]) -> PairBatch:
        """The pairs of these numbers."""


def pair_losses(swap: Swap, pair: PairBatch) -> Terms:
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
        "confidence": losses.weighted_mean((extras["confidence"] - visible).abs(), matte),
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

    def __init__(
        self, recipe: Recipe, network: MattfaceNetwork, optimiser: Optimiser, upto: int, stage: str = "one"
    ) -> None:
        self.recipe, self.name, self.upto, self.stage = recipe, recipe.name, upto, stage
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"network": self.network}
        self.optimisers = {"network": optimiser}
        self.phases = (Phase("pair", "network", self.terms, recipe.loss),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """See `pair_losses`."""
        pair = PairBatch(**batch)
        source = self.network.encode_source(pair.source, upto=self.upto)
        return pair_losses(self.network(source, pair.target, pair.mask, upto=self.upto), pair)

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with its configuration, in the stage's folder; that of stage two is the one to use."""
        training = f"stage {self.stage}, {progress}"
        metadata = {"config": self.recipe.config.to_json(), "method": "mattface", "name": self.name}
        path = folder / f"{self.name}.safetensors"
        save_weights(path, networks["network"].state_dict(), metadata | {"training": training})

    def grid(self, networks: Mapping[str, nn.Module]) -> None:
        """None: the pairs are augmented."""

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None: `mattface.benchmarks.quality` scores the exported file."""
        return {}


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


def above(network: MattfaceNetwork, size: int) -> list[nn.Parameter]:
    """Freezes everything but the blocks of resolutions above `size`; returns what is left to train."""
    network.requires_grad_(False)
    groups = [network.blend.encoder.levels, network.blend.blends, network.blend.decoder]
    chosen = [m for group in groups for r, m in group.items() if int(r) > size]
    chosen += [network.generate.get_submodule(f"b{r}") for r in network.generate.resolutions if r > size]
    parameters = [p for m in chosen for p in m.parameters()]
    for p in parameters:
        p.requires_grad_(True)
    return parameters


def stage_one(recipe: Recipe, feed: Feed) -> Stage:
    """Everything up to the recipe's size."""
    torch.manual_seed(recipe.seed)
    optimiser = Optimiser(
        "adamw", recipe.rate, decay=recipe.decay, clip=1.0, schedule="cosine", warmup=recipe.warmup * recipe.batch
    )
    task = PairTask(recipe, build_network(recipe.config), optimiser, recipe.size)
    return Stage("one", task, feed, recipe.loop)


def stage_two(recipe: Recipe, network: MattfaceNetwork, teacher: Teacher) -> Stage:
    """The blocks above; batch statistics stay those of stage one, as a batch of one would ruin them."""
    network.eval()
    above(network, recipe.size)
    optimiser = Optimiser("adamw", recipe.fine_rate, decay=recipe.decay, clip=1.0, schedule="cosine")
    task = PairTask(recipe, network, optimiser, recipe.config.resolution, "two")
    loop = Loop(
        recipe.fine_steps, 1, precision="bf16", log_every=min(20, recipe.log_every), save_every=100, seed=recipe.seed
    )
    return Stage("two", task, TeacherFeed(teacher, recipe.seed), loop)


def stages(recipe: Recipe, data: Data, device: torch.device) -> Iterator[Stage]:
    """Both stages on mesh swaps, which are made once and kept beside the run; or the first on the studio's triplets."""
    if any(data.root.glob("*.tar")):
        samples = TripletShards(data.root, recipe.seed)
        stage = stage_one(recipe, LoaderFeed(samples, data.workers))
        stage.notes = samples.notes
        yield stage
        return
    paths = training_portraits(data.root)
    kept = data.out / "pairs.pt"
    maps = load_state(kept)
    if maps is None:
        teacher = Teacher(crops_of(paths, 2 * recipe.size))
        maps = make_pairs(teacher, recipe.size, recipe.pairs, recipe.same, recipe.seed).maps
        data.out.mkdir(parents=True, exist_ok=True)
        save_state(kept, maps)
    first = stage_one(recipe, PairFeed(PairStore(maps), recipe.seed))
    yield first
    network = first.result["network"]
    if recipe.fine_steps and isinstance(network, MattfaceNetwork):
        yield stage_two(recipe, network, Teacher(crops_of(paths, recipe.config.resolution)))
