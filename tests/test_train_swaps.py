"""Swap trainings of toy networks: every loss, the discriminator, frozen parts, and the plan of what they cost."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_data import triplet_folder
from torch import nn

from mattface.embed import Embedder
from mattface.errors import UsageError, WeightsError
from mattface.methods import METHODS, Entry
from mattface.training.config import Data, DiscriminatorConfig, Loop, LossNetworks, SwapRecipe
from mattface.training.launch import find_recipe, make_plan
from mattface.training.loop import fit
from mattface.training.losses.network_losses import NetworkLosses
from mattface.training.losses.networks.loading import LoadedNetworks
from mattface.training.models.swapper import DecoderMaps, build_swapper
from mattface.training.plan.estimate import plan
from mattface.training.plan.meter import Meter
from mattface.training.tasks import swap

CPU = torch.device("cpu")


class Means(nn.Module):
    """An identity network: sixteen means of the picture through a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.matrix = nn.Linear(48, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix(self.pool(x).flatten(1))


class Toy(nn.Module):
    """A swap network of two convolutions and a code, with the signature of the real-time ones."""

    input_names = ("target", "code", "geometry")

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 6, 3, padding=1)
        self.code = nn.Linear(16, 6)
        self.decoder = nn.Module()
        self.decoder.convs = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)])

    def forward(self, target: torch.Tensor, code: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        x = self.encoder(target) * self.code(code)[..., None, None] + maps.mean(1, keepdim=True)
        for conv in self.decoder.convs:
            x = conv(torch.tanh(x))
        return torch.tanh(x)


@dataclass(frozen=True)
class ToyConfig:
    size: int = 32


@pytest.fixture
def toy(monkeypatch) -> str:
    """Name of a method with a toy network, which takes maps of the target too."""
    module = ModuleType("toyswap")
    module.Config, module.build_network = ToyConfig, lambda config: Toy()
    monkeypatch.setitem(sys.modules, "toyswap", module)
    monkeypatch.setitem(METHODS, "toy", Entry("toyswap", "a toy"))
    return "toy"


@pytest.fixture
def toy_networks(monkeypatch) -> LoadedNetworks:
    """All loss networks, small ones, in place of those that are loaded."""
    torch.manual_seed(1)
    network = Means().requires_grad_(False)
    embedder = Embedder("means", network, 16, 32, lambda mesh, points: np.eye(3))

    def image(pictures: torch.Tensor) -> torch.Tensor:
        return network(pictures)

    def text(captions: Any) -> torch.Tensor:
        return torch.stack([torch.linspace(-1, 1, 16) * len(c) for c in captions])

    found = LoadedNetworks(embedder, "whole", lambda x: [x, x[..., ::2, ::2]], None, (image, text), image)
    monkeypatch.setattr(swap, "load_loss_networks", lambda names, needed, device, fallback: found)
    return found


ALL = {
    "same": 1.0,
    "identity": 1.0,
    "shape": 1.0,
    "masked": 1.0,
    "cycle": 1.0,
    "self": 1.0,
    "feature": 1.0,
    "perceptual": 1.0,
    "clip_text": 1.0,
    "clip_identity": 1.0,
    "adversarial": 0.1,
    "weights": 0.1,
}


PLANNED = {"same": 1.0, "identity": 1.0, "perceptual": 1.0, "shape": 1.0}


def toy_recipe(method: str, **changes: Any) -> SwapRecipe:
    adam = find_recipe("magicmask", True, []).optimisers["swapper"]
    fields: dict[str, Any] = {
        "method": method,
        "conditioning": "depth-landmarks",
        "size": 32,
        "same": 0.3,
        "loss": ALL,
        "discriminator": DiscriminatorConfig("afsa", width=4, patch=16),
    }
    loop = Loop(24, 4, accumulate=2, average=0.9, log_every=4, save_every=12, grid_every=12)
    return SwapRecipe("toy", loop, {"swapper": adam, "discriminator": adam}, **fields | changes)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["afsa", "patch", "global"])
@pytest.mark.parametrize("both", [False, True])
def test_every_loss_of_the_papers_takes_part(tmp_path, toy, toy_networks, kind, both):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    (data / "text" / "p3.txt").unlink()
    recipe = toy_recipe(toy, both_ways=both, discriminator=DiscriminatorConfig(kind, width=2, patch=16))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = rows(tmp_path / "run")
    assert {k.removeprefix("swap/") for k in found[0] if k.startswith("swap/")} == {*ALL, "loss"}
    assert all(np.isfinite(v) for row in found for v in row.values())
    assert any("1 of 6 pictures have no caption: p3" in note for note in stage.notes)
    assert len(list((tmp_path / "run" / "grids").iterdir())) == 2
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "toy.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"]) == {"size": 32}
        assert file.metadata()["method"] == "toy"


@pytest.mark.parametrize("name", ["mattface", "alphaface", "alphaface-paper", "facechanger", "magicmask"])
def test_the_tiny_recipes_train_every_loss_of_their_papers(need, tmp_path, name):
    need("identity-resnet")
    changes = ["loop.images=12", "loop.batch=6", "loop.accumulate=1", "loop.grid_every=0", "loop.score_every=0"]
    recipe = find_recipe(name, True, [*changes, "discriminator.begins=0"])
    whole = find_recipe(name, False, [])
    assert recipe.weights().keys() == whole.weights().keys() and recipe.both_ways == whole.both_ways
    data = triplet_folder(tmp_path / "data", 6, size=64)
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    first = rows(tmp_path / "run")[0]
    assert {k.removeprefix("swap/") for k in first if k.startswith("swap/")} == {*whole.weights(), "loss"}
    assert ("r1/r1" in first) == (name == "mattface")
    assert all(np.isfinite(v) for v in first.values())


def test_captions_that_are_too_long_take_no_part(toy, toy_networks):
    recipe = dataclasses.replace(toy_recipe(toy, loss={"clip_text": 1.0}, text="always"), caption_words=3)
    losses = NetworkLosses(recipe, toy_networks)
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    faces = [{"image": picture, "caption": captions} for captions in (["a b c", "a b c d"], ["a b c", ""])]
    long, missing = (losses.terms(picture, face, face)["clip_text"] for face in faces)
    assert torch.equal(long, missing) and long != 0
    both = {"image": picture, "caption": ["a b c d", "a b c d e"]}
    assert losses.terms(picture, both, both)["clip_text"] == 0


def test_the_feature_loss_sees_the_convolution_to_rgb():
    recipe = find_recipe("magicmask", True, [])
    network = build_swapper(recipe)
    maps = DecoderMaps(network)
    side = recipe.size
    with maps as found:
        network(torch.zeros(1, 3, side, side), torch.zeros(1, 128), torch.zeros(1, 2, side, side))
    assert [m.shape[1] for m in found] == [*recipe.network["decoder"], 3], "eq. 8 sums over all convolutions"


def test_learning_swaps_lowers_the_losses(tmp_path, toy, toy_networks):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = toy_recipe(toy, loss={"masked": 1.0, "self": 1.0, "identity": 0.1})
    recipe = dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, images=240), discriminator=None)
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    losses = [row["swap/loss"] for row in rows(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_a_text_loss_without_any_caption_is_rejected(tmp_path, toy, toy_networks):
    data = triplet_folder(tmp_path / "data", 4, size=64)
    for path in (data / "text").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="clip_text needs captions"):
        next(swap.stages(toy_recipe(toy), Data(data, held_out=0), CPU))


def test_the_discriminator_begins_when_the_recipe_says(tmp_path, toy, toy_networks):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = toy_recipe(toy, discriminator=DiscriminatorConfig("patch", width=4, begins=12))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    network = stage.task.networks["discriminator"]
    before = [p.clone() for p in network.parameters()]
    short = dataclasses.replace(stage.loop, images=12)
    fit(stage.task, stage.feed, short, tmp_path / "run", recipe, "cpu", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert "swap/adversarial" not in rows(tmp_path / "run")[0]
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    assert "swap/adversarial" in rows(tmp_path / "run")[-1]


def test_the_plan_tells_what_a_training_needs_and_trains_nothing(tmp_path, toy, toy_networks):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    (stage,) = swap.stages(toy_recipe(toy), Data(data, held_out=0), CPU)
    text = plan(stage.task, stage.feed, stage.loop, CPU)
    assert "recipe toy: 24 images in 6 steps of 4" in text
    assert "network swapper: " in text and "phase discriminator trains discriminator" in text
    assert "s for a micro-batch of 2" in text and "GiB of activations" in text
    assert "swap/swapper.encoder" in text and "discriminator/backward" in text and "TFLOP" in text
    assert not (tmp_path / "run").exists()


def test_the_plan_measures_seeded_networks_for_missing_ones_and_names_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    real = {"identity": "arcface", "perceptual": "vgg16", "shape": "d3dfr"}
    changes = ["loop.accumulate=6", *(f"loss_networks.{kind}={name}" for kind, name in real.items())]
    recipe = dataclasses.replace(find_recipe("mattface", True, changes), loss=PLANNED)
    data = Data(triplet_folder(tmp_path / "data", 6, size=64), held_out=0)
    text = make_plan(dataclasses.replace(recipe, start="psp-ffhq"), data, CPU)
    for note in (
        "psp-ffhq is not here",
        "network arcface: its weights",
        "network vgg16: its weights",
        "d3dfr: its weights",
    ):
        assert note in text
    assert "swap/loss network features" in text and "swap/loss network shape" in text
    with pytest.raises(WeightsError):  # only the plan takes them
        next(swap.stages(recipe, data, CPU))


def test_costs_are_those_of_the_arithmetic():
    meter, convolution = Meter(CPU), nn.Conv2d(3, 8, 3, padding=1, bias=False)
    with meter.counting(), meter.watching({"convolution": convolution}):
        convolution(torch.zeros(1, 3, 16, 16)).sum().backward()
    forward = 2 * 8 * 3 * 9 * 16 * 16
    assert meter.costs["convolution"].flop == forward
    assert meter.operations.flop == 2 * forward  # the picture wants no gradient
    assert meter.saved.largest == 4 * (3 * 16 * 16 + 8 * 3 * 9) and meter.saved.now == 0


def test_frozen_parts_stay_as_they_are(tmp_path, toy_networks):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = find_recipe("mattface", True, ["loop.images=12", "loop.score_every=0", "loss.perceptual=0"])
    recipe = dataclasses.replace(recipe, frozen=("encoder", "generate"), loss_networks=LossNetworks("means", "whole"))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    network = stage.task.networks["swapper"]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    changed = {k.split(".")[0] for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not changed & {"encoder", "generate"}
    assert not network.encoder.training and network.invert.training


@pytest.mark.parametrize("name", ["alphaface", "alphaface-paper", "facechanger", "magicmask"])
def test_real_time_recipes_train_their_networks(name, tmp_path, toy_networks, monkeypatch):
    recipe = find_recipe(name, True, ["loop.images=8", "loop.grid_every=8", "discriminator.begins=0"])
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = dataclasses.replace(recipe, network=recipe.network | {"code": 16})
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    assert all(np.isfinite(v) for row in rows(tmp_path / "run") for v in row.values())
    assert (tmp_path / "run" / f"{name}.safetensors").exists()
