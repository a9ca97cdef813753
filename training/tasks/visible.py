"""Training of `mattface.parse.visible`: binary cross-entropy against what the studio knows to be visible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mattface.errors import InputError
from mattface.parse.visible import VisibleFace
from mattface.training.checkpoint import save_weights
from mattface.training.config import Data, VisibilityRecipe
from mattface.training.data.feed import PositionFeed
from mattface.training.data.visible_faces import VisibleFaceSamples, read_squares
from mattface.training.models.start import load_start
from mattface.training.task import Batch, Clock, Fallback, Phase, Stage, Terms

SHOWN = 8
"""Faces of a grid."""


class VisibleTask:
    """See `mattface.training.task.Task`."""

    averaged = ("network",)

    def __init__(self, recipe: VisibilityRecipe, network: VisibleFace, sample: Batch) -> None:
        self.recipe, self.name, self.sample = recipe, recipe.name, sample
        self.networks: dict[str, nn.Module] = {"network": network.to(memory_format=torch.channels_last)}  # type: ignore[call-overload]
        self.optimisers = {"network": recipe.optimisers["network"]}
        self.phases = (Phase("face", "network", self.terms, {"seen": 1.0}),)

    def terms(self, batch: Batch, _: Clock) -> Terms:
        """Cross-entropy where the face is expected; a little everywhere else, so that the rim is learned."""
        logit = self.networks["network"](batch["input"].contiguous(memory_format=torch.channels_last)).float()
        weight = (batch["input"][:, 3:4] + 0.1) * batch["sure"]
        loss = F.binary_cross_entropy_with_logits(logit, batch["seen"], reduction="none")
        return {"seen": (loss * weight).sum() / weight.sum()}

    def export(self, networks: Mapping[str, nn.Module], folder: Path, progress: str) -> None:
        """The network with its widths."""
        metadata = {"config": json.dumps({"widths": self.recipe.widths}), "method": "visible", "name": self.name}
        path = folder / f"{self.name}.safetensors"
        save_weights(path, networks["network"].state_dict(), metadata | {"training": progress})

    def grid(self, networks: Mapping[str, nn.Module]) -> torch.Tensor:
        """Faces, what is seen of them, and what the network says."""
        network, x = networks["network"], self.sample["input"]
        with torch.no_grad():
            found = torch.sigmoid(network(x).float())
        rows = [x[:, :3], self.sample["seen"].expand(-1, 3, -1, -1) * 2 - 1, found.expand(-1, 3, -1, -1) * 2 - 1]
        return torch.cat([torch.cat(list(row), 2) for row in rows], 1)

    def score(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """None: `mattface bench quality` scores it within the methods."""
        return {}


def stages(
    recipe: VisibilityRecipe, data: Data, device: torch.device, fallback: Fallback | None = None
) -> Iterator[Stage]:
    """One stage, on the shards of triplets in a folder."""
    shards = sorted(data.root.rglob("*.tar"))
    if not shards:
        raise InputError(f"{data.root} must hold shards of triplets (*.tar); found none. See: mattface studio shards.")
    torch.manual_seed(recipe.loop.seed)
    maps, notes = read_squares(shards)
    samples = VisibleFaceSamples(maps, recipe.loop.seed)
    shown = VisibleFaceSamples(maps, recipe.loop.seed + 1).batch(range(SHOWN))
    network = VisibleFace(recipe.widths)
    notes += load_start(network, recipe.start)
    task = VisibleTask(recipe, network, shown)
    yield Stage("", task, PositionFeed(samples, data.workers), recipe.loop, notes=notes)
