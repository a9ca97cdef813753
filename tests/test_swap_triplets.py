"""Swap trainings on triplets: samples stay true under augmentation, and swap networks learn from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import shard
from test_train_swaps import CPU, rows, toy_networks

from mattface import perception
from mattface.align import sixty_eight
from mattface.data.topology import SIXTY_EIGHT
from mattface.errors import InputError, UsageError
from mattface.measure.held_out import is_held_out
from mattface.mesh import topology
from mattface.training import losses
from mattface.training.config import Data, LossNetworks, SwapRecipe
from mattface.training.data import augment
from mattface.training.data.augment import MIRROR, mirror_landmarks
from mattface.training.data.face_batch import take_face
from mattface.training.data.mesh_triplets import MeshTripletMaker, eight_bit
from mattface.training.data.portraits import training_portraits
from mattface.training.data.triplet_batch import Triplets
from mattface.training.data.triplets import ShardTriplets, SwapTriplets
from mattface.training.launch import find_recipe
from mattface.training.loop import fit
from mattface.training.losses.network_losses import framing_matrix
from mattface.training.studio import stream
from mattface.training.studio.triplet import Triplet
from mattface.training.tasks import swap

__all__ = ["toy_networks"]
SIZE = 64


def triplet(seed: int, size: int = SIZE) -> Triplet:
    """A source of one colour; a target with a disc, which the swap has in the source's colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] + 0.5
    disc = (np.hypot(x - size / 2, y - size / 2) < size / 3).astype(np.float32)
    colour, other = rng.integers(30, 220, 3), rng.integers(10, 90, 3)
    source, target = np.full((size, size, 3), colour, np.uint8), np.full((size, size, 3), other, np.uint8)
    target += rng.integers(0, 20, target.shape, np.uint8)
    target[disc > 0] = 255 - target[disc > 0]
    swapped = np.where(disc[..., None] > 0, source, target).astype(np.uint8)
    mean = topology().mean * size / 4
    marks = np.concatenate([sixty_eight(mean) + size / 2, np.zeros((68, 1))], 1).astype(np.float32)
    none = np.zeros((size, size), np.float32)
    return Triplet(
        source, target, swapped, flow=np.stack([x, y], -1).astype(np.float32), visible=disc, matte=disc, mask=disc,
        occluder=none, depth=none, landmarks={"source": marks, "target": marks}, coefficients={}, kind="head",
        seed=seed, notes=(f"p{seed % 3}", f"p{seed % 2}"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a shard of triplets, and a broken one."""
    folder = tmp_path_factory.mktemp("folder")
    files = {f"{k}.{n}": v for k in range(8) for n, v in stream.encode_triplet(triplet(k)).items()}
    shard(folder / "a.tar", files)
    (folder / "b.tar").write_bytes(b"rubbish" * 100)
    return folder


def test_samples_stay_true_when_they_are_mirrored_relit_and_covered(folder):
    triplets = ShardTriplets([folder], SIZE)
    samples = SwapTriplets(triplets, seed=3)
    assert "b.tar was left out" in triplets.notes[0] and samples.describe() == {"triplets": 8}
    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    seen = set()
    for position in range(0, 24, 4):
        batch = samples.batch(range(position, position + 4))
        outside = (batch["truth_matte"] == 0).expand(-1, 3, -1, -1)
        assert torch.equal(batch["truth_image"][outside], batch["target_image"][outside])
        inside = ((batch["truth_matte"] > 0.99) & (batch["truth_visible"] > 0.99)).expand(-1, 2, -1, -1)
        assert inside.any() and (batch["truth_flow"] - here).abs()[inside].max() < 1e-3
        again = samples.batch(range(position, position + 4))
        assert all(torch.equal(v, again[k]) for k, v in batch.items())
        for marks in (batch["source_landmarks"], batch["target_landmarks"]):
            assert marks.shape == (4, 68, 2)
            assert (marks[:, 0, 0] < marks[:, 16, 0]).all() and (marks[:, 36, 0] < marks[:, 45, 0]).all()
        seen |= set(batch["same"].tolist())
    assert seen == {0.0, 1.0}


def test_mirrored_landmarks_are_those_of_the_mirrored_mesh():
    partner = topology().mirror
    assert [SIXTY_EIGHT[k] for k in MIRROR] == [partner[k] for k in SIXTY_EIGHT]
    marks = torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(0)) * 50
    assert torch.allclose(mirror_landmarks(mirror_landmarks(marks, 64), 64), marks, atol=1e-5)


def test_moved_landmarks_stay_on_what_they_mark():
    """A white pixel is found again where its landmark was moved to."""
    picture, marks = torch.full((1, 3, 64, 64), -1.0), torch.full((1, 68, 2), 20.5)
    picture[..., 19:22, 19:22] = 1
    one = torch.ones(1, 1, 64, 64)
    batch = Triplets(picture, picture, picture, picture[:, :2], one, one, one, target_landmarks=marks)
    moved = augment.move_target(batch, torch.Generator().manual_seed(4))
    y, x = divmod(int(moved.target[0, 0].argmax()), 64)
    assert moved.target_landmarks is not None
    assert (moved.target_landmarks[0, 0] - torch.tensor([x + 0.5, y + 0.5])).abs().max() < 2 and (x, y) != (20, 20)


def test_the_identity_networks_framing_by_68_landmarks_is_that_by_the_mesh(need, faces):
    need("identity-resnet")
    embedder = perception.load("identity", "resnet")
    for _, face in faces.values():
        by_mesh, by_marks = embedder.matrix(face.mesh, face.points), framing_matrix(embedder, sixty_eight(face.mesh))
        size = np.ptp(face.mesh[:, :2], axis=0).max()
        there = np.linalg.inv(by_mesh) @ np.array([75.0, 75, 1]), np.linalg.inv(by_marks) @ np.array([75.0, 75, 1])
        assert np.hypot(*(there[0] - there[1])[:2]) < 0.04 * size
        assert np.hypot(*by_mesh[0, :2]) == pytest.approx(np.hypot(*by_marks[0, :2]), rel=0.08)


def with_toy_embedder(recipe: SwapRecipe) -> SwapRecipe:
    """The recipe with a network that takes the toy's embeddings."""
    networks = LossNetworks("means", "whole")
    return dataclasses.replace(recipe, network=recipe.network | {"code": 16}, loss_networks=networks)


def test_a_network_learns_the_ground_truth(tmp_path, folder, toy_networks):
    recipe = find_recipe("alphaface-demo", True, ["loop.images=240", "loop.grid_every=120", "loop.save_every=120"])
    recipe = with_toy_embedder(recipe)
    (stage,) = swap.stages(recipe, Data(folder, held_out=0), CPU)
    assert any("b.tar" in note for note in stage.notes)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = rows(tmp_path / "run")
    assert {k.removeprefix("swap/") for k in found[0] if k.startswith("swap/")} == {*recipe.loss, "loss"}
    for name in ("supervised", "matte"):
        values = [row[f"swap/{name}"] for row in found]
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:3]), name
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "alphaface-demo.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["method"] == "alphaface-small" and json.loads(metadata["config"])["fold"] == 4


def test_a_result_keeps_the_target_outside_the_predicted_matte(folder, toy_networks):
    recipe = find_recipe("alphaface-demo", True, [])
    recipe = with_toy_embedder(recipe)
    (stage,) = swap.stages(recipe, Data(folder, held_out=0), CPU)
    faces = [take_face(stage.task.fixed, name) for name in ("source", "target")]
    made = stage.task.run(stage.task.networks["swapper"], *faces)
    assert made.matte is not None and made.drawn.shape == made.picture.shape
    expected = faces[1]["image"] * (1 - made.matte) + made.drawn * made.matte
    torch.testing.assert_close(made.picture, expected)


def test_the_flow_of_the_mattface_network_learns_from_the_ground_truth(tmp_path, folder, toy_networks):
    recipe = find_recipe("mattface", True, ["loop.images=6", "loop.score_every=0", 'network.detail="fine"'])
    loss, network = {"supervised": 1.0, "flow": 1.0}, {k: v for k, v in recipe.network.items() if k != "detail"}
    networks = LossNetworks("means", "whole")
    recipe = dataclasses.replace(recipe, loss=loss, loss_networks=networks, network=network)
    (stage,) = swap.stages(recipe, Data(folder, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    (row,) = rows(tmp_path / "run")
    assert row["swap/flow"] > 0 and row["swap/supervised"] > 0


def test_ground_truth_losses_are_rejected_by_name_without_any(tmp_path, folder, toy_networks):
    recipe = find_recipe("alphaface-demo", True, [])
    small = with_toy_embedder(recipe)
    with pytest.raises(InputError, match=r"losses matte, supervised need ground truth: .*mattface studio shards"):
        next(swap.stages(small, Data(tmp_path, held_out=0), CPU))
    with pytest.raises(InputError, match="expected triplets of 32 px"):
        next(swap.stages(dataclasses.replace(small, size=32), Data(folder, held_out=0), CPU))
    with pytest.raises(UsageError, match="go one way"):
        next(swap.stages(dataclasses.replace(small, both_ways=True), Data(folder, held_out=0), CPU))
    asked = dataclasses.replace(small, loss={"flow": 1.0})
    (stage,) = swap.stages(asked, Data(folder, held_out=0), CPU)
    with pytest.raises(UsageError, match=r"loss flow compares a flow of the network; .*alphaface-small gives none"):
        fit(stage.task, stage.feed, stage.loop, tmp_path / "run", asked, "cpu", quiet=True)


def test_mesh_swaps_are_of_training_portraits_only(need, shared, tmp_path):
    need("centerface", "face-mesh")
    folder = shared / "data" / "portraits"
    for path in [*training_portraits(folder)[:2], *[p for p in sorted(folder.iterdir()) if is_held_out(p.stem)][:2]]:
        (tmp_path / path.name).symlink_to(path)
    make = MeshTripletMaker(tmp_path, 64, same=0.3, seed=1)
    made = [make(k) for k in range(12)]
    assert len(make.swapper.crops) == 2
    assert {m.notes[0] == m.notes[1] for m in made} == {False, True}
    for one in made:
        assert not one.exact and one.landmarks["target"].shape == (68, 2)
        apart = np.abs(one.swap.astype(int) - one.target).max(-1)
        assert (apart[one.matte == 0] <= 1).all() or one.notes[0] != one.notes[1]
        carried = np.abs(one.flow - (np.mgrid[:64, :64][::-1].transpose(1, 2, 0) + 0.5))[one.matte > 0.9]
        assert (carried.max() < 1) if one.notes[0] == one.notes[1] else (carried.max() > 1)
    assert np.array_equal(make(3).swap, made[3].swap)


def test_eight_bit_rounds_to_the_nearest():
    levels = torch.arange(256).float() / 127.5 - 1
    assert np.array_equal(eight_bit(levels.expand(3, 1, 256))[0, :, 0], np.arange(256))


def test_supervised_losses_are_zero_at_the_truth_alone():
    torch.manual_seed(0)
    truth, matte = torch.rand(2, 3, 16, 16) * 2 - 1, torch.zeros(2, 1, 16, 16)
    matte[..., :8] = 1
    assert float(losses.supervised_loss(truth, truth, matte)) == 0
    inside, outside = truth + 0.1 * matte, truth + 0.1 * (1 - matte)
    assert losses.supervised_loss(inside, truth, matte) > 3 * losses.supervised_loss(outside, truth, matte) > 0
    assert float(losses.cover_loss(matte, matte)) == pytest.approx(0, abs=1e-3)
    wrong = (1 - matte).requires_grad_()
    loss = losses.cover_loss(wrong.clamp(1e-3, 1 - 1e-3), matte)
    loss.backward()
    assert loss > 3 and (wrong.grad * (matte - wrong) <= 0).all()
