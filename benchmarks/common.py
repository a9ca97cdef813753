"""The measuring contract: warm up, synchronise, many runs, median and range, and where it was measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mattface import __version__


def measure(work: Callable[[], Any], warm_up: int = 1, runs: int = 5) -> dict[str, float]:
    """Seconds of `work`.

    Args:
        work: what to time; called `warm_up + runs` times.
        warm_up: calls that are not counted.
        runs: calls that are.

    Returns:
        "median", "fastest", "slowest" seconds and "runs".
    """
    for _ in range(warm_up):
        work()
    seconds = []
    for _ in range(runs):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds), "runs": runs}


def synchronise() -> None:
    """Waits until the GPU, if one is in use, has finished what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def surroundings() -> dict[str, Any]:
    """What a number means nothing without: machine, versions, commit."""
    cuda = torch.cuda.is_available()
    return {
        "mattface": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _commit() -> str | None:
    """Commit of the checkout this file lies in, with "+" when something is changed; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def save(numbers: dict[str, Any], path: Path) -> None:
    """Writes numbers and surroundings as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"surroundings": surroundings(), **numbers}, indent=2) + "\n", encoding="utf-8")


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Prints a line per row."""
    print(title)
    for name, row in rows.items():
        print(f"  {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float)), flush=True)
