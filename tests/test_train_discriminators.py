"""The discriminator whose batch comes in parts, and the phases that see the whole batch."""

from __future__ import annotations

import torch
from trainee import CONFIG, ToyFeed, ToyTask, toy_loop

from mattface.training.loop import concatenate, fit
from mattface.training.models.discriminators import AccumulatedDiscriminator, build_global_discriminator
from mattface.training.task import Batch, Clock, Phase, Terms


def discriminator(batch: int) -> AccumulatedDiscriminator:
    torch.manual_seed(0)
    return build_global_discriminator(32, 2, batch)


def test_a_micro_batch_of_one_is_compared_with_remembered_fakes():
    network = discriminator(6)
    assert network.group == 3 and network.fakes.shape[0] == 2
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = network.features(pictures)
    network.remember(features[1:])
    group = network.network.b4(features[:3])[:1]
    torch.testing.assert_close(network(pictures[:1]), group)
    alone = discriminator(1)
    alone.network.load_state_dict(network.network.state_dict())
    assert not torch.allclose(alone(pictures[:1]), group), "of one picture alone the batch deviation is 0"
    assert "fakes" in network.state_dict(), "a run that continues remembers them"


def test_a_whole_batch_is_scored_without_memory():
    network = discriminator(6)
    pictures = torch.rand(6, 3, 32, 32) * 2 - 1
    before = network(pictures)
    network.remember(torch.randn_like(network.features(pictures)))
    assert torch.equal(network(pictures), before)


def test_a_gathered_phase_sees_all_micro_batches_at_once(tmp_path):
    seen: list[int] = []

    class Gathered(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.phases = (*self.phases, Phase("whole", "discriminator", self.whole, {"r1": 1.0}, gathered=True))

        def whole(self, batch: Batch, clock: Clock) -> Terms:
            seen.append(len(batch["image"]))
            assert len(batch["made"]) == len(batch["image"]), "what earlier phases left is there too"
            return self.r1(batch, clock)

    fit(Gathered(), ToyFeed(), toy_loop(images=8, accumulate=4), tmp_path, CONFIG, "cpu", quiet=True)
    assert seen == [4, 4]


def test_lists_and_tensors_are_concatenated():
    found = concatenate([{"x": torch.zeros(1, 2), "caption": ["a"]}, {"x": torch.ones(2, 2), "caption": ["b", "c"]}])
    assert found["x"].shape == (3, 2) and found["caption"] == ["a", "b", "c"]
