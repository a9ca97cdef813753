"""The measuring contract."""

from __future__ import annotations

import json
import time
from pathlib import Path

from mattface.benchmarks import common
from mattface.examples import example_pair


def test_warm_up_is_not_counted() -> None:
    waits = iter([0.2, 0.01, 0.05, 0.02])
    found = common.measure(lambda: time.sleep(next(waits)), warm_up=1, runs=3)
    assert 0.02 <= found["median"] < 0.05 <= found["slowest"] < 0.2
    assert found["fastest"] <= found["median"]
    assert found["runs"] == 3


def test_numbers_are_saved_with_where_they_come_from(tmp_path: Path) -> None:
    common.save({"a": 1}, tmp_path / "new" / "n.json")
    saved = json.loads((tmp_path / "new" / "n.json").read_text())
    assert saved["a"] == 1
    assert {"commit", "torch", "processor", "threads", "gpu"} <= set(saved["surroundings"])


def test_the_example_pair_ships_with_its_packages() -> None:
    pair = example_pair()
    assert set(pair) == {"hopper", "astronaut"}
    assert all(path.stat().st_size > 10_000 for path in pair.values())
