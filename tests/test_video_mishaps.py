"""Video files when things go wrong: runs that are ended or killed, full disks, damaged and foreign files."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import ENCODING, FACE, TICK, Told, clip, frames, run, sound_bytes, stamps, still, swapper

from mattface.errors import InputError
from mattface.realtime import loop as loop_module
from mattface.realtime.encoding import Encoder
from mattface.realtime.faces import Cast
from mattface.realtime.offline import Job, convert

av = pytest.importorskip("av", reason="av is not installed")


def test_stopping_leaves_a_playable_file_and_resuming_makes_it_whole(tmp_path: Path) -> None:
    source, stop = clip(tmp_path / "in.mp4", 23), threading.Event()
    told = Told(FACE)
    ours = swapper(told)
    cast = Cast(ours, still(7))

    def tell_after(number: int) -> Any:
        original = loop_module.Loop._show_one

        def show(self: Any, shot: Any) -> None:
            original(self, shot)
            if shot.index == number:
                stop.set()

        return show

    job = Job(str(source), str(tmp_path / "out.mp4"), encoding=ENCODING, part_frames=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.Loop, "_show_one", tell_after(11))
        first = convert(job, ours, cast, stop)
    assert not first["whole"] and len(frames(tmp_path / "out.mp4")) == 12
    heard, whole_sound = sound_bytes(tmp_path / "out.mp4"), sound_bytes(source)
    assert len(whole_sound) * 0.4 < len(heard) < len(whole_sound) * 0.65 and heard == whole_sound[: len(heard)]
    with pytest.raises(InputError, match="--resume"):
        convert(job, ours, cast)
    second = convert(replace(job, resume=True), ours, cast)
    assert second["whole"] and second["parts_reused"] == 2
    assert [t for t, _ in frames(tmp_path / "out.mp4")] == [float(n * TICK) for n in stamps(23)]
    assert sound_bytes(tmp_path / "out.mp4") == whole_sound
    assert not (tmp_path / "out.mp4.parts").exists()
    run(source, tmp_path / "straight.mp4")
    for (_, a), (_, b) in zip(frames(tmp_path / "out.mp4"), frames(tmp_path / "straight.mp4"), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 1


KILLED = """
import os, signal, sys
from mattface.realtime import loop
from clips import run
show = loop.Loop._show_one
def killing(self, shot):
    show(self, shot)
    if shot.index == 12:
        os.kill(os.getpid(), signal.SIGKILL)
loop.Loop._show_one = killing
run(*sys.argv[1:])
"""


def test_a_killed_run_is_taken_up_again(tmp_path: Path) -> None:
    source, output = clip(tmp_path / "in.mp4", 18), tmp_path / "out.mp4"
    root = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(root), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run([sys.executable, "-c", KILLED, str(source), str(output)], cwd=root, timeout=120,
                           env={**os.environ, "PYTHONPATH": paths}, capture_output=True)  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not output.exists()
    report = run(source, output, resume=True)
    assert report["parts_reused"] == 2 and len(frames(output)) == 18


def test_parts_of_other_work_are_not_used(tmp_path: Path) -> None:
    source, stop = clip(tmp_path / "in.mp4", 12), threading.Event()
    stop.set()
    run(source, tmp_path / "out.mp4", stop=stop, work={"source": "alice"})
    assert (tmp_path / "out.mp4.parts").is_dir() and not (tmp_path / "out.mp4").exists()
    with pytest.raises(InputError, match="these differ in source"):
        run(source, tmp_path / "out.mp4", work={"source": "bob"}, resume=True)
    (tmp_path / "out.mp4.parts" / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="parts of the same work"):
        run(source, tmp_path / "out.mp4", work={"source": "bob"}, resume=True)
    assert run(source, tmp_path / "out.mp4", work={"source": "bob"}, overwrite=True)["whole"]


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 3)
    (tmp_path / "out.mp4.parts").mkdir()
    (tmp_path / "out.mp4.parts" / "thesis.txt").write_text("mine", encoding="utf-8")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="other files"):
            run(source, tmp_path / "out.mp4", **options)
    assert (tmp_path / "out.mp4.parts" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_outputs_are_checked_before_work_begins(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 3)
    shutil.copy(source, tmp_path / "there.mp4")
    for name, words in (("there.mp4", "the file exists"), ("in.mp4", "one of the inputs"), ("out.avi", "ending in"),
                        ("no/out.mp4", "existing folder")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(source, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "there.mp4"]


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output, write = clip(tmp_path / "in.mp4", 18), tmp_path / "out.mp4", Encoder.write
    count: list[int] = []

    def full(self: Encoder, frame: Any) -> None:
        count.append(0)
        if len(count) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, frame)

    monkeypatch.setattr(Encoder, "write", full)
    with pytest.raises(InputError, match=r"the disk is full. 2 part\(s\) of 5 frames are kept.*--resume"):
        run(source, output)
    assert not output.exists()
    monkeypatch.setattr(Encoder, "write", write)
    assert run(source, output, resume=True)["parts_reused"] == 2 and len(frames(output)) == 18


def test_a_file_that_may_not_grow_is_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 160, 3), dtype=np.uint8)
    source = clip(tmp_path / "in.mp4", 12, picture=lambda k: np.roll(noise, 3 * k, 1), options={"crf": "20"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(InputError, match="the file may not grow"):
            run(source, tmp_path / "out.mp4", part_frames=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run(source, tmp_path / "out.mp4", part_frames=100, resume=True)["whole"]


def test_damaged_packets_are_counted_and_the_sound_stays_in_time(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 30, options={"g": "6"})
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(source.read_bytes())
    for position, size in places[8:10]:
        data[position : position + size] = bytes(size)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    report = run(broken, tmp_path / "out.mp4")
    assert report["video"]["frames_skipped"] >= 1 and any("damaged" in note for note in report["notes"])
    intact = {float(n * TICK) for n in stamps(30)}
    times = [t for t, _ in frames(tmp_path / "out.mp4")]
    assert 20 <= len(times) < 30 and set(times) <= intact and times == sorted(times)
    assert sound_bytes(tmp_path / "out.mp4") == sound_bytes(source)


def test_cut_off_files_are_used_as_far_as_they_go_or_rejected(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 30, container={"movflags": "faststart"})
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    report = run(tmp_path / "cut.mp4", tmp_path / "out.mp4")
    assert report["video"]["cut_short"] and any("cut off" in note for note in report["notes"])
    assert 5 < len(frames(tmp_path / "out.mp4")) < 30
    plain = clip(tmp_path / "plain.mp4", 30).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(plain[: len(plain) * 2 // 3])
    with pytest.raises(InputError, match="index may be missing"):
        run(tmp_path / "headless.mp4", tmp_path / "out2.mp4")


def test_what_is_no_video_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello", encoding="utf-8")
    with av.open(str(tmp_path / "tone.mp4"), "w") as out:
        tone: Any = out.add_stream("aac", rate=44100, layout="mono")
        heard: Any = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        heard.rate = 44100
        out.mux([*tone.encode(heard), *tone.encode(None)])
    for name, words in (("empty.mp4", "zero bytes"), ("text.mp4", "cannot be opened"), ("tone.mp4", "no moving"),
                        ("missing.mp4", "none of that name")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(tmp_path / name, tmp_path / "out.mp4")
