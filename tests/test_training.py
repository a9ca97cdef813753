"""Training: augmentation keeps the ground truth exact, losses are what they say, a tiny run learns and continues."""

from dataclasses import replace

import pytest
import torch

from mattface.errors import WeightsError
from mattface.layers import warp
from mattface.methods.mattface import Config
from mattface.training import losses
from mattface.training.checkpoint import save_weights
from mattface.training.config import Loop, StageConfig, TripletRecipe
from mattface.training.data import augment
from mattface.training.data.feed import PositionFeed
from mattface.training.data.triplet_batch import Triplets, pack, unpack
from mattface.training.data.triplets import TripletSamples
from mattface.training.loop import fit
from mattface.training.recipes import mattface_demo
from mattface.training.tasks import triplets
from mattface.training.tasks.triplets import build_network, stage
from mattface.transfer.idatt import position_grid


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_picture(count: int, size: int, seed: int) -> torch.Tensor:
    small = torch.rand(count, 3, 8, 8, generator=rng(seed)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic", align_corners=False).clamp(-1, 1)


def self_pair(count: int = 4, size: int = 64) -> Triplets:
    """A face swapped with itself: the flow is the identity and the ground truth is the target."""
    image = smooth_picture(count, size, 1)
    flow = position_grid(size, size, torch.device("cpu"), torch.float32).T.view(1, 2, size, size)
    ones = torch.ones(count, 1, size, size)
    canonical = torch.cat([flow * 2, flow[:, :1] * 0 + 1], 1).expand(count, -1, -1, -1)
    flow = flow.expand(count, -1, -1, -1).clone()
    return Triplets(image, image, image, flow, ones, ones, ones, canonical, canonical)


@pytest.mark.parametrize("seed", range(3))
def test_moved_pairs_still_correspond(seed):
    random = rng(seed)
    pair = augment.move_source(augment.move_target(augment.mirror(self_pair(), random), random), random)
    assert not torch.allclose(pair.source, pair.target, atol=0.05)
    inside = (pair.flow.abs().amax(1, keepdim=True) < 0.9).float()
    inside[..., :16], inside[..., -16:], inside[:, :, :16], inside[:, :, -16:] = 0, 0, 0, 0
    error = ((warp(pair.source, pair.flow) - pair.swap).abs() * inside).sum() / inside.sum() / 3
    untouched = ((pair.source - pair.swap).abs() * inside).sum() / inside.sum() / 3
    assert error < 0.02 < 0.1 < untouched
    apart = ((warp(pair.source_canonical, pair.flow) - pair.canonical).abs() * inside).sum() / inside.sum() / 3
    unmoved = ((pair.source_canonical - pair.canonical).abs() * inside).sum() / inside.sum() / 3
    assert apart < 0.01 < 0.03 < unmoved


def test_recolouring_treats_target_and_answer_alike():
    pair = augment.relight(self_pair(), rng(3))
    assert torch.equal(pair.target, pair.swap)
    assert not torch.allclose(pair.source, pair.target, atol=0.02)


def test_occluders_stay_in_the_answer():
    pair = augment.occlude(self_pair(count=16), rng(0), covered=1.0)
    assert torch.allclose(pair.target, pair.swap)
    covered = pair.matte < 0.5
    assert 0.02 < covered.float().mean() < 0.6
    assert torch.equal(pair.visible, pair.matte)


def test_augmentation_is_repeatable():
    first, second = (augment.augment(self_pair(), rng(5)) for _ in range(2))
    assert all(torch.equal(getattr(first, k), getattr(second, k)) for k in first.known)


def test_packing_loses_at_most_half_a_grey_level():
    image, flow = torch.rand(3, 8, 8) * 2 - 1, torch.rand(2, 8, 8) * 2 - 1
    assert (unpack("swap", pack("swap", image)) - image).abs().max() <= 1 / 255 + 1e-6
    assert (unpack("flow", pack("flow", flow)) - flow).abs().max() < 1e-3


def test_losses_are_zero_only_for_the_truth():
    truth, ones = smooth_picture(2, 32, 0), torch.ones(2, 1, 32, 32)
    assert losses.photo_loss(truth, truth, ones) == 0
    assert losses.photo_loss(truth + 0.1, truth, ones) == pytest.approx(0.1, abs=1e-4)
    soft = torch.rand(2, 1, 8, 8, generator=rng()) * 0.9 + 0.05
    assert losses.matte_loss(torch.logit(soft), soft) == pytest.approx(0, abs=1e-5)
    assert losses.matte_loss(torch.logit(soft) + 1, soft) > 0.05
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 2, 8, 8)
    assert losses.smoothness_loss(ramp) == 0 and losses.smoothness_loss(ramp**2) > 1
    assert losses.identity_loss(torch.eye(3), torch.eye(3)) == pytest.approx(0, abs=1e-6)
    assert losses.weighted_mean(truth, torch.zeros_like(ones)) == 0


class MemoryStore:
    """Two augmentable pairs in place of mesh swaps."""

    count = 2

    def __init__(self) -> None:
        self.pair = self_pair(2, 32)

    def batch(self, indices):
        return Triplets(**{k: v[torch.tensor(indices)] for k, v in self.pair.known.items()})


def tiny_recipe() -> TripletRecipe:
    config = Config(
        resolution=32,
        encoder_size=32,
        stem=4,
        widths=(4, 8, 8, 8),
        units=(1, 1, 1, 1),
        style=8,
        head_width=8,
        noise=False,
        channels={4: 8, 8: 8, 16: 8, 32: 8},
        detail_widths=(8, 8, 8),
        coordinates=True,
    )
    steps = {"generator": 30, "generator-fine": 2, "invert": 3, "swap": 6, "swap-fine": 30}
    stages = {name: StageConfig(n, 1 if name.endswith("fine") else 2) for name, n in steps.items()}
    loop = Loop(12, 2, precision="bf16", average=0.998, log_every=100, save_every=400)
    loss = mattface_demo.LOSS | {"identity": 0.0, "features": 0.0}
    optimisers = mattface_demo.optimisers(2)
    return TripletRecipe("tiny", loop, optimisers, stages=stages, config=config, size=32, loss=loss)


def with_steps(recipe: TripletRecipe, **steps: int) -> TripletRecipe:
    """The recipe with other lengths of stages; "_" stands for "-"."""
    changed = {name.replace("_", "-"): count for name, count in steps.items()}
    stages = {name: replace(s, steps=changed.get(name, s.steps)) for name, s in recipe.stages.items()}
    return replace(recipe, stages=stages)


def begin(recipe: TripletRecipe, name: str, store=None):
    torch.manual_seed(recipe.loop.seed)
    feed = PositionFeed(TripletSamples(store or MemoryStore(), recipe.loop.seed))
    return stage(recipe, name, build_network(recipe.config), feed)


def train(recipe: TripletRecipe, store, folder) -> torch.nn.Module:
    made = begin(recipe, "swap", store)
    return fit(made.task, made.feed, made.loop, folder, recipe, "cpu", quiet=True)["network"]


@pytest.mark.slow
def test_a_tiny_run_learns_and_an_interrupted_one_ends_alike(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    recipe = replace(tiny_recipe(), loop=replace(tiny_recipe().loop, save_every=6))
    straight = train(recipe, MemoryStore(), whole)
    with pytest.raises(InterruptedError):
        train(recipe, Interrupted(4), parts)
    again = train(recipe, MemoryStore(), parts)
    for (name, a), b in zip(straight.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert (parts / "tiny.safetensors").exists() and not list(parts.glob("*.partial"))


class Interrupted(MemoryStore):
    """A store that is pulled out from under the run after some batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def batch(self, indices):
        if self.left == 0:
            raise InterruptedError
        self.left -= 1
        return super().batch(indices)


def trained_parts(network) -> set[str]:
    return {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}


def test_the_generator_stands_still_once_it_can_draw():
    inverting, swapping = (begin(tiny_recipe(), name).task.network for name in ("invert", "swap"))
    assert "generate" not in trained_parts(inverting) and {"encoder", "invert"} <= trained_parts(inverting)
    assert trained_parts(swapping) == {"encoder", "transfer", "invert", "blend", "correspond"}
    known = begin(replace(tiny_recipe(), start="somewhere"), "invert").task.network
    assert trained_parts(known) == {"invert"}, "an encoder that is known already stays as it is"


def test_the_fine_stage_trains_only_the_blocks_above_the_others():
    network = begin(replace(tiny_recipe(), size=16), "swap-fine").task.network
    chosen = [n for n, p in network.named_parameters() if p.requires_grad]
    assert chosen and all(n.startswith("blend") and "32" in n for n in chosen), chosen


def test_a_known_encoder_stays_as_it_is_while_the_heads_learn(tmp_path):
    made = begin(replace(tiny_recipe(), start="somewhere"), "invert")
    encoder = made.task.network.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    heads = made.task.network.invert.heads[0].linear.weight.detach().clone()
    fit(made.task, made.feed, made.loop, tmp_path, tiny_recipe(), "cpu", quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(made.task.network.invert.heads[0].linear.weight, heads)


@pytest.mark.slow
def test_the_heads_learn_what_codes_people_have(tmp_path):
    made = begin(with_steps(tiny_recipe(), invert=30), "invert")
    batch = MemoryStore().batch([0, 1]).known
    before = made.task.terms(batch, None)["side"]
    fit(made.task, made.feed, made.loop, tmp_path, tiny_recipe(), "cpu", quiet=True)
    with torch.no_grad():
        assert made.task.terms(batch, None)["side"] < 0.95 * before


def test_training_may_start_from_a_checkpoint_of_the_same_sizes(tmp_path):
    recipe, other = tiny_recipe(), replace(tiny_recipe().config, style=12)
    torch.manual_seed(7)
    network = build_network(recipe.config)
    metadata = {"config": recipe.config.to_json(), "method": "mattface", "name": "tiny"}
    save_weights(tmp_path / "known.safetensors", network.state_dict(), metadata)
    found, latents, notes = triplets.start_network(replace(recipe, start=str(tmp_path / "known.safetensors")))
    assert latents is None and "start from" in notes[0] and "fresh" not in notes[0]
    for (name, a), b in zip(found.state_dict().items(), network.state_dict().values(), strict=True):
        assert torch.equal(a, b.half().float() if b.is_floating_point() else b), name  # as files keep it
    with pytest.raises(WeightsError, match="of the recipe's sizes"):
        triplets.start_network(replace(recipe, config=other, start=str(tmp_path / "known.safetensors")))
    with pytest.raises(WeightsError, match="nobody"):
        triplets.start_network(replace(recipe, start="nobody"))
