"""A studio's people as one file, so that photographs are fitted once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mattface.errors import InputError
from mattface.training.studio.anatomy import Anatomy
from mattface.training.studio.camera import Camera
from mattface.training.studio.face_model import FaceModel, load_model
from mattface.training.studio.fitted_face import Fit
from mattface.training.studio.people import Person, Photo, Studio
from mattface.training.studio.texture import Atlas
from mattface.weights.arrays import read_arrays

PERSON = ("identity", "albedo", "bare", "cover", "skin", "hair", "iris")
FIT = ("expression", "light", "errors")
CAMERA = ("rotation", "scale", "centre", "distance")


def save_studio(studio: Studio, path: Path) -> None:
    """Writes the photographed people of a studio (.npz, about 5 MB a person); the face model is not in it."""
    people = [(p, p.photo) for p in studio.people if p.photo is not None]
    arrays: dict[str, Any] = {"mean": packed_mean(studio.mean), "names": np.array([p.name for p, _ in people])}
    arrays |= {key: np.stack([np.asarray(getattr(p, key)) for p, _ in people]) for key in PERSON}
    arrays["pixels"] = np.stack([photo.pixels for _, photo in people])
    arrays |= {key: np.stack([getattr(photo.fit, key) for _, photo in people]) for key in FIT}
    arrays |= {key: np.stack([np.asarray(getattr(photo.fit.camera, key)) for _, photo in people]) for key in CAMERA}
    temporary = path.with_suffix(".partial.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def packed_mean(mean: np.ndarray) -> np.ndarray:
    """The mean albedo in half precision."""
    return mean.astype(np.float16)


def load_studio(path: Path, model: FaceModel | None = None) -> Studio:
    """Reads what `save_studio` wrote.

    Args:
        path: the file.
        model: the face model it was made with; None takes the card's.

    Raises:
        WeightsError: not a whole file of arrays.
        InputError: another kind of file, or another face model.
    """
    model = load_model() if model is None else model
    arrays = read_arrays(path)
    missing = [k for k in ("mean", "names", "pixels", *PERSON, *FIT, *CAMERA) if k not in arrays]
    if missing:
        raise InputError(f"{path}: expected people of the studio; missing {missing}. See: mattface studio people.")
    if arrays["identity"].shape[1] != len(model.identity_deltas):
        raise InputError(
            f"{path}: expected {len(model.identity_deltas)} identity coefficients, as the face model has; "
            f"got {arrays['identity'].shape[1]}. Make the file again: mattface studio people."
        )
    atlas = Atlas(model, arrays["albedo"].shape[2])
    people = tuple(_person(arrays, k) for k in range(len(arrays["names"])))
    return Studio(model, atlas, Anatomy(atlas), people, arrays["mean"].astype(np.float32))


def _person(arrays: dict[str, np.ndarray], k: int) -> Person:
    camera = Camera(arrays["rotation"][k], float(arrays["scale"][k]), arrays["centre"][k], float(arrays["distance"][k]))
    fit = Fit(arrays["identity"][k], camera=camera, **{key: arrays[key][k] for key in FIT})
    own = {key: arrays[key][k] for key in PERSON if key != "iris"}
    red, green, blue = (float(c) for c in arrays["iris"][k])
    return Person(str(arrays["names"][k]), iris=(red, green, blue), photo=Photo(arrays["pixels"][k], fit), **own)
