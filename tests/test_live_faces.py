"""Faces in live pictures: what is painted and what stays, who is who, and sources that change while it runs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import shots
from clips import FACE, SIZE, Told, face_at, still, swapper
from PIL import Image

from mattface.errors import NoFaceError, UsageError, WeightsError
from mattface.realtime import faces as faces_module
from mattface.realtime.faces import Cast, Watcher
from mattface.realtime.loop import Painter, Shot
from mattface.realtime.track import Tracked, Tracker
from mattface.vocabulary import Face

pytest.importorskip("av", reason="av is not installed")


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
    """A still face whose landmarks and pixels are noisy, as a webcam's are: filtered against not filtered."""
    rng = np.random.default_rng(0)
    picture, place = still(5, (320, 320)), face_at(160, 160, 60)
    noisy = [np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    flicker = {}
    for filtered in (False, True):
        told = Told(place)
        told.noise = 0.5
        ours = swapper(told)
        follow, paint = Tracker(ours.detector, ours.landmarker), Painter(ours, Cast(ours, still(7, (320, 320))))
        mattes, original = [], ours.swap_face

        def noted(*args: Any, original: Any = original, kept: Any = mattes, filtered: bool = filtered) -> Any:
            crop, swap, pasted = original(*(args if filtered else args[:-1]))
            kept.append(pasted.whole_matte())
            return crop, swap, pasted

        ours.swap_face = noted  # type: ignore[method-assign]
        for k, pixels in enumerate(noisy):
            seen = follow(pixels, k / 30)
            if not filtered:
                seen = tuple(replace(t, face=told.measure(pixels, t.face)) for t in seen)
            paint(Shot(k, pixels, k / 30, 0.0, tracks=seen))
        flicker[filtered] = float(np.array(mattes[8:]).var(axis=0).mean())
    assert flicker[True] < 0.25 * flicker[False], flicker


def colour(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((128, 160, 3), (red, green, blue), np.uint8)


def test_faces_are_matched_to_reference_pictures() -> None:
    ours = swapper(Told(FACE))
    cast = Cast(ours, still(7), [(colour(250, 100, 100), still(8)), (colour(100, 250, 100), still(9))])
    assert cast.by_reference
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
