"""How long frames take, and how many there were: exact, and of constant size however long a run is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BIN, BINS = 0.00025, 8000
"""Latency histogram: seconds per bin, bins; what takes longer falls into the last."""


@dataclass
class Times:
    """Latencies as a histogram: exact to a quarter of a millisecond, and of constant size."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[min(BINS - 1, max(0, int(seconds / BIN)))] += 1

    def percentile(self, share: float) -> float | None:
        """Seconds within which `share` percent lie; None when nothing was counted."""
        total = int(self.counts.sum())
        if not total:
            return None
        return float((np.searchsorted(np.cumsum(self.counts), share / 100 * total) + 1) * BIN)

    def summary(self) -> dict[str, float | None]:
        """p50, p95 and p99 in milliseconds."""
        found = {f"p{p}": self.percentile(p) for p in (50, 95, 99)}
        return {name: None if s is None else round(s * 1000, 2) for name, s in found.items()}


class Meter:
    """Counts and times of a run."""

    def __init__(self) -> None:
        self.latency = Times()
        self.stages = {name: Times() for name in ("track", "swap", "show")}
        self.captured = self.shown = self.with_faces = 0
        self.began = self.ended = time.perf_counter()

    def report(self, dropped: dict[str, int]) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        seconds = max(self.ended - self.began, 1e-9)
        step = int(0.005 / BIN)
        grouped = self.latency.counts.reshape(-1, step).sum(1)
        return {
            "frames": {"captured": self.captured, "shown": self.shown, "with_faces": self.with_faces},
            "dropped": dropped,
            "seconds": round(seconds, 3),
            "fps": round(self.shown / seconds, 2),
            "latency_ms": self.latency.summary(),
            "latency_histogram": {f"{k * 5} ms": int(n) for k, n in enumerate(grouped) if n},
            "stage_ms": {name: times.summary() for name, times in self.stages.items()},
        }
