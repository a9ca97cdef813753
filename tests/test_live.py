"""The live loop: old frames are dropped and counted, errors in any stage end it; it costs little."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cameras import shots

from mattface.realtime.loop import Closed, Loop, Mailbox, Shot
from mattface.realtime.meter import Times
from mattface.realtime.track import LIVE, Tracked

pytest.importorskip("av", reason="av is not installed")


class Kept:
    """A sink that keeps what it is shown."""

    def __init__(self) -> None:
        self.shots: list[Shot] = []
        self.closed = 0

    def show(self, shot: Shot) -> None:
        self.shots.append(shot)

    def close(self) -> None:
        self.closed += 1


def nobody(_rgb: np.ndarray, _time: float) -> tuple[Tracked, ...]:
    return ()


def test_a_full_mailbox_drops_the_oldest_or_makes_the_sender_wait() -> None:
    box, kept = Mailbox(2, drop=True), [replace(s, index=k) for k, s in enumerate(shots(5))]
    for shot in kept:
        box.put(shot)
    assert box.dropped == 3 and [box.get().index, box.get().index] == [3, 4]  # type: ignore[union-attr]
    assert box.get(0.01) is None
    waiting = Mailbox(1, drop=False)
    sender = threading.Thread(target=lambda: [waiting.put(s) for s in kept], daemon=True)
    sender.start()
    assert [waiting.get().index for _ in kept] == [0, 1, 2, 3, 4] and waiting.dropped == 0  # type: ignore[union-attr]
    sender.join()
    waiting.close()
    with pytest.raises(Closed):
        waiting.get()
    waiting.cut()
    with pytest.raises(Closed):
        waiting.put(kept[0])


def test_a_slow_stage_drops_old_frames_counts_them_and_keeps_the_delay_short() -> None:
    sink = Kept()
    loop = Loop(shots(40, 0.005), nobody, lambda shot: (time.sleep(0.03), shot)[1], sink)
    loop.run()
    report, indices = loop.report(), [s.index for s in sink.shots]
    assert indices == sorted(indices) and 5 <= len(indices) < 25
    assert report["dropped"]["swap"] > 5 and sum(report["dropped"].values()) == 40 - len(indices)
    assert report["frames"] == {
        "captured": 40, "shown": len(indices), "with_faces": 0}  # fmt: skip
    assert 30 <= report["latency_ms"]["p50"] <= 150 and sink.closed == 1
    assert sum(report["latency_histogram"].values()) == len(indices)


def test_off_line_nothing_is_dropped() -> None:
    sink = Kept()
    loop = Loop(shots(25), nobody, lambda shot: (time.sleep(0.002), shot)[1], sink, drop=False)
    loop.run()
    assert [s.index for s in sink.shots] == list(range(25)) and sum(loop.report()["dropped"].values()) == 0


@pytest.mark.parametrize("stage", ["capture", "track", "swap", "show"])
def test_an_error_in_any_stage_ends_the_loop_and_is_raised_there(stage: str) -> None:
    sink = Kept()

    def broken(*_: Any) -> Any:
        raise RuntimeError(f"{stage} broke")

    def failing() -> Iterator[Shot]:
        yield from shots(2)
        broken()

    if stage == "show":
        sink.show = broken  # type: ignore[method-assign]
    loop = Loop(failing() if stage == "capture" else shots(10_000, 0.001), broken if stage == "track" else nobody,
                broken if stage == "swap" else lambda s: s, sink)  # fmt: skip
    began = time.perf_counter()
    with pytest.raises(RuntimeError, match=f"{stage} broke"):
        loop.run()
    assert time.perf_counter() - began < 5 and sink.closed == 1


def test_stop_ends_the_loop_and_reports_are_told() -> None:
    stop, sink, told = threading.Event(), Kept(), []
    threading.Timer(1.3, stop.set).start()
    Loop(shots(10_000, 0.01), nobody, lambda s: s, sink).run(stop, told.append)
    assert told and told[0]["frames"]["shown"] > 10 and told[0]["latency_ms"]["p99"] is not None


def test_percentiles_come_out_of_the_histogram() -> None:
    times = Times()
    assert times.percentile(50) is None
    for k in range(1000):
        times.add(k / 10_000)
    times.add(100.0)
    assert times.percentile(50) == pytest.approx(0.05, abs=0.0006)
    assert times.percentile(95) == pytest.approx(0.095, abs=0.0006)
    assert times.summary()["p99"] == pytest.approx(99, abs=0.6)


def test_memory_stays_flat_and_the_loop_costs_little(need: Callable[..., None]) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from mattface.benchmarks import live

    told = live.overhead(40, (320, 240))
    assert told["empty"]["frames"]["shown"] == told["one_face"]["frames"]["with_faces"] == 40
    assert told["empty"]["wall_ms_per_frame"] < 3
    flat = live.memory(400, (160, 120))
    assert flat["frames"] == 400 and flat["growth_mb"] < 8
    assert LIVE.most == 1
