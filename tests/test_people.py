"""The generator learns to draw people: pictures, mirror images, codes, and who takes the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import self_pair, smooth_picture, tiny_recipe

from mattface.embed import Embedder
from mattface.embed.resnet import DIM, SIZE, IdentityResNet, chip_matrix
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import Latents
from mattface.mesh import topology
from mattface.mesh.shape import canonical
from mattface.methods.mattface import build_network
from mattface.training import framing, people
from mattface.training.framing import Framed
from mattface.training.judge_networks import ResNetMaps
from mattface.training.judges import Frozen
from mattface.training.loop import fit
from mattface.training.pairs import PairStore, pack
from mattface.training.task import Optimiser
from mattface.training.tasks import Data, pairs


def store(count: int = 2) -> PairStore:
    """Faces swapped with themselves, packed."""
    pair = self_pair(count, 32)
    return PairStore({k: torch.stack([pack(k, x) for x in v]) for k, v in vars(pair).items()})


def face(size: int) -> tuple[np.ndarray, torch.Tensor]:
    """A turned mean face as a (468, 3) mesh in pixels, and its (1, 3, S, S) places."""
    mean = topology().mean
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    mesh = np.column_stack([mean[:, :2] @ turn.T, mean[:, 2]]) * (size / 5) + [size * 0.5, size * 0.45, 0]
    return mesh, torch.from_numpy(canonical(mesh, size))[None]


def judges() -> Frozen:
    """An identity network that knows nobody, with its feature maps."""
    torch.manual_seed(3)
    network = IdentityResNet().eval().requires_grad_(False)
    embedder = Embedder("resnet", network, DIM, SIZE, lambda mesh, points: chip_matrix(mesh))
    return Frozen(identity=embedder, framing="own", features=ResNetMaps(network))


def test_a_face_is_framed_by_its_places_as_by_its_landmarks():
    mesh, places = face(128)
    expected = chip_matrix(mesh)
    for size in (128, 256):
        found = chip_matrix(framing.meshes_at(places, size)[0].double().numpy())
        scaled = expected @ np.diag([128 / size, 128 / size, 1])
        corners = np.linalg.inv(scaled) @ np.array([[0, 150, 0], [0, 0, 150], [1, 1, 1]])
        assert np.abs(found @ corners - scaled @ corners).max() < 4, "pixels of the 150 pixel chip"


def test_likeness_is_perfect_for_the_same_picture_and_pulls_at_another():
    judge, (_, places) = judges(), face(64)
    image = smooth_picture(2, 64, 1)
    there = Framed(image, places.expand(2, -1, -1, -1))
    assert framing.likeness_loss(judge, there, [there, there]) == pytest.approx(0, abs=1e-5)
    assert framing.chip_loss(judge, image, there) == pytest.approx(0, abs=1e-5)
    other = smooth_picture(2, 64, 2).requires_grad_()
    loss = framing.likeness_loss(judge, Framed(other, there.places), [there]) + framing.chip_loss(judge, other, there)
    loss.backward()
    assert loss > 0 and other.grad.abs().sum() > 0


def test_chips_need_a_network_that_gives_features():
    _, places = face(64)
    with pytest.raises(UsageError, match="chips need judges"):
        framing.chip_loss(Frozen(), smooth_picture(1, 64, 1), Framed(smooth_picture(1, 64, 1), places))


def test_the_second_half_are_mirror_images():
    shown = people.Shown.sources(store(3))
    assert shown.count == 6
    batch = shown.batch(torch.tensor([1, 4]))
    assert torch.equal(batch["image"][1], batch["image"][0].flip(-1))
    assert torch.equal(batch["places"][1, 0], -batch["places"][0, 0].flip(-1)), "left is right"
    assert torch.equal(batch["places"][1, 1:], batch["places"][0, 1:].flip(-1))


@pytest.mark.slow
def test_the_generator_and_the_codes_are_found_together(tmp_path):
    recipe, shown = tiny_recipe(), people.Shown.sources(store())
    torch.manual_seed(1)
    network = build_network(recipe.config)
    learner = people.People(network.generate, shown.count)
    before, feed = learner.codes.detach().clone(), people.PeopleFeed(shown, 0)
    task = people.PeopleTask(recipe, network, learner, Optimiser("adam", 0.01), 32, "generator", judges())
    batch = shown.batch(torch.arange(4))
    with torch.no_grad():
        first = task.terms(batch, None)
    fit(task, feed, pairs.loop_of(recipe, 60, 2), tmp_path, recipe, "cpu", quiet=True)
    with torch.no_grad():
        last = task.terms(batch, None)
    assert last["drawn"] < 0.8 * first["drawn"] and last["features"] < first["features"]
    assert not torch.allclose(learner.codes, before, atol=0.05)
    kept = load_file(tmp_path / "tiny.safetensors")
    assert kept["latents.mean"].shape == before.shape[1:], "whoever draws from the file finds them"
    assert torch.equal(kept["generate.b4.const"], learner.generate.b4.const.detach().half())


def passed(recipe, tmp_path: Path, monkeypatch) -> dict:
    """The stages in order, each of them taken for done as it is."""
    monkeypatch.setattr(pairs, "store_of", lambda recipe, data: (store(), ("told",)))
    monkeypatch.setattr(pairs, "pictures", lambda root: [])
    made = {}
    for stage in pairs.stages(recipe, Data(tmp_path), torch.device("cpu")):
        made[stage.name] = stage
        stage.result = dict(stage.task.networks)
    return made


def test_swapping_goes_on_with_the_generator_and_carries_the_latents(tmp_path, monkeypatch):
    made = passed(tiny_recipe(), tmp_path, monkeypatch)
    assert list(made) == ["generator", "invert", "swap"], "without portraits nothing is fine"
    assert all(stage.notes == ("told",) for stage in made.values())
    learner = made["generator"].task.people
    assert torch.equal(made["swap"].task.network.generate.b4.const, learner.generate.b4.const)
    expected = Latents.fit(learner.codes.detach())
    for name in ("invert", "swap"):
        assert torch.equal(made[name].task.latents.axes, expected.axes)


def test_latents_of_the_start_are_kept_where_nobody_is_drawn(tmp_path, monkeypatch):
    recipe = replace(tiny_recipe(), draw_fine_steps=0)
    first = passed(recipe, tmp_path, monkeypatch)["swap"].task
    first.export(first.networks, tmp_path, "now")
    again = replace(recipe, draw_steps=0, start=str(tmp_path / "tiny.safetensors"))
    made = passed(again, tmp_path, monkeypatch)
    assert list(made) == ["invert", "swap"]
    assert torch.allclose(made["swap"].task.latents.axes, first.latents.axes, atol=1e-3)


def test_fine_steps_alone_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"draw_fine_steps needs draw_steps.*got 2 and 0"):
        passed(replace(tiny_recipe(), draw_steps=0), tmp_path, monkeypatch)


def test_a_missing_identity_network_is_named_with_the_way_around(tmp_path, monkeypatch):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path))
    asking = replace(tiny_recipe(), loss=tiny_recipe().loss | {"identity": 0.5})
    with pytest.raises(WeightsError, match=r"judge resnet \(--set loss.identity=0.*weights pull identity-resnet"):
        passed(asking, tmp_path, monkeypatch)
