"""Who never trains, and what networks see in swaps of them: one rule and one evaluator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mattface.measure.held_out import FaceEvaluator, is_held_out
from mattface.mesh import topology
from mattface.training.data.catalogue import catalogue
from mattface.training.data.portraits import training_portraits
from mattface.vocabulary import Face

FACE = replace(
    Face(np.array([8.0, 8, 56, 56]), 1.0, np.full((5, 2), 30.0)), mesh=topology().mean * 16 + [32, 32, 0], presence=1.0
)


def test_catalogues_and_portraits_hold_the_same_people_out(tmp_path):
    for k in range(24):
        Image.new("RGB", (8, 8)).save(tmp_path / f"p{k}.png")
    train, held = catalogue(tmp_path).split(4)
    assert {r.name for r in train.records} == {p.stem for p in training_portraits(tmp_path)}
    assert held.records and all(is_held_out(r.name) for r in held.records)
    assert not is_held_out(held.records[0].name, 0), "0 holds nobody out"


def evaluator(found: list[Face]) -> FaceEvaluator:
    gallery = np.eye(3)
    return FaceEvaluator(
        lambda pixels, face: gallery[int(pixels[0, 0, 0])], lambda pixels: found, lambda pixels, face: face, gallery
    )


def test_a_result_is_measured_against_source_and_target():
    image = np.zeros((64, 64, 3), np.uint8)  # whose first value says who is seen
    numbers = evaluator([FACE])(image, 0, 1, FACE)
    assert (numbers["found"], numbers["cosine"], numbers["untouched"], numbers["retrieved"]) == (1, 1, 0, 1)
    assert numbers["pose"] == pytest.approx(0, abs=1e-3) and numbers["shift"] == pytest.approx(0, abs=1e-6)
    assert np.isnan(numbers["expression"])


def test_a_lost_face_is_read_at_the_targets_place_and_its_pose_is_not_measured():
    image = np.full((64, 64, 3), 2, np.uint8)
    numbers = evaluator([])(image, 0, 1, FACE)
    assert (numbers["found"], numbers["cosine"], numbers["retrieved"]) == (0, 0, 0)
    assert np.isnan(numbers["pose"]) and np.isnan(numbers["shift"])
