"""Training of what tells a face from things before it: its squares, their augmentation, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mattface import perception, weights
from mattface.errors import InputError
from mattface.mesh import topology
from mattface.parse import visible
from mattface.training.checkpoint import save_weights
from mattface.training.config import Data
from mattface.training.data import visible_faces
from mattface.training.launch import find_recipe
from mattface.training.loop import fit
from mattface.training.studio.stream import write_shards
from mattface.training.studio.triplet import Triplet
from mattface.training.tasks import visible as task

SIDE = 128
MESH = topology().mean * 34 + [64, 66, 0]


def triplet(seed: int) -> Triplet:
    """A grey face on green with a red disc over it, of which the matte knows."""
    rng = np.random.default_rng(seed)
    outline = cv2.convexHull(MESH[:, :2].astype(np.float32)).astype(np.int32)
    face, disc = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(face, outline, 1)
    cv2.circle(disc, tuple(int(v) for v in rng.integers(40, 90, 2)), 16, 1, -1)
    picture = np.where(face[..., None] > 0, 150, [30, 120, 40]).astype(np.uint8)
    picture[disc > 0] = (220, 20, 20)
    empty = np.zeros((SIDE, SIDE), np.float32)
    matte = (face * (1 - disc)).astype(np.float32)
    pictures = dict.fromkeys(("source", "target", "swap"), picture)
    marks = dict.fromkeys(pictures, np.full((68, 3), 1.0, np.float32))
    return Triplet(
        **pictures, flow=np.zeros((SIDE, SIDE, 2), np.float32), visible=matte, matte=matte, mask=matte,
        occluder=disc.astype(np.float32), depth=empty, landmarks=marks, coefficients={}, kind="head", seed=seed,
    )  # fmt: skip


def found(presence: float):
    return lambda pixels, face: replace(face, mesh=MESH, presence=presence)


def test_a_square_holds_picture_expectation_and_truth():
    made = visible_faces.read_square(triplet(1), "target", found(1.0))
    assert made.shape == (7, visible_faces.KEPT, visible_faces.KEPT) and made.dtype == np.uint8
    red = (made[0] > 200) & (made[1] < 60)
    inside = cv2.erode((made[3] > 0).astype(np.uint8), np.ones((9, 9))) > 0
    assert made[5][inside & cv2.erode(red.astype(np.uint8), np.ones((5, 5))).astype(bool)].max() < 30
    assert made[5][inside & ~cv2.dilate(red.astype(np.uint8), np.ones((7, 7))).astype(bool)].min() > 225
    assert visible_faces.read_square(triplet(1), "target", found(0.0)) is None


def test_a_thin_frame_hides_what_lies_beside_it_too():
    plain = triplet(1)
    matte = plain.matte.copy()
    matte[60] *= 0.6  # a line that covers two fifths of a row of pixels
    thin = visible_faces.read_square(replace(plain, matte=matte), "target", found(1.0))[5]
    known = visible_faces.read_square(plain, "target", found(1.0))[5]
    lost = (known > 200) & (thin < 60)
    rows = np.flatnonzero(lost.sum(1) > 0.5 * (known > 200).sum(1))
    scale = visible_faces.KEPT / (visible_faces.KEPT / visible_faces.visible.SIDE * SIDE)
    assert 2 <= len(rows) / scale <= 6, "the line and its neighbours, as wide as the square is enlarged"


def test_what_is_only_estimated_to_be_hidden_weighs_little():
    plain = triplet(1)
    matte = plain.matte.copy()
    matte[44:50] = 0  # hair over the forehead, of which no drawn thing tells
    guess = replace(plain, matte=matte, kind="photo")
    made, exact = (visible_faces.read_square(t, "target", found(1.0)) for t in (guess, replace(guess, kind="head")))
    hidden = cv2.erode((made[5] < 10).astype(np.uint8) * (made[3] > 0), np.ones((3, 3))) > 0
    low = round(255 * visible_faces.GUESSED)
    assert exact[6].min() == 255 and set(np.unique(made[6][hidden])) >= {low, 255}, "the disc is known, the hair is not"
    assert made[6][made[5] == 255].min() > 250, "what is seen is known"
    maps = torch.from_numpy(np.stack([made] * 4))
    batch = visible_faces.VisibleFaceSamples(maps, 3).batch(range(4))
    assert batch["sure"].shape == batch["seen"].shape and 0.1 < batch["sure"].min() < 0.2 and batch["sure"].max() == 1


def test_training_may_start_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(perception, "load", lambda kind, *_: found(1.0))
    recipe = find_recipe("visible-face", True, [])
    known = visible.VisibleFace(recipe.widths)
    save_weights(tmp_path / "known.safetensors", known.state_dict(), {})
    write_shards(triplet, tmp_path / "data", 2, 2, 0)
    started = replace(recipe, start=str(tmp_path / "known.safetensors"))
    stage = next(task.stages(started, Data(tmp_path / "data"), torch.device("cpu")))
    for name, value in known.state_dict().items():
        assert torch.allclose(stage.task.networks["network"].state_dict()[name].float(), value.float(), atol=1e-3), name
    assert "start from" in stage.notes[-1]


def test_an_open_mouth_belongs_to_the_face_unless_something_lies_before_it():
    """The matte has a hole where both mouths are open."""
    plain = triplet(1)
    marks = plain.landmarks["target"].copy()
    marks[60:68, :2] = [[50, 70], [55, 66], [64, 64], [73, 66], [78, 70], [73, 76], [64, 78], [55, 76]]
    open_mouth = replace(plain, matte=np.zeros_like(plain.matte), occluder=np.zeros_like(plain.occluder))
    open_mouth.landmarks["target"] = marks
    label = visible_faces.read_square(open_mouth, "target", found(1.0))[5]
    assert 0.002 < (label > 128).mean() < 0.2
    covered = replace(open_mouth, occluder=np.ones_like(plain.occluder))
    assert visible_faces.read_square(covered, "target", found(1.0))[5].max() == 0


def test_augmentation_repeats_and_covers_more():
    maps = torch.from_numpy(np.stack([visible_faces.read_square(triplet(k), "target", found(1.0)) for k in range(8)]))
    first, again = (visible_faces.VisibleFaceSamples(maps, 3).batch(range(8)) for _ in range(2))
    other = visible_faces.VisibleFaceSamples(maps, 4).batch(range(8))
    assert torch.equal(first["input"], again["input"]) and not torch.equal(first["input"], other["input"])
    assert first["input"].shape == (8, 5, visible.SIDE, visible.SIDE) and first["input"].abs().max() <= 1
    assert first["seen"].min() >= 0 and first["seen"].max() <= 1


def test_no_shards_and_no_faces_are_rejected(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="mattface studio shards"):
        next(task.stages(find_recipe("visible-face", True, []), Data(tmp_path), torch.device("cpu")))
    monkeypatch.setattr(perception, "load", lambda kind, *_: found(0.0))
    with pytest.raises(InputError, match="found none"):
        visible_faces.read_squares(write_shards(triplet, tmp_path, 2, 2, 0))


def test_it_learns_to_see_things_before_a_face(tmp_path, monkeypatch):
    monkeypatch.setattr(perception, "load", lambda kind, *_: found(1.0))
    write_shards(triplet, tmp_path / "data", 12, 6, 0)
    recipe = find_recipe("visible-face", True, ["loop.images=480", "loop.save_every=480"])
    stage = next(task.stages(recipe, Data(tmp_path / "data", out=tmp_path / "run"), torch.device("cpu")))
    assert "24 faces" in stage.notes[-1]
    stage.result = fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    tensors, metadata = weights.load_tensors(tmp_path / "run" / "visible-face.safetensors")
    network = visible.VisibleFace((8, 8, 8, 8)).eval()
    weights.load_strictly(network, {k: v.float() for k, v in tensors.items()}, "visible-face")
    new = triplet(99)
    seen = visible.predict(network, new.target.astype(np.float32) / 127.5 - 1, MESH)
    shown = visible.paint_visibility(seen, MESH, SIDE, SIDE)
    face = cv2.erode(visible_of(new), np.ones((5, 5))) > 0
    assert metadata["method"] == "visible"
    assert shown[face & (new.occluder > 0)].mean() < 0.4 < 0.6 < shown[face & (new.matte > 0)].mean()


def visible_of(one: Triplet) -> np.ndarray:
    """(S, S) uint8 outline of the face."""
    return np.maximum(one.matte, one.occluder * (cv2.dilate(one.matte, np.ones((31, 31))) > 0)).astype(np.uint8)
