"""The live loop: old frames are dropped and counted, cameras may vanish, sources may change, files end well."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av", reason="av is not installed")

from clips import SIZE, Told, clip, face_at, frames, still, swapper  # noqa: E402
from PIL import Image  # noqa: E402

from mattface import cli  # noqa: E402
from mattface.errors import DeviceError, InputError, NoFaceError, UsageError, WeightsError  # noqa: E402
from mattface.realtime import faces as faces_module  # noqa: E402
from mattface.realtime.capture import Camera, Player  # noqa: E402
from mattface.realtime.encoding import Encoding  # noqa: E402
from mattface.realtime.faces import Cast, Watcher  # noqa: E402
from mattface.realtime.loop import Closed, Loop, Mailbox, Painter, Shot  # noqa: E402
from mattface.realtime.meter import Times  # noqa: E402
from mattface.realtime.sinks import VideoFile, VirtualCamera, Window  # noqa: E402
from mattface.realtime.track import LIVE, Tracked, Tracker  # noqa: E402
from mattface.vocabulary import Face  # noqa: E402

FACE = face_at(80, 64, 24)
FAST = Encoding(quality=20, preset="ultrafast", live=True)


def shots(count: int, pause: float = 0.0) -> Iterator[Shot]:
    for k in range(count):
        time.sleep(pause)
        yield Shot(k, still(k % 3), k / 30, time.perf_counter())


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
    assert report["dropped"]["swap"] == 40 - len(indices) and report["frames"] == {
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
    assert times.told()["p99"] == pytest.approx(99, abs=0.6)


def painter(told: Told, cast: Cast | None = None, **config: Any) -> Painter:
    ours = swapper(told, **config)
    return Painter(ours, cast or Cast(ours, still(7)))


def tracked(face: Face, number: int = 0, role: int | None = 0) -> Tracked:
    return Tracked(number, face, role)


def test_a_frame_without_faces_passes_through_and_others_change_inside_their_boxes() -> None:
    paint, shot = painter(Told(FACE)), next(shots(1))
    assert paint(shot).pixels is shot.pixels
    ignored = paint(replace(shot, tracks=(tracked(FACE, role=None),)))
    assert ignored.pixels is shot.pixels and not ignored.boxes
    before = shot.pixels.copy()
    done = paint(replace(shot, tracks=(tracked(FACE),)))
    (left, top, right, bottom) = done.boxes[0]
    outside = np.ones(SIZE[::-1], bool)
    outside[top:bottom, left:right] = False
    np.testing.assert_array_equal(shot.pixels, before)
    np.testing.assert_array_equal(done.pixels[outside], before[outside])
    assert (done.pixels != before).any()


def test_deep_frames_stay_deep() -> None:
    shot = next(shots(1))
    deep = replace(shot, pixels=shot.pixels.astype(np.uint16) * 257, tracks=(tracked(FACE),))
    done = painter(Told(FACE))(deep)
    assert done.pixels.dtype == np.uint16 and done.pixels.max() > 255 and (done.pixels % 257).any()


def test_the_crop_keeps_its_size_while_the_face_hardly_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    paint, sizes = painter(Told(FACE)), []
    original = paint.swapper.swap_face

    def noted(*args: Any) -> Any:
        sizes.append(args[4])
        return original(*args)

    monkeypatch.setattr(paint.swapper, "swap_face", noted)
    for k, scale in enumerate((70, 74, 66, 72, 110, 108)):
        pixels = still(1, (480, 480))
        paint(Shot(k, pixels, k / 30, 0.0, tracks=(tracked(face_at(240, 240, scale)),)))
    assert len(set(sizes[:4])) == 1 and sizes[4] > sizes[0] * 1.25 and sizes[5] == sizes[4]


def test_the_matte_does_not_flicker_on_a_still_clip_with_noise() -> None:
    """A still face whose landmarks and pixels are noisy, as a webcam's are: steadied against not steadied."""
    rng = np.random.default_rng(0)
    picture, place = still(5, (320, 320)), face_at(160, 160, 60)
    noisy = [np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    flicker = {}
    for steadied in (False, True):
        told = Told(place)
        told.noise = 0.5
        ours = swapper(told)
        follow, paint = Tracker(ours.detector, ours.landmarker), Painter(ours, Cast(ours, still(7, (320, 320))))
        mattes, original = [], ours.swap_face

        def noted(*args: Any, original: Any = original, kept: Any = mattes, steadied: bool = steadied) -> Any:
            crop, swap, pasted = original(*(args if steadied else args[:-1]))
            kept.append(pasted.whole_matte())
            return crop, swap, pasted

        ours.swap_face = noted  # type: ignore[method-assign]
        for k, pixels in enumerate(noisy):
            seen = follow(pixels, k / 30)
            if not steadied:
                seen = tuple(replace(t, face=told.measure(pixels, t.face)) for t in seen)
            paint(Shot(k, pixels, k / 30, 0.0, tracks=seen))
        flicker[steadied] = float(np.array(mattes[8:]).var(axis=0).mean())
    assert flicker[True] < 0.25 * flicker[False], flicker


class Plug:
    """A camera that can be pulled out: gives frames while `here`, and counts how often it was opened."""

    def __init__(self) -> None:
        self.here, self.opened, self.released, self.given = True, 0, 0, 0
        self.failing_after: int | None = None

    def open(self) -> Plug:
        self.opened += 1
        return self

    def isOpened(self) -> bool:
        return self.here

    def read(self) -> tuple[bool, Any]:
        if not self.here or self.given == self.failing_after:
            self.here = False
            return False, None
        self.given += 1
        time.sleep(0.002)
        return True, np.full((48, 64, 3), (10, 20, 30), np.uint8)

    def release(self) -> None:
        self.released += 1


def test_an_unplugged_camera_is_waited_for_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mattface.realtime.capture.RETRY", 0.02)
    plug, said, stop = Plug(), [], threading.Event()
    plug.failing_after = 5
    seen: list[Shot] = []

    def back() -> None:
        plug.failing_after, plug.here = None, True

    for shot in Camera(plug.open, "camera 7", said.append, stop):
        seen.append(shot)
        if len(seen) == 4:
            threading.Timer(0.2, back).start()
        if len(seen) == 12:
            stop.set()
    assert said == ["camera 7 is gone; waiting for it", "camera 7 is back"]
    assert [s.index for s in seen] == list(range(12)) and plug.opened > 3 and plug.released >= plug.opened - 1
    assert seen[5].time - seen[4].time > 0.1
    np.testing.assert_array_equal(seen[0].pixels[0, 0], [30, 20, 10])  # RGB


def test_waiting_for_a_camera_can_be_ended_and_none_at_all_is_an_error() -> None:
    plug, stop = Plug(), threading.Event()
    plug.failing_after = 2
    threading.Timer(0.1, stop.set).start()
    assert len(list(Camera(plug.open, "camera 0", lambda _: None, stop))) == 2
    plug.here = False
    with pytest.raises(InputError, match="none can be opened"):
        next(iter(Camera(plug.open, "camera 0", lambda _: None, threading.Event())))


def test_a_played_file_keeps_its_pace_and_can_be_repeated(tmp_path: Path) -> None:
    source, stop = clip(tmp_path / "in.mp4", 10), threading.Event()
    began, seen = time.perf_counter(), list(Player(source, stop))
    assert 0.3 < time.perf_counter() - began < 2.0 and len(seen) == 10
    repeated = []
    for shot in Player(source, stop, repeat=True, paced=False):
        repeated.append(shot)
        if len(repeated) == 25:
            stop.set()
    times = [s.time for s in repeated]
    assert times == sorted(set(times)) and [s.index for s in repeated] == list(range(25))


def colour(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((128, 160, 3), (red, green, blue), np.uint8)


def test_faces_are_told_apart_by_reference_pictures() -> None:
    ours = swapper(Told(FACE))
    cast = Cast(ours, still(7), [(colour(250, 100, 100), still(8)), (colour(100, 250, 100), still(9))])
    assert cast.told_apart
    assert [cast(colour(*c), FACE) for c in ((240, 110, 100), (90, 200, 100), (100, 100, 250))] == [1, 2, 0]
    alone = Cast(ours, None, [(colour(250, 100, 100), still(8))])
    assert [alone(colour(*c), FACE) for c in ((240, 110, 100), (100, 100, 250))] == [1, None]
    assert alone.identity(1).method == "mesh"
    ours.embedder = None
    with pytest.raises(WeightsError, match="identity-resnet"):
        Cast(ours, None, [(still(1), still(2))])
    with pytest.raises(UsageError, match="got neither"):
        Cast(ours)


def test_a_source_is_replaced_while_running_unless_it_has_no_face() -> None:
    told = Told(FACE)
    ours = swapper(told)
    with pytest.raises(NoFaceError):
        Cast(swapper(Told()), still(7))
    cast = Cast(ours, still(7))
    shot = replace(next(shots(1)), tracks=(tracked(FACE),))

    def paint(one: Shot) -> Shot:
        return Painter(ours, cast)(one)

    first = paint(shot).pixels
    cast.replace(colour(255, 40, 40))
    second = paint(shot).pixels
    assert (first != second).any()
    told.faces = []
    with pytest.raises(NoFaceError):
        cast.replace(still(8))
    np.testing.assert_array_equal(paint(shot).pixels, second)
    with pytest.raises(UsageError, match="role from 0 to 0"):
        cast.replace(still(8), role=3)


def test_a_watched_file_is_taken_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces_module, "POLL", 0.02)
    path, told, said = tmp_path / "alice.png", Told(FACE), []
    Image.fromarray(still(7)).save(path)
    cast = Cast(swapper(told), str(path))
    before = cast.identity(0)

    def until(count: int) -> None:
        for _ in range(250):
            if len(said) >= count:
                return
            time.sleep(0.02)

    with Watcher(cast, path, 0, said.append):
        Image.fromarray(still(8, (170, 130))).save(path)
        until(1)
        assert said == [f"{path}: new source"] and cast.identity(0) is not before
        kept, told.faces = cast.identity(0), []
        Image.fromarray(still(9, (180, 140))).save(path)
        until(2)
        assert "the source before stays" in said[1] and cast.identity(0) is kept
        path.unlink()
        time.sleep(0.1)
    assert len(said) == 2


def test_a_recorded_file_has_the_times_of_capture_and_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    sink = VideoFile(target, FAST)
    for k, shot in enumerate(shots(8)):
        sink.show(replace(shot, time=[0, 0.03, 0.07, 0.1, 0.5, 0.53, 0.56, 0.6][k]))
        assert not target.exists() and len(list(tmp_path.iterdir())) == 1
    sink.close()
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    np.testing.assert_allclose([t for t, _ in frames(target)], [0, 0.03, 0.07, 0.1, 0.5, 0.53, 0.56, 0.6], atol=1e-4)
    with av.open(str(target)) as container:
        assert container.metadata["AISystemUsed"] == "mattface"
    with pytest.raises(InputError, match="the file exists"):
        VideoFile(target, FAST)
    with pytest.raises(InputError, match="ending in"):
        VideoFile(tmp_path / "out.gif", FAST)


def test_odd_camera_pictures_are_recorded_as_they_are(tmp_path: Path) -> None:
    sink = VideoFile(tmp_path / "out.mkv", FAST, mark=False)
    for shot in shots(3):
        sink.show(replace(shot, pixels=np.ascontiguousarray(shot.pixels[:-1, :-1])))
    sink.close()
    assert frames(tmp_path / "out.mkv")[0][1].shape == (127, 159, 3)


def test_virtual_cameras_need_a_device_and_get_whole_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="v4l2loopback"):
        VirtualCamera(str(tmp_path / "video9"))
    (tmp_path / "video9").touch()
    sink = VirtualCamera(str(tmp_path / "video9"), container="rawvideo")
    for shot in shots(3):
        sink.show(shot)
    sink.close()
    assert (tmp_path / "video9").stat().st_size == 3 * SIZE[0] * SIZE[1] * 2
    ordinary = VirtualCamera(str(tmp_path / "video9"))
    with pytest.raises(InputError, match="refuses"):
        ordinary.show(next(shots(1)))
    ordinary.close()


def test_a_window_without_a_display_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if os.name != "posix" or os.uname().sysname == "Darwin":
        pytest.skip("windows need no DISPLAY here")
    with pytest.raises(DeviceError, match="--output FILE"):
        Window(threading.Event())


def test_a_window_shows_frames_and_ends_the_loop_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a toolkit that only notes what it is told, since tests have no display."""
    noted: dict[str, Any] = {"updates": 0, "destroyed": 0, "keys": {}}

    class Root:
        def title(self, text: str) -> None:
            noted["title"] = text

        def protocol(self, name: str, work: Any) -> None:
            noted[name] = work

        def bind(self, key: str, work: Any) -> None:
            noted["keys"][key] = work

        def update(self) -> None:
            noted["updates"] += 1

        def destroy(self) -> None:
            noted["destroyed"] += 1

    class Label:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def pack(self) -> None: ...
        def configure(self, image: Any) -> None:
            noted["image"] = image

    toolkit = SimpleNamespace(Tk=Root, Label=Label, TclError=RuntimeError, PhotoImage=lambda data, format: data)
    monkeypatch.setitem(sys.modules, "tkinter", toolkit)
    stop = threading.Event()
    window, shot = Window(stop), next(shots(1))
    window.show(shot)
    window.show(replace(shot, pixels=shot.pixels.astype(np.uint16) * 257))
    window.tell("31 fps")
    head = b"P6 %d %d 255 " % SIZE
    assert noted["image"] == head + shot.pixels.tobytes() and noted["updates"] == 2 and noted["title"] == "31 fps"
    noted["keys"]["q"](None)
    assert stop.is_set() and set(noted["keys"]) == {"q", "<Escape>"} and noted["WM_DELETE_WINDOW"] == stop.set
    window.close()
    window.close()
    assert noted["destroyed"] == 1


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A source picture; the command line sees what it is told."""
    from mattface.cli import moving

    def build(args: Any, options: dict[str, Any]) -> Any:
        ours = swapper(Told(FACE))
        return ours, Cast(ours, args.source or None, args.map)

    monkeypatch.setattr(moving, "build", build)
    Image.fromarray(still(7)).save(tmp_path / "alice.png")
    return str(tmp_path / "alice.png")


def test_the_command_plays_records_and_reports(alice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = clip(tmp_path / "in.mp4", 12), tmp_path / "out.mp4"
    given = ["live", "-s", alice, "--input", str(source), "--output", str(target)]
    assert cli.main([*given, "--report", str(tmp_path / "r.json")]) == 0
    assert "fps, latency p50" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames"]["captured"] == 12 and set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert report["frames"]["shown"] + sum(report["dropped"].values()) == 12
    assert len(frames(target)) == report["frames"]["shown"] > 0
    assert cli.main(given) == 3 and "the file exists" in capsys.readouterr().err
    assert cli.main(["live", "-s", alice, "--loop", "--output", str(tmp_path / "o.mp4")]) == 2


def test_ctrl_c_ends_a_live_run_with_a_finished_file(
    alice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = clip(tmp_path / "in.mp4", 25), tmp_path / "out.mp4"
    threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    given = ["live", "-s", alice, "--input", str(source), "--loop", "--output", str(target), "--watch"]
    assert cli.main(given) == 0
    assert "stopping" in capsys.readouterr().err and len(frames(target)) > 5
    assert cli.main([*given, "--overwrite", "--seconds", "0.8", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_missing_camera_is_said_and_leaves_nothing(
    alice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug = Plug()
    plug.here = False
    monkeypatch.setattr("mattface.realtime.capture.open_camera", lambda *_: plug)
    assert cli.main(["live", "-s", alice, "--camera", "3", "--output", str(tmp_path / "out.mp4")]) == 3
    assert "camera 3: expected a camera" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alice.png"]


def test_pairs_are_read_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["live", "--map", "bob.jpg"])
    assert "REFERENCE=SOURCE" in capsys.readouterr().err
    assert cli.main(["live", "--input", __file__, "--output", "x.mp4"]) in (2, 3)


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
