"""Tracking: numbers stay with faces, the detector rests, lost faces come back, roles are given once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from clips import Part, Told, face_at

from mattface.realtime.track import LIVE, OFFLINE, Pace, Tracked, Tracker, detect_small, overlap

FRAME = np.zeros((240, 320, 3), np.uint8)
FPS = 30.0


def tracker(told: Told, pace: Pace = LIVE, who: object = None) -> Tracker:
    return Tracker(Part(told.detect), Part(told.measure), who, pace)  # type: ignore[arg-type]


def walk(follow: Tracker, told: Told, places: list[list[tuple[float, float]]]) -> list[tuple[Tracked, ...]]:
    """Runs frames in which faces of scale 25 are at the given places."""
    seen = []
    for k, where in enumerate(places):
        told.faces = [face_at(x, y, 25) for x, y in where]
        seen.append(follow(FRAME, k / FPS))
    return seen


def test_a_moving_face_keeps_its_number_and_the_detector_rests() -> None:
    told = Told()
    seen = walk(tracker(told), told, [[(80 + 3 * k, 100)] for k in range(40)])
    assert [[t.number for t in faces] for faces in seen] == [[0]] * 40
    assert told.looked == 1 and told.measured == 40
    middle = (seen[-1][0].face.box[0] + seen[-1][0].face.box[2]) / 2
    assert abs(middle - (80 + 3 * 39)) < 6


def test_two_faces_keep_their_numbers_while_they_pass_each_other() -> None:
    told = Told()
    places = [[(60 + 4 * k, 70), (260 - 4 * k, 170)] for k in range(45)]
    seen = walk(tracker(told, replace(LIVE, most=4)), told, places)
    assert {tuple(t.number for t in faces) for faces in seen} == {(0, 1)}
    assert seen[-1][0].face.box[1] < 100 < seen[-1][1].face.box[1]
    assert told.looked == pytest.approx(45 / LIVE.every, abs=2)


def test_the_detector_looks_every_few_frames_for_newcomers_and_sooner_when_somebody_is_lost() -> None:
    told, pace = Told(), Pace(every=10, searching=3, most=4)
    places: list[list[tuple[float, float]]] = [[(80, 100)]] * 15 + [[(80, 100), (240, 100)]] * 15
    seen = walk(tracker(told, pace), told, places)
    arrived = next(k for k, faces in enumerate(seen) if len(faces) == 2)
    assert 15 <= arrived < 15 + 10 and [t.number for t in seen[-1]] == [0, 1]
    empty = Told()
    walk(tracker(empty, pace), empty, [[]] * 12)
    assert empty.looked == 4


def test_a_face_that_hides_for_a_moment_comes_back_with_its_number_and_later_with_a_new_one() -> None:
    told = Told()
    follow = tracker(told)
    hidden: list[list[tuple[float, float]]] = [[]] * 10
    seen = walk(follow, told, [[(100.0, 100.0)]] * 5 + hidden + [[(110.0, 104.0)]] * 8)
    assert all(not faces for faces in seen[5:15])
    assert [t.number for t in seen[-1]] == [0]
    again = walk(tracker(told), told, [[(100.0, 100.0)]] * 3 + [[]] * 40 + [[(100.0, 100.0)]] * 8)  # type: ignore[list-item]
    assert [t.number for t in again[-1]] == [1]


def test_with_one_face_wanted_the_largest_is_followed_and_stays_chosen() -> None:
    told = Told()
    follow = tracker(told)
    told.faces = [face_at(70, 100, 35), face_at(230, 100, 20)]
    assert [t.face.box[0] < 100 for t in follow(FRAME, 0.0)] == [True]
    told.faces = [face_at(230, 100, 60), face_at(70, 100, 35)]
    assert [t.number for t in follow(FRAME, 1 / FPS)] == [0]


def test_two_tracks_on_one_face_become_one() -> None:
    told = Told()
    follow = tracker(told, replace(LIVE, most=4))
    walk(follow, told, [[(80, 100), (200, 100)]] * 2)
    seen = walk(follow, told, [[(80 + 5 * k, 100), (200 - 5 * k, 100)] for k in range(13)])
    assert [t.number for t in seen[-1]] == [0]


def test_a_face_that_leaves_the_picture_is_let_go() -> None:
    told = Told()
    seen = walk(tracker(told), told, [[(250.0 + 8 * k, 100.0)] for k in range(20)])
    assert seen[0] and not seen[-1]


def test_roles_are_asked_once_and_again_for_strangers() -> None:
    told, asked = Told(), []

    def who(_rgb: np.ndarray, face: object) -> int | None:
        asked.append(face)
        return None if len(asked) < 3 else 2

    seen = walk(tracker(told, who=who), told, [[(80, 100)]] * 60)
    assert len(asked) == 3 and seen[0][0].role is None and seen[-1][0].role == 2
    known = Told()
    assert walk(tracker(known), known, [[(80, 100)]])[0][0].role == 0


def test_small_copies_give_boxes_in_pixels_of_the_picture() -> None:
    seen = []

    def detect(rgb: np.ndarray, thorough: bool = True) -> list:
        seen.append((rgb.shape, thorough))
        return [face_at(rgb.shape[1] / 2, rgb.shape[0] / 2, 10)]

    found = detect_small(Part(detect), np.zeros((720, 1280, 3), np.uint8), 320)[0]  # type: ignore[arg-type]
    assert seen == [((180, 320, 3), False)]
    np.testing.assert_allclose((found.points.mean(0)), [640, 360], atol=20)
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)
    assert OFFLINE.every < LIVE.every


def test_a_real_face_is_followed_exactly(need: Callable[..., None], astronaut: np.ndarray) -> None:
    """A photograph moved by a known path: the landmarks follow it within a few hundredths of the face."""
    from mattface import perception

    need("centerface", "face-mesh")
    follow = Tracker(perception.load("detector", "centerface"), perception.load("landmarks", "face-mesh"))
    first, errors = None, []
    for k in range(25):
        matrix = cv2.getRotationMatrix2D((220, 120), 0.8 * k, 0.9 + 0.004 * k)
        matrix[:, 2] += [2.5 * k, 1.5 * k]
        frame = cv2.warpAffine(astronaut, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
        (tracked,) = follow(frame, k / FPS)
        back = cv2.invertAffineTransform(matrix)
        mesh = tracked.face.mesh[:, :2] @ back[:, :2].T + back[:, 2]
        first = mesh if first is None else first
        errors.append(np.linalg.norm(mesh - first, axis=1).mean() / np.ptp(first, axis=0).max())
    assert max(errors) < 0.04 and tracked.number == 0
