"""Several processes: the same losses whether everyone keeps everything (DDP) or a share (FSDP2), and either goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainee import CONFIG, ToyFeed, ToyTask, toy_loop

from mattface.errors import UsageError
from mattface.training import checkpoint
from mattface.training.distributed.processes import World
from mattface.training.loop import Run, fit

PROGRAM = Path(__file__).parent / "trainee.py"
UNSURE = ("maker.0.bias", "maker.1.running_mean")
"""Normalisation removes the bias before it: its gradient is rounding, which Adam makes large."""


def together(folder: Path, parallel: str) -> None:
    """The toy training by two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(PROGRAM), str(folder), "0", "96", parallel]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=280)
    assert json.loads((folder / "environment.json").read_text())["parallel"] == parallel


def rows(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def end(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Networks and optimisers of the last checkpoint."""
    path = checkpoint.latest(folder)
    return load_file(path / "networks.safetensors"), torch.load(path / "optimisers.pt", weights_only=True)


def assert_alike(one: Path, other: Path) -> None:
    """The same losses, weights, averages, moments and scores, to rounding."""
    assert len(rows(one)) == len(rows(other)) == 26
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    (networks, optimisers), (others, moments) = end(one), end(other)
    assert networks.keys() == others.keys() and "average.maker.4.gain" in networks
    for name, tensor in networks.items():
        assert tensor.shape == others[name].shape
        if not name.endswith(UNSURE):
            assert torch.allclose(tensor, others[name], atol=1e-4), name
    for name in ("maker", "discriminator"):
        assert optimisers[name]["param_groups"] == moments[name]["param_groups"]
        for index, state in optimisers[name]["state"].items():
            for key, value in state.items():
                assert torch.allclose(value, moments[name]["state"][index][key], atol=1e-5), (name, index, key)


@pytest.mark.slow
def test_shares_train_as_replicas_do_and_either_goes_on_from_the_other(tmp_path):
    replicas, shares, mixed = (tmp_path / name for name in ("ddp", "fsdp2", "mixed"))
    together(replicas, "ddp")
    together(shares, "fsdp2")
    assert_alike(replicas, shares)
    for begun, goes_on in ((replicas, "fsdp2"), (shares, "ddp")):
        shutil.rmtree(mixed, ignore_errors=True)
        shutil.copytree(begun, mixed)
        shutil.rmtree(checkpoint.latest(mixed))  # as if it had been killed after 80 of 96 images
        assert checkpoint.latest(mixed).name.endswith("80")
        together(mixed, goes_on)
        assert_alike(replicas, mixed)


def test_shares_are_rejected_where_they_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match=r"fsdp2 needs several processes.*torchrun --nproc-per-node"):
        fit(ToyTask(), ToyFeed(), toy_loop(), tmp_path, CONFIG, "cpu", quiet=True, parallel="fsdp2")
    with pytest.raises(UsageError, match=r"parallel must be one of ddp, fsdp2; got 'zero'"):
        fit(ToyTask(), ToyFeed(), toy_loop(), tmp_path, CONFIG, "cpu", quiet=True, parallel="zero")
    cuda = World(0, 2, torch.device("cuda"), "fsdp2")
    with pytest.raises(UsageError, match="fsdp2 trains in fp32 or bf16; got fp16"):
        Run(ToyTask(), toy_loop(precision="fp16"), tmp_path, cuda)
    assert not list(tmp_path.iterdir())
