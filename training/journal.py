"""The folder of a run: config, environment, metrics as JSON lines, picture grids."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from mattface import __version__
from mattface.errors import UsageError
from mattface.training.checkpoint import PARTIAL, write_json

CONFIG, METRICS = "config.json", "metrics.jsonl"


def as_json(value: Any) -> Any:
    """A config as JSON holds it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))


def config_changes(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two plain configs: "loop.batch: 6 -> 8"."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += config_changes(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]


def settle_config(folder: Path, config: dict[str, Any], allow_change: bool) -> None:
    """Writes the config of a new run, or compares it with that of the run to be continued.

    Raises:
        UsageError: the folder is another recipe's; or the config has changed and `allow_change` is off.
    """
    path = folder / CONFIG
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before.get("name") != config.get("name"):
            raise UsageError(
                f"{folder} is a run of the recipe {before.get('name')}; got {config.get('name')}. Take another folder."
            )
        found = config_changes(before, config)
        if found and not allow_change:
            raise UsageError(
                f"{folder} was begun with another config ({'; '.join(found[:6])}). Take another folder, or "
                "continue with the new one: --allow-change."
            )
        if not found:
            return
    write_json(path, config)


def environment(processes: int, device: torch.device, parallel: str) -> dict[str, Any]:
    """What a run depends on beside its config."""
    cuda = device.type == "cuda"
    return {
        "mattface": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": processes,
        "parallel": parallel,
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


class Journal:
    """Metrics of a run, one JSON line each, printed too; TensorBoard on request.

    Args:
        folder: of the run.
        images: where the run continues; lines beyond are of steps that were lost, and go.
        tensorboard: also write TensorBoard's files.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, images: int = 0, tensorboard: bool = False, quiet: bool = False) -> None:
        self.folder, self.quiet = folder, quiet
        self.path = folder / METRICS
        self.begun, self.since, self.seen = time.perf_counter(), time.perf_counter(), images
        self._cut(images)
        self.board: Any = None
        if tensorboard:
            if importlib.util.find_spec("tensorboard") is None:
                raise UsageError("expected TensorBoard; it is not installed. Type: pip install tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=images + 1)

    def _cut(self, images: int) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["images"] <= images]
        temporary = self.path.with_suffix(PARTIAL)
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def write(self, images: int, values: dict[str, float]) -> None:
        """Records numbers after `images` images, with the seconds per image since the last record."""
        now = time.perf_counter()
        pace = (now - self.since) / max(images - self.seen, 1)
        row = {"images": images, "seconds": round(now - self.begun, 3), "seconds_per_image": round(pace, 6), **values}
        self.since, self.seen = now, images
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, images)
        if not self.quiet:
            shown = " ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float | int))
            print(shown, flush=True)

    def grid(self, images: int, picture: torch.Tensor) -> None:
        """Writes a (3, H, W) picture in [-1, 1] as grids/IMAGES.png."""
        from PIL import Image

        pixels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        path = self.folder / "grids" / f"{images:012d}.png"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(PARTIAL)
        Image.fromarray(pixels).save(temporary, "PNG")
        os.replace(temporary, path)

    def close(self) -> None:
        """Finishes TensorBoard's files."""
        if self.board is not None:
            self.board.close()
