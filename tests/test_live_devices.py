"""Where live pictures come from and go: cameras that vanish, played files, recordings, virtual cameras, windows."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cameras import Plug, shots
from clips import SIZE, clip, frames

from mattface.errors import DeviceError, InputError
from mattface.provenance import Settings
from mattface.provenance.laying import Laying
from mattface.realtime.capture import Camera, Player
from mattface.realtime.encoding import Encoding
from mattface.realtime.loop import Shot
from mattface.realtime.sinks import VideoFile, VirtualCamera, Window

av = pytest.importorskip("av", reason="av is not installed")

FAST = Encoding(quality=20, preset="ultrafast", live=True)


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
    sink = VideoFile(tmp_path / "out.mkv", FAST, laying=Laying(Settings.of(False)))
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
    with pytest.raises(InputError, match="takes no frames"):
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
    window.set_title("31 fps")
    head = b"P6 %d %d 255 " % SIZE
    assert noted["image"] == head + shot.pixels.tobytes() and noted["updates"] == 2 and noted["title"] == "31 fps"
    noted["keys"]["q"](None)
    assert stop.is_set() and set(noted["keys"]) == {"q", "<Escape>"} and noted["WM_DELETE_WINDOW"] == stop.set
    window.close()
    window.close()
    assert noted["destroyed"] == 1
