"""Video files: frames, times, sound, turns, colours and depth are kept, and only what changed is painted anew."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import ENCODING, FACE, SIZE, TICK, Told, clip, face_at, frames, run, sound_bytes, still, swapper

from mattface.errors import InputError, UsageError
from mattface.provenance import DIGITAL_SOURCE_TYPE
from mattface.realtime.encoding import Encoder, Encoding, check_sound
from mattface.realtime.faces import Cast
from mattface.realtime.offline import Job, convert
from mattface.realtime.planes import Origin, plane_array, repaint, to_planes, upright_rgb
from mattface.realtime.video import Orientation, VideoInfo, VideoReader

av = pytest.importorskip("av", reason="av is not installed")

QUARTER = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
"""Display matrix of a picture to be turned clockwise by 90 degrees."""


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


def test_twelve_bits_are_rejected_in_clear_words(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 3, codec="libx265", pixels="yuv420p12le", options={"x265-params": "log-level=0"})
    with pytest.raises(InputError, match="at most 10 bits per channel; got 12"):
        run(source, tmp_path / "out.mp4")
    assert not list(tmp_path.glob("out*"))


def test_odd_sizes_keep_their_size(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", 4, size=(161, 127), codec="mpeg4")
    report = run(source, tmp_path / "out.mp4")
    assert frames(tmp_path / "out.mp4")[0][1].shape == (127, 161, 3)
    assert any("odd size 161x127" in note for note in report["notes"])


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
