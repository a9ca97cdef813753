"""Recipes hold the papers' numbers, take overrides, and train at tiny size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import triplet_folder

from mattface.cli import main
from mattface.errors import UsageError
from mattface.methods import METHODS, Entry
from mattface.training.config import Data
from mattface.training.data.catalogue import catalogue
from mattface.training.data.feed import face_sample
from mattface.training.launch import find_recipe
from mattface.training.loop import fit
from mattface.training.models.ada import Statistics, augment, draw_colours, draw_geometry
from mattface.training.models.swapper import method_module
from mattface.training.recipes import RECIPES
from mattface.training.tasks import generator, joint

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_are_frozen_complete_and_overridable(name):
    for tiny in (False, True):
        recipe = find_recipe(name, tiny, [])
        assert recipe.name == name and recipe.loop.images > 0
        json.dumps(dataclasses.asdict(recipe))
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.name = "other"


def test_the_papers_numbers():
    paper = find_recipe("mattface", False, [])
    assert (paper.loop.steps, paper.loop.batch, paper.same, paper.size) == (50_000, 6, 0.5, 1024)
    adam = paper.optimisers["swapper"]
    assert (adam.kind, adam.lr, adam.betas) == ("adam", 1e-4, (0.9, 0.999))
    assert set(paper.loss) == {"adversarial", "same", "perceptual", "identity", "shape"}
    script = find_recipe("alphaface", False, [])
    adamw = script.optimisers["swapper"]
    assert (adamw.kind, adamw.betas, adamw.decay, adamw.clip) == ("adamw", (0.0, 0.99), 5e-4, 1.0)
    rates = [adamw.lr_at(steps * 2, 2, script.loop.images) for steps in (0, 19_999, 20_000, 40_000)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.97e-4, 0.97**2 * 1e-4])
    assert (script.discriminator.form, script.discriminator.begins / script.loop.batch) == ("least-squares", 200_000)
    assert script.loss["identity"] == 10 and script.loss["self"] == 0.5
    magic = find_recipe("magicmask", False, [])
    assert [magic.loss[k] for k in ("identity", "masked", "feature", "self", "adversarial")] == [5, 2, 2, 2, 1]
    assert (magic.discriminator.kind, magic.size) == ("afsa", 224)
    changer = find_recipe("facechanger", False, [])
    assert changer.both_ways and changer.text == "always" and changer.loss["perceptual"] == 0.5
    assert changer.loss["weights"] > 0 and changer.caption_words == 69, "l1 beside eq. 10; less than 70 words"
    assert magic.both_ways, "end of section 3.3"
    assert paper.discriminator.gamma > 0


def test_overrides_reach_every_depth_and_keep_types():
    changes = ["loop.batch=12", "loss.identity=3", "loss_networks.perceptual=resnet-maps", "discriminator.width=8"]
    changed = find_recipe("mattface", False, changes)
    assert (changed.loop.batch, changed.loss["identity"], changed.discriminator.width) == (12, 3.0, 8)
    assert isinstance(changed.loss["identity"], float) and changed.loss_networks.perceptual == "resnet-maps"
    for bad, message in (
        ("loop.bach=1", "bach must be one of"),
        ("loop.batch=many", "expected a int"),
        ("loop", "KEY=VALUE"),
        ("name.x=1", "nothing lies below"),
    ):
        with pytest.raises(UsageError, match=message):
            find_recipe("mattface", False, [bad])
    with pytest.raises(UsageError, match="recipe must be one of"):
        find_recipe("simswap", False, [])


def test_a_network_this_installation_lacks_is_rejected(monkeypatch):
    recipe = find_recipe("alphaface", True, ["method=absent"])
    with pytest.raises(UsageError, match=r"method must be one of alphaface, .*got 'absent'"):
        method_module(recipe)
    monkeypatch.setitem(METHODS, "absent", Entry("mattface.realtime.methods.absent", "not here"))
    with pytest.raises(UsageError, match="recipe alphaface trains absent, which this installation does not have"):
        method_module(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("source=code", "source must be one of embedding, picture"),
        ("conditioning=depth", "conditioning must be one of none, depth-landmarks"),
        ("text=never", "text must be one of tau, always, margin"),
        ("discriminator.kind=big", "discriminator.kind must be one of global, patch, afsa"),
    ],
)
def test_choices_are_checked_when_a_recipe_is_made(change, message):
    with pytest.raises(UsageError, match=message):
        find_recipe("alphaface", True, [change])


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_generator_recipe_trains_with_every_penalty(tmp_path):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    recipe = find_recipe("generator", True, ["loop.images=32", "r1_every=2", "path_every=2", "span=100"])
    (stage,) = generator.stages(recipe, Data(data, held_out=0), CPU)
    start = stage.task.generator.mapping.w_avg.clone()
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = rows(tmp_path / "run")
    assert {"generator/adversarial", "path/path", "discriminator/adversarial", "r1/r1"} <= found[0].keys()
    assert "path/path" not in found[1] and "path/path" in found[2]
    assert not torch.equal(stage.task.generator.mapping.w_avg, start)
    assert stage.task.statistics.path > 0


def test_the_joint_recipe_learns_to_reproduce(tmp_path):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    changes = ["loop.images=160", "loop.score_every=160", "loss.perceptual=0", "loss.identity=0"]
    recipe = find_recipe("encoder-generator", True, changes)
    (stage,) = joint.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = [row for row in rows(tmp_path / "run") if "pair/photo" in row]
    assert np.mean([r["pair/photo"] for r in found[-4:]]) < 0.8 * np.mean([r["pair/photo"] for r in found[:4]])
    assert any("score/grey_levels" in row for row in rows(tmp_path / "run"))


def test_augmentation_is_off_at_zero_and_differs_from_picture_to_picture():
    torch.manual_seed(0)
    pictures = torch.rand(1, 3, 16, 16).expand(6, 3, 16, 16).clone().requires_grad_()
    assert augment(pictures, torch.tensor(0.0)) is pictures
    moved = augment(pictures, torch.tensor(0.8))
    assert all(not torch.allclose(moved[0], other) for other in moved[1:])
    moved.sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0


def test_augmentation_turns_flips_and_recolours_as_it_should():
    torch.manual_seed(0)
    matrix, offset = draw_colours(400, torch.tensor(1.0))
    grey = matrix @ torch.ones(3)
    assert torch.allclose(grey, grey.mean(1, keepdim=True).expand_as(grey), atol=1e-4)  # grey stays grey
    assert offset.std() == pytest.approx(0.2, rel=0.2)
    assert torch.allclose(draw_colours(3, torch.tensor(0.0))[0], torch.eye(3).expand(3, 3, 3), atol=1e-6)
    still = draw_geometry(3, 16, torch.tensor(0.0))
    assert torch.allclose(still, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3), atol=1e-6)
    found = draw_geometry(400, 16, torch.tensor(1.0))[:, :, :2]
    assert 0.3 < (torch.linalg.det(found) < 0).float().mean() < 0.7  # half of them are flipped


def test_augmentation_follows_the_sign_of_overfitting():
    statistics = Statistics()
    for _ in range(40):
        statistics.follow(torch.tensor(1.0), 0.6, 10, 1000)
    high = float(statistics.p)
    assert 0.2 < high <= 0.4
    for _ in range(60):
        statistics.follow(torch.tensor(0.0), 0.6, 10, 1000)
    assert float(statistics.p) < high
    assert set(statistics.state_dict()) == {"p", "sign", "path"}


def test_the_command_trains_plans_and_rejects(tmp_path, capsys):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    command = ["train", "generator", "--tiny", "--data", str(data), "--out", str(tmp_path / "run"), "--held-out", "0"]
    command += ["--set", "loop.images=16", "--device", "cpu"]
    assert main([*command, "--dry-run"]) == 0
    assert "phase path trains generator, every 4 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main(command) == 0
    assert (tmp_path / "run" / "generator.safetensors").exists()
    assert main([*command, "--set", "gamma=3"]) == 2
    assert "gamma" in capsys.readouterr().err
    assert main(["train", "simswap"]) == 2
    assert main(["train", "list"]) == 0
    assert "alphaface" in capsys.readouterr().out


def test_samples_have_landmarks_where_they_are_asked_for(tmp_path):
    record = catalogue(triplet_folder(tmp_path, 1)).records[0]
    assert "mesh" not in face_sample(record, 32, meshes=False)
    assert face_sample(record, 32, meshes=True)["mesh"].shape == (468, 3)
    assert face_sample(record, 32, True)["landmarks"].max() < 32
