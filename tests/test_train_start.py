"""`start=NAME` starts from NAME: every task loads what it is told, part by part, and rejects what does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from test_data import triplet_folder
from torch import nn

from mattface.errors import WeightsError
from mattface.training.config import Data
from mattface.training.launch import find_recipe
from mattface.training.losses.networks.loading import LoadedNetworks
from mattface.training.models.start import load_start
from mattface.training.models.swapper import build_swapper
from mattface.training.tasks import swap

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["mattface", "alphaface", "alphaface-paper", "facechanger", "magicmask"])
def test_a_swap_training_starts_from_the_weights_it_is_told(tmp_path, name, monkeypatch):
    recipe = find_recipe(name, True, [])
    torch.manual_seed(1)
    known = build_swapper(recipe)
    file = tmp_path / "known.safetensors"
    save_file({k: v.contiguous() for k, v in known.state_dict().items()}, file)
    torch.manual_seed(2)
    monkeypatch.setattr(swap, "load_loss_networks", lambda *_: LoadedNetworks())
    recipe = dataclasses.replace(find_recipe(name, True, [f"start={file}"]), loss={"masked": 1.0})
    stage = next(swap.stages(recipe, Data(triplet_folder(tmp_path / "data", 4, size=64), held_out=0), CPU))
    started = stage.task.networks["swapper"].state_dict()
    assert all(torch.equal(value, started[key]) for key, value in known.state_dict().items())
    assert f"start from {file}" in stage.notes[-1]


def test_a_name_that_is_not_here_is_rejected_instead_of_loading_the_official_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="nobody"):
        load_start(build_swapper(find_recipe("mattface", True, [])), "nobody")


def test_parts_that_the_file_has_are_loaded_whole_and_the_others_stay(tmp_path):
    network = nn.ModuleDict({"encoder": nn.Linear(2, 2), "blend": nn.Linear(2, 2)})
    before = network["blend"].weight.clone()
    half = {"encoder.weight": torch.ones(2, 2).half(), "encoder.bias": torch.zeros(2), "mapping.weight": torch.ones(1)}
    save_file(half, tmp_path / "part.safetensors")
    (note,) = load_start(network, str(tmp_path / "part.safetensors"))
    assert note.startswith("encoder start from") and note.endswith("blend are fresh")
    assert network["encoder"].weight.eq(1).all() and network["encoder"].weight.dtype == torch.float32
    assert torch.equal(network["blend"].weight, before)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"mapping.weight": torch.ones(1)}, r"must hold parts of this network \(encoder\); it holds mapping"),
        ({"encoder.weight": torch.ones(3, 3), "encoder.bias": torch.ones(3)}, "encoder"),
        ({"encoder.weight": torch.ones(2, 2)}, "encoder"),
    ],
)
def test_other_networks_are_rejected(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_start(nn.ModuleDict({"encoder": nn.Linear(2, 2)}), str(tmp_path / "other.safetensors"))
