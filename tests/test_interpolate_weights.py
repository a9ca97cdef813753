"""Weights between two checkpoints of one network."""

import pytest
import torch
from safetensors.torch import save_file

from mattface import weights
from mattface.errors import UsageError, WeightsError
from mattface.training.tools.interpolate_weights import interpolate_weights, main


@pytest.fixture
def ends(tmp_path):
    """Two checkpoints; the second carries more, as a run that fits latents does."""
    first = {"a": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
    second = {"a": torch.tensor([1.0, 4.0]), "count": torch.tensor(5), "latents.mean": torch.tensor([7.0])}
    save_file(first, tmp_path / "start.safetensors", {"config": "{}"})
    save_file(second, tmp_path / "end.safetensors", {"config": "{}", "training": "100 images"})
    return str(tmp_path / "start.safetensors"), str(tmp_path / "end.safetensors"), tmp_path / "out.safetensors"


def test_a_part_of_the_way_is_taken_and_the_rest_is_the_ends(ends):
    interpolate_weights(*ends[:2], 0.25, ends[2])
    found, metadata = weights.load_tensors(ends[2])
    assert found["a"].tolist() == [0.25, 2.5] and found["count"] == 5 and found["latents.mean"] == 7
    assert metadata == {"config": "{}", "training": "0.25 of 100 images"}


def test_other_networks_and_ratios_are_rejected(ends, tmp_path, capsys):
    save_file({"b": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="a differs"):
        interpolate_weights(ends[0], str(tmp_path / "other.safetensors"), 0.5, ends[2])
    with pytest.raises(UsageError, match="ratio from 0 to 1"):
        interpolate_weights(*ends[:2], 1.5, ends[2])
    with pytest.raises(UsageError, match=r"FILE\.safetensors"):
        interpolate_weights(*ends[:2], 0.5, tmp_path / "out.pt")
    assert not ends[2].exists()


def test_the_command_says_what_is_wrong_in_one_line(ends, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["between", ends[0], "nothing-here", "--out", str(ends[2])])
    assert main() == 5
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr("sys.argv", ["between", *ends[:2], "--ratio", "1", "--out", str(ends[2])])
    assert main() == 0 and weights.load_tensors(ends[2])[0]["a"].tolist() == [1.0, 4.0]
