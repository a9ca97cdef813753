"""The loop: goes on after being killed as if nothing had happened, and stops before anything is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainee import CONFIG, ToyFeed, ToyTask, toy_loop

from mattface.errors import DeviceError, InputError, UsageError, WeightsError
from mattface.training import checkpoint
from mattface.training.config import Loop, Optimiser
from mattface.training.loop import DivergedError, fit

PROGRAM = Path(__file__).parent / "trainee.py"


def train(folder: Path, loop: Loop | None = None, **options: Any) -> dict[str, torch.nn.Module]:
    feed = options.pop("feed", ToyFeed())
    config = options.pop("config", CONFIG)
    return fit(ToyTask(), feed, loop or toy_loop(), folder, config, "cpu", quiet=True, **options)


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def started(folder: Path, pause: float = 0.0, *prefix: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *prefix, str(PROGRAM), str(folder), str(pause)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(folder: Path, images: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        last = checkpoint.latest(folder) if folder.exists() else None
        if last is not None and int(last.name.removeprefix(checkpoint.PREFIX)) >= images:
            return
        time.sleep(0.02)
    raise TimeoutError(f"no checkpoint of {images} images in {folder}")


@pytest.mark.slow
def test_killed_and_restarted_losses_equal_the_uninterrupted_ones_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert started(whole).wait(timeout=120) == 0
    first = started(parts, 0.15)
    wait_for(parts, 32)
    time.sleep(0.2)  # into the steps after the checkpoint, whose lines must go
    first.send_signal(signal.SIGKILL)
    assert first.wait(timeout=60) == -signal.SIGKILL
    begun = len(rows(parts))
    assert started(parts).wait(timeout=120) == 0
    assert 8 <= begun < len(rows(whole)) == 26
    assert rows(parts) == rows(whole)
    ends = [load_file(checkpoint.latest(f) / "networks.safetensors") for f in (whole, parts)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


@pytest.mark.slow
def test_terminated_saves_the_step_it_is_in_and_says_so(tmp_path):
    process = started(tmp_path, 0.1)
    wait_for(tmp_path, 16)
    time.sleep(0.15)
    process.terminate()
    assert process.wait(timeout=60) == 143
    images = int(checkpoint.latest(tmp_path).name.removeprefix(checkpoint.PREFIX))
    assert images > 16
    assert rows(tmp_path)[-1]["images"] == images
    train(tmp_path, toy_loop(accumulate=1))
    assert rows(tmp_path)[-1]["images"] == 96


def test_training_learns_and_leaves_a_complete_folder(tmp_path):
    train(tmp_path, toy_loop(images=400, grid_every=200, score_every=200))
    photo = [row["maker/photo"] for row in rows(tmp_path) if "maker/photo" in row]
    assert sum(photo[-10:]) < 0.75 * sum(photo[:10])
    names = {p.name for p in tmp_path.iterdir()}
    assert {"config.json", "environment.json", "metrics.jsonl", "grids", "exported.txt"} <= names
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["checkpoint-000000000384", "checkpoint-000000000400"]
    assert len(list((tmp_path / "grids").iterdir())) == 2
    assert [row["images"] for row in rows(tmp_path) if "score/weight" in row] == [200, 400]
    assert (tmp_path / "exported.txt").read_text() == "400 of 400 images"
    assert not list(tmp_path.rglob("*.partial"))


def test_micro_batches_add_up_to_the_batch(tmp_path):
    """Plain gradients of the mean are those of the parts; batch statistics and random numbers differ, so none here."""

    class Plain(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.networks["maker"] = torch.nn.Conv2d(3, 3, 1)
            self.phases = self.phases[:1]

        def maker(self, batch, clock):
            return {"photo": (self.networks["maker"](batch["image"]) - batch["image"]).abs().mean()}

    torch.manual_seed(3)
    start = {k: v.clone() for k, v in torch.nn.Conv2d(3, 3, 1).state_dict().items()}
    ends = []
    for parts in (1, 4):
        task = Plain()
        task.networks["maker"].load_state_dict(start)
        fit(task, ToyFeed(), toy_loop(accumulate=parts), tmp_path / str(parts), CONFIG, "cpu", quiet=True)
        ends.append(task.networks["maker"].weight.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert not torch.allclose(ends[0], start["weight"], atol=1e-2)


def test_a_phase_trains_its_own_network_only(tmp_path):
    class Watched(ToyTask):
        def discriminator(self, batch, clock):
            assert not any(p.requires_grad for p in self.networks["maker"].parameters())
            return super().discriminator(batch, clock)

        def maker(self, batch, clock):
            assert not any(p.requires_grad for p in self.networks["discriminator"].parameters())
            return super().maker(batch, clock)

    fit(Watched(), ToyFeed(), toy_loop(images=8), tmp_path, CONFIG, "cpu", quiet=True)


def test_a_changed_config_is_rejected_unless_asked_for(tmp_path):
    train(tmp_path, toy_loop(images=16))
    with pytest.raises(UsageError, match=r"width: 8 -> 9.*--allow-change"):
        train(tmp_path, config={"name": "toy", "width": 9})
    train(tmp_path, config={"name": "toy", "width": 9}, allow_change=True)
    assert rows(tmp_path)[-1]["images"] == 96
    assert json.loads((tmp_path / "config.json").read_text())["width"] == 9


def test_a_folder_of_another_recipe_is_rejected_whatever_is_asked_for(tmp_path):
    train(tmp_path, toy_loop(images=16))
    with pytest.raises(UsageError, match="run of the recipe toy; got other"):
        train(tmp_path, config={"name": "other", "width": 8}, allow_change=True)


def test_a_checkpoint_of_other_networks_is_rejected(tmp_path):
    train(tmp_path, toy_loop(images=16))
    task = ToyTask()
    task.networks["maker"] = torch.nn.Conv2d(3, 3, 5)
    with pytest.raises(WeightsError, match="other networks than this recipe's: maker"):
        fit(task, ToyFeed(), toy_loop(), tmp_path, CONFIG, "cpu", quiet=True)


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(tmp_path):
    with pytest.raises(DivergedError, match=r"maker/photo.*step 6.*checkpoint-000000000016"):
        train(tmp_path, feed=ToyFeed(poison=25))
    found = torch.load(tmp_path / "diverged.pt", weights_only=True)
    assert found["step"] == 6
    images = torch.cat([b["image"] for b in found["batches"]])
    assert len(images) == 4 and images[1].isnan().all() and not images[0].isnan().any()
    train(tmp_path)  # without the bad sample it goes on
    assert rows(tmp_path)[-1]["images"] == 96


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    train(tmp_path, toy_loop(images=32))
    good = checkpoint.latest(tmp_path)
    before = {p.name: p.read_bytes() for p in good.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(InputError, match=r"No space left.*checkpoint-000000000032, stays"):
        train(tmp_path, toy_loop(images=64), allow_change=True, config=CONFIG)
    assert checkpoint.latest(tmp_path) == good
    assert {p.name: p.read_bytes() for p in good.iterdir()} == before
    assert not list(tmp_path.glob("checkpoint-*.partial"))
    monkeypatch.undo()
    train(tmp_path, toy_loop(images=64))
    assert rows(tmp_path)[-1]["images"] == 64


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(tmp_path, toy_loop(images=16))
    (checkpoint.latest(tmp_path) / "networks.safetensors").write_bytes(b"short")
    with pytest.raises(WeightsError, match="checkpoint-000000000016 must be a whole checkpoint"):
        train(tmp_path)


def test_settings_that_cannot_be_are_rejected(tmp_path):
    with pytest.raises(UsageError, match="multiple of accumulate"):
        toy_loop(accumulate=3)
    with pytest.raises(UsageError, match="precision must be one of"):
        toy_loop(precision="fp8")
    with pytest.raises(DeviceError, match="CUDA device for fp16"):
        train(tmp_path, toy_loop(precision="fp16"))
    with pytest.raises(UsageError, match="optimiser kind must be one of"):
        Optimiser("lion")
    with pytest.raises(UsageError, match="every > 0"):
        Optimiser(schedule="step")


def test_tensorboard_is_rejected_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        train(tmp_path, tensorboard=True)


def test_tensorboard_reads_what_a_run_and_its_continuation_wrote(tmp_path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    train(tmp_path, toy_loop(images=16), tensorboard=True)
    train(tmp_path, toy_loop(images=32), tensorboard=True)
    found = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    written = {row["images"]: row["maker/loss"] for row in rows(tmp_path)}
    read = {event.step: event.value for event in found.Scalars("maker/loss")}
    assert list(read) == [4, 8, 12, 16, 20, 24, 28, 32] and read == pytest.approx(written)


def test_mixed_precision_reaches_the_networks(tmp_path):
    seen = []

    class Watched(ToyTask):
        def maker(self, batch, clock):
            seen.append(self.networks["maker"][0](batch["image"]).dtype)
            return super().maker(batch, clock)

    fit(Watched(), ToyFeed(), toy_loop(images=4, precision="bf16"), tmp_path, CONFIG, "cpu", quiet=True)
    assert set(seen) == {torch.bfloat16}


def test_rates_warm_up_and_follow_their_schedule():
    cosine = Optimiser(lr=2.0, schedule="cosine", warmup=40)
    found = [cosine.lr_at(images, 4, 400) for images in range(0, 404, 4)]
    assert found[0] == pytest.approx(0.2) and max(found) == pytest.approx(2.0) and found[-1] == pytest.approx(0)
    step = replace(cosine, schedule="step", warmup=0, factor=0.5, every=100)
    assert [step.lr_at(i, 4, 400) for i in (0, 99, 100, 399)] == pytest.approx([2, 2, 1, 0.25])
    assert Optimiser(lr=3.0).lr_at(399, 4, 400) == 3.0


@pytest.mark.slow
def test_two_processes_share_a_batch_and_stay_alike(tmp_path):
    """torchrun, gloo: the folder is written once, and a run continues with as many processes."""
    prefix = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert started(tmp_path, 0.0, *prefix).wait(timeout=280) == 0
    assert json.loads((tmp_path / "environment.json").read_text())["processes"] == 2
    found = rows(tmp_path)
    assert sorted({row["images"] for row in found}) == list(range(4, 100, 4))
    photo = [row["maker/photo"] for row in found if "maker/photo" in row]
    assert sum(photo[-6:]) < sum(photo[:6])
