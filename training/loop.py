"""Trains the mattface network on answered pairs, in two stages.

Stage one trains everything up to the recipe's `size`. Stage two freezes that and trains only the blocks above it, on
full-resolution pairs, so that the whole network has seen its own output size.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from mattface.layers import resize
from mattface.methods.mattface import MattfaceNetwork, build_network
from mattface.training import losses
from mattface.training.augment import PairBatch, augment
from mattface.training.checkpoint import load_state, save_state, save_weights
from mattface.training.pairs import PairStore, Teacher
from mattface.training.recipes.mattface_demo import Recipe
from mattface.vocabulary import Swap


def pair_losses(swap: Swap, pair: PairBatch) -> dict[str, torch.Tensor]:
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


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup)))


def indices(recipe: Recipe, count: int, start: int) -> Iterator[list[int]]:
    """Batches of shuffled indices; the same step always gives the same batch."""
    step = start
    while True:
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        yield torch.randint(count, (recipe.batch,), generator=rng).tolist()
        step += 1


@torch.no_grad()
def average(into: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of all weights; buffers are copied."""
    for a, b in zip(into.parameters(), network.parameters(), strict=True):
        a.lerp_(b, 1 - decay)
    for old, new in zip(into.buffers(), network.buffers(), strict=True):
        old.copy_(new)


class Journal:
    """One JSON line per report, appended to log.jsonl beside the checkpoints, and printed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"
        self.since, self.last = time.time(), 0

    def write(self, stage: str, step: int, terms: dict[str, torch.Tensor]) -> None:
        """Records the loss terms of a step and the seconds per step since the last record."""
        now = time.time()
        row = {"stage": stage, "step": step, "seconds_per_step": (now - self.since) / max(step - self.last, 1)}
        row |= {k: round(float(v), 5) for k, v in terms.items()}
        self.since, self.last = now, step
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)


def train(recipe: Recipe, store: PairStore, folder: Path, device: torch.device) -> MattfaceNetwork:
    """Stage one. Continues from `folder` when it holds an interrupted run."""
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.config).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=recipe.decay)
    begin, state = 0, load_state(folder / "stage1.pt")
    if state is not None:
        network.load_state_dict(state["network"])
        kept.load_state_dict(state["kept"])
        optimiser.load_state_dict(state["optimiser"])
        begin = state["step"]
    journal = Journal(folder)
    journal.last = begin
    batches = indices(recipe, store.count, begin)
    for step in range(begin, recipe.steps):
        rng = torch.Generator().manual_seed(recipe.seed + step)
        pair = augment(store.batch(next(batches)), rng)
        pair = PairBatch(**{k: v.to(device) for k, v in vars(pair).items()})
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        terms = step_on(network, optimiser, pair, recipe, upto=recipe.size)
        average(kept, network, min(recipe.average, (step + 1) / (step + 10)))
        if step % 50 == 0:
            journal.write("one", step, terms)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            keys = {"network": network.state_dict(), "kept": kept.state_dict(), "optimiser": optimiser.state_dict()}
            save_state(folder / "stage1.pt", keys | {"step": step + 1})
            export(recipe, kept, folder, f"stage one, step {step + 1} of {recipe.steps}")
    return kept


def step_on(
    network: MattfaceNetwork, optimiser: torch.optim.Optimizer, pair: PairBatch, recipe: Recipe, upto: int
) -> dict[str, torch.Tensor]:
    """One optimiser step; returns the loss terms."""
    with torch.autocast(pair.target.device.type, torch.bfloat16):
        source = network.encode_source(pair.source, upto=upto)
        swap = network(source, pair.target, pair.mask, upto=upto)
    terms = pair_losses(swap, pair)
    loss = torch.stack([recipe.loss[k] * v for k, v in terms.items()]).sum()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss must stay finite; got {({k: float(v) for k, v in terms.items()})}.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 1.0)
    optimiser.step()
    return {k: v.detach() for k, v in terms.items()}


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


def refine(recipe: Recipe, network: MattfaceNetwork, teacher: Teacher, folder: Path, device: torch.device) -> None:
    """Stage two: the blocks above the first stage's size, on full-resolution pairs.

    Batch statistics stay those of stage one: a batch of one would ruin them.
    """
    network.eval()
    optimiser = torch.optim.AdamW(above(network, recipe.size), recipe.fine_rate, weight_decay=recipe.decay)
    journal = Journal(folder)
    rng = torch.Generator().manual_seed(recipe.seed)
    for step in range(recipe.fine_steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.fine_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.fine_steps))
        s, t = torch.randint(len(teacher.crops), (2,), generator=rng).tolist()
        pair = PairBatch(**{k: v.to(device) for k, v in vars(teacher.pair(s, t)).items()})
        terms = step_on(network, optimiser, pair, recipe, upto=recipe.config.resolution)
        if step % 20 == 0:
            journal.write("two", step, terms)
        if (step + 1) % 100 == 0 or step + 1 == recipe.fine_steps:
            export(recipe, network, folder, f"stage two, step {step + 1} of {recipe.fine_steps}")


def export(recipe: Recipe, network: MattfaceNetwork, folder: Path, progress: str) -> None:
    """Writes the network with its configuration as safetensors."""
    metadata = {"config": recipe.config.to_json(), "method": "mattface", "name": recipe.name, "training": progress}
    save_weights(folder / f"{recipe.name}.safetensors", network.state_dict(), metadata)
