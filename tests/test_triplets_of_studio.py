"""Triplets of the studio in memory: landmarks are found in the pictures, and what is not found is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mattface import perception
from mattface.errors import InputError
from mattface.mesh import topology
from mattface.training.data.studio_triplets import as_detection, read_as_photo, read_studio_triplets
from mattface.training.studio.stream import write_shards
from mattface.training.studio.triplet import Triplet

SIDE = 64


def triplet() -> Triplet:
    rng = np.random.default_rng(0)
    pictures = {k: rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for k in ("source", "target", "swap")}
    masks = {k: np.ones((SIDE, SIDE), np.float32) for k in ("visible", "matte", "mask", "occluder", "depth")}
    marks = {k: rng.uniform(10, 50, (68, 3)).astype(np.float32) for k in pictures}
    return Triplet(
        **pictures, **masks, flow=np.full((SIDE, SIDE, 2), 8.0, np.float32), landmarks=marks, coefficients={},
        kind="head", seed=3, notes=(),
    )  # fmt: skip


def measure(presence: float, centres: tuple[float, ...] = (32.0, 32.0, 32.0)):
    """A landmarker that sees the mean face, in each picture at another place."""
    left = list(centres)

    def found(pixels, face):
        assert pixels.shape == (SIDE, SIDE, 3) and face.points.shape == (5, 2)
        mesh = topology().mean * 16 + [left.pop(0), 32, 0]
        return replace(face, mesh=mesh, presence=presence)

    return found


def test_a_triplet_gets_canonical_coordinates_of_source_and_swap():
    found = read_as_photo(triplet(), measure(1.0, (28.0, 32.0, 36.0)), perception.load("parser", "mesh"), 32)
    assert found is not None
    assert {v.shape[-1] for v in found.maps.values()} == {32}
    middle = [float(x[0, 0, 16, 16]) for x in (found.source_canonical, found.canonical)]
    assert middle[0] > 0.1 > -0.1 > middle[1], "the source lies to the left, the swap to the right"
    outside = found.mask == 0
    assert outside.any() and found.matte[outside].max() == 0, "nothing is replaced outside the inner face"


def test_a_face_that_is_not_found_is_left_out():
    assert read_as_photo(triplet(), measure(0.1), perception.load("parser", "mesh"), 32) is None


def test_a_detection_is_made_of_landmarks():
    marks = np.zeros((68, 3))
    marks[36:42, :2], marks[42:48, :2], marks[30, :2] = (10, 20), (30, 20), (20, 30)
    marks[48, :2], marks[54, :2] = (12, 40), (28, 40)
    face = as_detection(marks)
    assert np.array_equal(face.points, [[10, 20], [30, 20], [20, 30], [12, 40], [28, 40]])
    assert np.array_equal(face.box, [0, 0, 30, 40])


def patch_landmarks(monkeypatch, locate):
    load = perception.load
    monkeypatch.setattr(perception, "load", lambda kind, *args: locate if kind == "landmarks" else load(kind, *args))


def test_no_shards_are_rejected(monkeypatch):
    patch_landmarks(monkeypatch, measure(1.0))
    with pytest.raises(InputError, match="found none"):
        read_studio_triplets([], 32)


def shards_of(folder, count: int):
    return write_shards(lambda seed: replace(triplet(), seed=seed), folder, count, per_shard=2)


def test_a_damaged_shard_and_hidden_faces_are_left_out_and_named(tmp_path, monkeypatch):
    paths = shards_of(tmp_path, 6)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) * 3 // 4])
    calls = iter([1.0] * 3 + [0.1])

    def found(pixels, face):
        return measure(next(calls, 1.0), (32.0,))(pixels, face)

    patch_landmarks(monkeypatch, found)
    store, notes = read_studio_triplets(paths, 32)
    assert store.count == 3, "the triplets of a damaged shard go with it"
    assert "shard triplets-000001.tar was left out" in notes[0]
    assert notes[1:] == ("1 of 4 triplets were left out: landmarks of a face were not found",)
    with pytest.raises(InputError, match=r"found none.*triplets-000001"):
        read_studio_triplets(paths[1:2], 32)


def test_positions_are_packed_finely():
    from mattface.training.data.triplet_batch import pack, unpack

    where = torch.rand(3, 8, 8) * 4 - 2
    assert (unpack("canonical", pack("canonical", where)) - where).abs().max() < 2e-3
