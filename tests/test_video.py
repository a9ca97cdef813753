"""Video files: everything that is kept is kept, and whatever goes wrong, what was done stays."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av", reason="av is not installed")

from clips import SIZE, TICK, Told, clip, face_at, frames, sound_bytes, stamps, still, swapper  # noqa: E402

from mattface import cli  # noqa: E402
from mattface.errors import InputError, NoFaceError, UsageError  # noqa: E402
from mattface.provenance import DIGITAL_SOURCE_TYPE  # noqa: E402
from mattface.realtime import loop as loop_module  # noqa: E402
from mattface.realtime.encoding import Encoder, Encoding, check_sound  # noqa: E402
from mattface.realtime.faces import Cast  # noqa: E402
from mattface.realtime.offline import Job, convert  # noqa: E402
from mattface.realtime.planes import Origin, plane_array, repaint, to_planes, upright_rgb  # noqa: E402
from mattface.realtime.video import Orientation, VideoInfo, VideoReader  # noqa: E402

QUARTER = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
"""Display matrix of a picture to be turned clockwise by 90 degrees."""
ENCODING = Encoding(quality=8, preset="ultrafast")
FACE = face_at(80, 64, 24)


def run(source: Path, output: Path, told: Told | None = None, stop: Any = None, **options: Any) -> dict[str, Any]:
    """Converts a clip with told perception."""
    told = told or Told(FACE)
    ours = swapper(told)
    given = {"encoding": ENCODING, "part_frames": 5, **options}
    return convert(Job(str(source), str(output), **given), ours, Cast(ours, still(7)), stop)


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures differ visibly."""
    return np.abs(a.astype(int) - b).max(-1) > 24


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_frames_times_sound_and_tags_are_kept(tmp_path: Path, ending: str) -> None:
    source = clip(tmp_path / "in.mp4", 17, colour=(1, 1, 1, 1))
    report = run(source, tmp_path / f"out{ending}")
    before, after = frames(source), frames(tmp_path / f"out{ending}")
    assert report["whole"] and report["frames"]["shown"] == report["frames"]["with_faces"] == 17
    times = [t for t, _ in before], [t for t, _ in after]
    if ending == ".mkv":  # whole milliseconds, shifted together with the sound
        np.testing.assert_allclose(np.diff(times[0]), np.diff(times[1]), atol=0.0011)
    else:
        assert times[0] == times[1]
    assert sound_bytes(source) == sound_bytes(tmp_path / f"out{ending}")
    for (_, old), (_, new) in zip(before, after, strict=True):
        where = changed(old, new)
        assert where[54:74, 70:90].any() and not where[:, :40].any() and not where[:, 125:].any()
    with av.open(str(tmp_path / f"out{ending}")) as out:
        context = out.streams.video[0].codec_context
        assert (context.color_range, context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1, 1)
        assert out.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        tags = {k.lower(): v for k, v in out.metadata.items()}
        assert tags["title"] == "a clip" and tags["digitalsourcetype"] == DIGITAL_SOURCE_TYPE
        assert tags["aisystemused"] == "mattface"
    assert not (tmp_path / f"out{ending}.parts").exists()


def test_the_mark_can_be_left_out(tmp_path: Path) -> None:
    run(clip(tmp_path / "in.mp4", 4), tmp_path / "out.mp4", mark=False)
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert not any("igitalsource" in key for key in out.metadata)


@pytest.mark.parametrize("matrix", [QUARTER, tuple(-n for n in QUARTER[:4]) + QUARTER[4:],
                                    (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
                                    (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)])  # fmt: skip
def test_turned_and_mirrored_videos_are_swapped_upright_and_stay_turned(
    tmp_path: Path, matrix: tuple[int, ...]
) -> None:
    source = clip(tmp_path / "in.mp4", 4, matrix=matrix)
    upright = face_at(40, 90, 18) if matrix[0] == 0 else face_at(40, 60, 18)
    report = run(source, tmp_path / "out.mp4", Told(upright))
    assert tuple(report["video"]["size"]) == (SIZE[::-1] if matrix[0] == 0 else SIZE)
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mp4") as after:
        assert after.info.orientation.matrix == matrix
        old, new = (upright_rgb(next(iter(r)), r.info) for r in (before, after))
    rows, columns = np.nonzero(changed(old, new))
    assert len(rows) > 50
    assert abs(np.median(columns) - upright.box[[0, 2]].mean()) < 6
    assert abs(np.median(rows) - upright.box[[1, 3]].mean()) < 8


def test_orientation_goes_there_and_back() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for a, b, c, d in ((1, 0, 0, 1), (0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (0, 1, 1, 0)):
        one = Orientation.of((a, b, 0, c, d, 0, 0, 0, 1))
        shown = one.upright(pixels)
        np.testing.assert_array_equal(one.stored(shown), pixels)
        left, top, right, bottom = one.stored_box((3, 5, 9, 13), (shown.shape[1], shown.shape[0]))
        assert sorted(pixels[top:bottom, left:right].ravel()) == sorted(shown[5:13, 3:9].ravel())
    quarter = Orientation.of(QUARTER).upright(pixels)
    np.testing.assert_array_equal(quarter, np.rot90(pixels, -1))  # clockwise
    with pytest.raises(InputError, match="turned by quarters"):
        Orientation.of((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1))


@pytest.mark.parametrize("shape", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (2, 1, 1, 6), (1, 9, 16, 9), (0, 2, 2, 2)])
def test_repainting_changes_nothing_but_what_changed(shape: str, colour: tuple[int, int, int, int]) -> None:
    info = VideoInfo(160, 128, shape, TICK, Fraction(25), colour=colour)
    rgb = still(3).astype(np.uint16) * 257 if info.deep else still(3)
    frame = to_planes(rgb, info)
    seen = upright_rgb(frame, info)
    kept = [plane_array(frame, k).copy() for k in range(3)]
    new = seen.copy()
    new[41:60, 51:90] = 65535 // 3 if info.deep else 85
    painted = repaint(Origin(frame, info, seen), new, ((44, 30, 100, 70), (80, 50, 120, 66)))
    for k in range(3):
        rows, columns = np.nonzero(plane_array(painted, k) != kept[k])
        down, across = 128 // kept[k].shape[0], 160 // kept[k].shape[1]
        assert rows.min() >= 40 // down and rows.max() <= 60 // down
        assert columns.min() >= 50 // across and columns.max() <= 90 // across
    inner = upright_rgb(painted, info)[46:55, 56:84].astype(float) / (257 if info.deep else 1)
    assert np.abs(inner - 85).mean() < 3
    assert repaint(Origin(frame, info, seen), seen, ()) is frame


def test_without_faces_frames_reach_the_encoder_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = clip(tmp_path / "in.mp4", 6), []
    write = Encoder.write
    monkeypatch.setattr(Encoder, "write", lambda self, frame: (seen.append(frame.to_ndarray()), write(self, frame)))
    told = Told(FACE)
    ours = swapper(told)
    cast = Cast(ours, still(7))
    told.faces = []
    report = convert(Job(str(source), str(tmp_path / "out.mp4"), encoding=ENCODING), ours, cast)
    assert report["frames"]["with_faces"] == 0 and report["frames"]["shown"] == 6
    with av.open(str(source)) as container:
        for mine, theirs in zip(seen, container.decode(video=0), strict=True):
            np.testing.assert_array_equal(mine, theirs.to_ndarray())


def test_ten_bits_and_hdr_are_kept(tmp_path: Path) -> None:
    params = "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    source = clip(tmp_path / "in.mp4", 6, codec="libx265", pixels="yuv420p10le", colour=(1, 9, 16, 9),
                  options={"x265-params": f"{params}:max-cll=1000,400"})  # fmt: skip
    report = run(source, tmp_path / "out.mp4")
    assert report["video"]["format"] == "yuv420p10le" and any("HDR" in note for note in report["notes"])
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mp4") as after:
        assert before.info.hdr and before.info.hdr == after.info.hdr
        assert after.stream.codec_tag == "hvc1"
        assert after.info.colour == (1, 9, 16, 9) and after.info.format == "yuv420p10le" and after.info.codec == "hevc"
        assert upright_rgb(next(iter(after)), after.info).dtype == np.uint16


def test_twelve_bits_are_refused_in_clear_words(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 3, codec="libx265", pixels="yuv420p12le", options={"x265-params": "log-level=0"})
    with pytest.raises(InputError, match="at most 10 bits per channel; got 12"):
        run(source, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("out*"))


def test_odd_sizes_keep_their_size(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", 4, size=(161, 127), codec="mpeg4")
    report = run(source, tmp_path / "out.mp4")
    assert frames(tmp_path / "out.mp4")[0][1].shape == (127, 161, 3)
    assert any("odd size 161x127" in note for note in report["notes"])


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
from test_video import run
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


def test_cut_off_files_are_used_as_far_as_they_go_or_refused(tmp_path: Path) -> None:
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


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
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


def test_sound_that_does_not_fit_the_container_is_said_at_once(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.flv", 3, sound="nellymoser")
    with pytest.raises(InputError, match=r"sound as it is \(nellymoser\); .mp4 does not. Use a name ending in .mov"):
        run(source, tmp_path / "out.mp4")
    assert check_sound(source, tmp_path / "out.mov", tmp_path / "trial") == [] and not (tmp_path / "trial").exists()


def test_codecs_are_chosen_and_checked() -> None:
    info = VideoInfo(64, 64, "yuv420p", TICK, None, codec="h264")
    assert Encoding().encoder(info) == "libx264" and Encoding().encoder(replace(info, codec="hevc")) == "libx265"
    assert Encoding().encoder(replace(info, format="yuv420p10le")) == "libx265"
    with pytest.raises(UsageError, match="expected a codec"):
        Encoding("vp8").encoder(info)


@pytest.fixture
def told_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """The command line with told perception; alice.png is a source."""
    from PIL import Image

    from mattface.cli import moving

    told = Told(FACE)

    def build(args: Any, options: dict[str, Any]) -> Any:
        ours = swapper(told)
        return ours, Cast(ours, args.source or None, args.map)

    monkeypatch.setattr(moving, "build", build)
    Image.fromarray(still(7)).save(tmp_path / "alice.png")
    return told


def test_the_command_converts_and_reports(told_cli: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = clip(tmp_path / "in.mp4", 6)
    given = ["video", "-s", str(tmp_path / "alice.png"), "-t", str(source), "-o", str(tmp_path / "out.mp4"),
             "--preset", "ultrafast"]  # fmt: skip
    assert cli.main([*given, "--report", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr()
    assert "6 frames, 6 of 6 with faces swapped" in said.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["whole"] and report["method"] == "mesh" and report["parts"]["landmarks"] == "told"
    assert report["latency_ms"]["p95"] is not None and report["dropped"] == {"track": 0, "swap": 0, "show": 0}
    assert cli.main(given) == 3 and "the file exists" in capsys.readouterr().err
    told_cli.faces = []
    assert cli.main([*given, "--overwrite"]) == NoFaceError.exit_code


def test_ctrl_c_leaves_a_playable_file_and_says_how_to_go_on(
    told_cli: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, show = clip(tmp_path / "in.mp4", 16), loop_module.Loop._show_one

    def interrupted(self: Any, shot: Any) -> None:
        show(self, shot)
        if shot.index == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # impatience must not hurt

    monkeypatch.setattr(loop_module.Loop, "_show_one", interrupted)
    given = ["video", "-s", str(tmp_path / "alice.png"), "-t", str(source), "-o", str(tmp_path / "out.mp4"),
             "--preset", "ultrafast"]  # fmt: skip
    assert cli.main(given) == 130
    assert "--resume" in capsys.readouterr().err and len(frames(tmp_path / "out.mp4")) == 8
    monkeypatch.setattr(loop_module.Loop, "_show_one", show)
    assert cli.main([*given, "--resume"]) == 0 and len(frames(tmp_path / "out.mp4")) == 16
