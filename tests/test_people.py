"""The generator learns to draw people: pictures, mirror images, codes, and who takes the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import self_pair, smooth_picture, tiny_recipe, with_steps

from mattface.embed import Embedder
from mattface.embed.resnet import DIM, SIZE, IdentityResNet, chip_matrix
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import Latents
from mattface.mesh import topology
from mattface.mesh.shape import canonical_coordinates
from mattface.methods.mattface import build_network
from mattface.training.config import Data, Optimiser
from mattface.training.data.feed import PositionFeed
from mattface.training.data.people_pictures import PeoplePictures
from mattface.training.data.triplet_batch import pack
from mattface.training.data.triplets import MemoryTriplets
from mattface.training.loop import fit
from mattface.training.losses import chips
from mattface.training.losses.chips import LocatedFaces
from mattface.training.losses.networks.features import ResNetMaps
from mattface.training.losses.networks.loading import LoadedNetworks
from mattface.training.tasks import people, triplets


def store(count: int = 2) -> MemoryTriplets:
    """Faces swapped with themselves, packed."""
    pair = self_pair(count, 32)
    return MemoryTriplets({k: torch.stack([pack(k, x) for x in v]) for k, v in pair.known.items()})


def face(size: int) -> tuple[np.ndarray, torch.Tensor]:
    """A turned mean face as a (468, 3) mesh in pixels, and its (1, 3, S, S) canonical coordinates."""
    mean = topology().mean
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    mesh = np.column_stack([mean[:, :2] @ turn.T, mean[:, 2]]) * (size / 5) + [size * 0.5, size * 0.45, 0]
    return mesh, torch.from_numpy(canonical_coordinates(mesh, size))[None]


def seeded_networks() -> LoadedNetworks:
    """An identity network that knows nobody, with its feature maps."""
    torch.manual_seed(3)
    network = IdentityResNet().eval().requires_grad_(False)
    embedder = Embedder("resnet", network, DIM, SIZE, lambda mesh, points: chip_matrix(mesh))
    return LoadedNetworks(identity=embedder, framing="own", features=ResNetMaps(network))


def test_a_face_is_framed_by_its_canonical_coordinates_as_by_its_landmarks():
    mesh, where = face(128)
    expected = chip_matrix(mesh)
    for size in (128, 256):
        found = chip_matrix(chips.meshes_at(where, size)[0].double().numpy())
        scaled = expected @ np.diag([128 / size, 128 / size, 1])
        corners = np.linalg.inv(scaled) @ np.array([[0, 150, 0], [0, 0, 150], [1, 1, 1]])
        assert np.abs(found @ corners - scaled @ corners).max() < 4, "pixels of the 150 pixel chip"


def test_likeness_is_perfect_for_the_same_picture_and_pulls_at_another():
    networks, (_, where) = seeded_networks(), face(64)
    image = smooth_picture(2, 64, 1)
    there = LocatedFaces(image, where.expand(2, -1, -1, -1))
    assert chips.likeness_loss(networks, there, [there, there]) == pytest.approx(0, abs=1e-5)
    assert chips.chip_loss(networks, image, there) == pytest.approx(0, abs=1e-5)
    other = smooth_picture(2, 64, 2).requires_grad_()
    loss = chips.likeness_loss(networks, LocatedFaces(other, there.canonical), [there])
    loss = loss + chips.chip_loss(networks, other, there)
    loss.backward()
    assert loss > 0 and other.grad.abs().sum() > 0


def test_chips_need_networks_that_give_features():
    _, where = face(64)
    with pytest.raises(UsageError, match="face chips need"):
        chips.chip_loss(LoadedNetworks(), smooth_picture(1, 64, 1), LocatedFaces(smooth_picture(1, 64, 1), where))


def test_the_second_half_are_mirror_images():
    shown = PeoplePictures.of_sources(store(3), 0)
    assert shown.count == 6
    batch = shown.pictures(torch.tensor([1, 4]))
    assert torch.equal(batch["image"][1], batch["image"][0].flip(-1))
    assert torch.equal(batch["canonical"][1, 0], -batch["canonical"][0, 0].flip(-1)), "left is right"
    assert torch.equal(batch["canonical"][1, 1:], batch["canonical"][0, 1:].flip(-1))


@pytest.mark.slow
def test_the_generator_and_the_codes_are_found_together(tmp_path):
    recipe, shown = tiny_recipe(), PeoplePictures.of_sources(store(), 0)
    torch.manual_seed(1)
    network = build_network(recipe.config)
    learner = people.People(network.generate, shown.count)
    before, feed = learner.codes.detach().clone(), PositionFeed(shown)
    task = people.PeopleTask(recipe, network, learner, Optimiser("adam", 0.01), 32, "generator", seeded_networks())
    batch = shown.pictures(torch.arange(4))
    with torch.no_grad():
        first = task.terms(batch, None)
    fit(task, feed, with_steps(recipe, generator=60).stage_loop("generator"), tmp_path, recipe, "cpu", quiet=True)
    with torch.no_grad():
        last = task.terms(batch, None)
    assert last["drawn"] < 0.8 * first["drawn"] and last["features"] < first["features"]
    assert not torch.allclose(learner.codes, before, atol=0.05)
    kept = load_file(tmp_path / "tiny.safetensors")
    assert kept["latents.mean"].shape == before.shape[1:], "whoever draws from the file finds them"
    assert torch.equal(kept["generate.b4.const"], learner.generate.b4.const.detach().half())


def passed(recipe, tmp_path: Path, monkeypatch) -> dict:
    """The stages in order, each of them taken for done as it is."""
    monkeypatch.setattr(triplets, "load_triplets", lambda recipe, data: (store(), ("told",)))
    monkeypatch.setattr(triplets, "pictures_in", lambda root: [])
    made = {}
    for stage in triplets.stages(recipe, Data(tmp_path), torch.device("cpu")):
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
    recipe = with_steps(tiny_recipe(), generator_fine=0)
    first = passed(recipe, tmp_path, monkeypatch)["swap"].task
    first.export(first.networks, tmp_path, "now")
    again = replace(with_steps(recipe, generator=0), start=str(tmp_path / "tiny.safetensors"))
    made = passed(again, tmp_path, monkeypatch)
    assert list(made) == ["invert", "swap"]
    assert torch.allclose(made["swap"].task.latents.axes, first.latents.axes, atol=1e-3)


def test_fine_steps_alone_are_rejected(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"generator-fine needs stage generator.*got 2 and 0"):
        passed(with_steps(tiny_recipe(), generator=0), tmp_path, monkeypatch)


def test_a_missing_identity_network_is_named_with_the_way_around(tmp_path, monkeypatch):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path))
    asking = replace(tiny_recipe(), loss=tiny_recipe().loss | {"identity": 0.5})
    with pytest.raises(WeightsError, match=r"network resnet \(--set loss.identity=0.*weights pull identity-resnet"):
        passed(asking, tmp_path, monkeypatch)
