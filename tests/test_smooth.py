"""Steadying: noise at rest falls, steps and ramps are followed within two frames, mattes stop flickering."""

from __future__ import annotations

import numpy as np
import pytest

from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.realtime.smooth import POSE, SHAPE, LandmarkFilter, OneEuro, Pose, TemporalMatteFilter
from mattface.vocabulary import Face

FPS = 30.0
RADIUS = 80.0


def face(dx: float = 0.0, turn: float = 0.0, noise: np.ndarray | None = None, open_mouth: float = 0.0) -> Face:
    """A frontal face of `RADIUS` at (320 + dx, 240)."""
    mesh = topology().mean * RADIUS
    mesh[[14, 17, 152], 1] += open_mouth
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mesh[:, :2] = mesh[:, :2] @ matrix.T + [320 + dx, 240]
    mesh = mesh if noise is None else mesh + noise
    return Face(np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]), 0.9, five_points(mesh), mesh, 0.99)


def followed(moves: np.ndarray) -> np.ndarray:
    """Filtered x of the nose tip for a face moved by `moves` pixels, one per frame."""
    steady = LandmarkFilter()
    return np.array([steady(face(dx), k / FPS).mesh[1, 0] for k, dx in enumerate(moves)]) - face().mesh[1, 0]


def test_pose_takes_a_mesh_apart_and_together() -> None:
    mesh = face(40, 0.3).mesh
    pose = Pose.of(mesh)
    np.testing.assert_allclose(pose.to_pixels(pose.to_face_units(mesh)), mesh, atol=1e-9)
    assert pose.scale == pytest.approx(RADIUS, rel=1e-6)
    np.testing.assert_allclose(pose.to_face_units(mesh)[:, :2], topology().mean[:, :2], atol=1e-6)


@pytest.mark.parametrize("step", [4.0, 20.0, 80.0])
def test_a_step_is_followed_within_two_frames(step: float) -> None:
    moves = np.where(np.arange(40) < 20, 0.0, step)
    seen = followed(moves) / step
    assert abs(seen[19]) < 1e-6
    assert seen[21] > 0.5  # half of the way in the second frame that shows it
    assert seen[24] > 0.85 and seen[39] > 0.97


@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0, 10.0])
def test_a_ramp_is_followed_less_than_two_frames_behind(speed: float) -> None:
    moves = np.arange(60) * speed
    lag = (moves - followed(moves))[30:] / speed
    assert lag.max() < 2.0
    if speed >= 3:
        assert lag.max() < 1.0


@pytest.mark.parametrize("speed", [0.3, 2.0])
def test_a_mouth_that_opens_is_followed_less_than_two_frames_behind(speed: float) -> None:
    steady = LandmarkFilter()
    opening = [steady(face(open_mouth=k * speed), k / FPS).mesh[[14, 13], 1] for k in range(30)]
    gap = np.array([a - b for a, b in opening])
    still = face().mesh
    wanted = still[14, 1] - still[13, 1] + np.arange(30) * speed
    assert ((wanted - gap)[15:] / speed).max() < 2.0


def test_noise_at_rest_falls_to_less_than_half_and_a_moving_head_keeps_its_features_quiet() -> None:
    rng = np.random.default_rng(0)
    noise = 0.4 * rng.standard_normal((90, 468, 3))
    for speed in (0.0, 6.0):
        steady = LandmarkFilter()
        raw = [face(speed * k, noise=n) for k, n in enumerate(noise)]
        calm = [steady(f, k / FPS) for k, f in enumerate(raw)]
        shapes = [np.array([Pose.of(f.mesh).to_face_units(f.mesh) for f in faces[30:]]) for faces in (raw, calm)]
        jitter = [np.diff(s[:, :, :2], axis=0).std() for s in shapes]
        assert jitter[1] < 0.4 * jitter[0]


def test_points_of_a_sparse_network_are_steadied_on_their_own() -> None:
    rng = np.random.default_rng(1)
    steady, offset = LandmarkFilter(), np.array([3.0, -2.0])
    seen, calm = [], []
    for k in range(60):
        one = face()
        one = Face(one.box, one.score, one.points + offset + 0.5 * rng.standard_normal((5, 2)), one.mesh, 0.99)
        seen.append(one.points)
        calm.append(steady(one, k / FPS).points)
    np.testing.assert_allclose(np.mean(calm[20:], 0), face().points + offset, atol=0.25)
    assert np.diff(calm[20:], axis=0).std() < 0.5 * np.diff(seen[20:], axis=0).std()


def test_after_a_pause_the_filter_begins_anew() -> None:
    steady = LandmarkFilter()
    steady(face(0), 0.0)
    np.testing.assert_allclose(steady(face(50), 2.0).mesh, face(50).mesh, atol=1e-6)
    one = OneEuro(*POSE)
    one(np.zeros((1, 2)), 5.0)
    assert one(np.ones((1, 2)), 1.0).min() == 1  # time that runs backwards is a new clip
    assert SHAPE[0] > 0


def disc(level: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.where((x - 32) ** 2 + (y - 32) ** 2 < 400, level, 0).astype(np.float32)


def filter_mattes(mattes: list[np.ndarray], sway: float = 0.0) -> list[np.ndarray]:
    steady, mesh, out = TemporalMatteFilter(), topology().mean, []
    for k, matte in enumerate(mattes):
        steady.observe(mesh + k * sway, 1 / FPS)
        out.append(steady(matte))
    return out


def test_a_flickering_matte_is_calmed_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    flicker = [np.clip(disc(0.5) + 0.2 * rng.standard_normal((64, 64)).astype(np.float32), 0, 1) for _ in range(60)]
    calm = filter_mattes(flicker)
    before, after = (np.diff(np.array(m[10:]), axis=0).std() for m in (flicker, calm))
    assert after < 0.35 * before
    assert min(m.min() for m in calm) >= 0 and max(m.max() for m in calm) <= 1


def test_a_matte_that_changes_is_followed_within_two_frames() -> None:
    step = filter_mattes([disc(0)] * 5 + [disc(1)] * 10)
    assert step[4].max() == 0 and step[6].max() > 0.5
    ramp = filter_mattes([disc(k / 40) for k in range(40)])
    assert (39 / 40 - ramp[-1].max()) * 40 < 2.0


def test_a_face_that_turns_in_its_crop_gets_its_matte_at_once_and_sizes_may_change() -> None:
    turning = filter_mattes([disc(0)] * 5 + [disc(1)], sway=0.1)
    assert turning[-1].max() == 1
    steady = TemporalMatteFilter()
    steady.observe(topology().mean, 1 / FPS)
    steady(disc())
    steady.observe(topology().mean, 1 / FPS)
    assert steady(np.ones((96, 96), np.float32)).shape == (96, 96)
