"""The studio's triplets as pairs with an answer, seen as a user's pictures are: landmarks are found, not known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mattface import landmarks
from mattface.errors import InputError
from mattface.mesh.shape import canonical
from mattface.parse import Parser, load_parser
from mattface.training.augment import PlacedPairs
from mattface.training.pairs import PARSER, PairStore, pack, shrink
from mattface.training.studio.stream import read_shard, tensors
from mattface.training.studio.triplet import Triplet
from mattface.vocabulary import Crop, Face

SURE = 0.3
"""Presence below which a face counts as not found."""


def face_of(marks: np.ndarray) -> Face:
    """A detection as the detector would give it, from the 68 landmarks (68, 2 or more) that a render knows."""
    xy = np.asarray(marks, np.float64)[:, :2]
    points = np.stack([xy[36:42].mean(0), xy[42:48].mean(0), xy[30], xy[48], xy[54]])
    return Face(np.concatenate([xy.min(0), xy.max(0)]), 1.0, points)


def mesh_in(pixels: np.ndarray, marks: np.ndarray, measure: landmarks.Landmarker) -> np.ndarray | None:
    """(468, 3) landmarks found in (S, S, 3) uint8 pixels; None where no face is seen."""
    face = measure(pixels, face_of(marks))
    return face.mesh if face.presence is not None and face.presence >= SURE else None


def pair_of(triplet: Triplet, measure: landmarks.Landmarker, parser: Parser, size: int) -> PlacedPairs | None:
    """A triplet as a batch of one of side `size`; None where the landmarks of a face are not found.

    The mask is what the parser lets through, as in use; nothing beyond it is replaced.
    """
    found = {k: mesh_in(getattr(triplet, k), triplet.landmarks[k], measure) for k in ("source", "target", "swap")}
    source, target, swap = found["source"], found["target"], found["swap"]
    if source is None or target is None or swap is None:
        return None
    side = len(triplet.swap)
    made = {k: v[None] for k, v in tensors(triplet).items() if k != "exact"}
    mask = parser(Crop(made["target"], np.eye(3), target, face_of(triplet.landmarks["target"]).points))
    made |= {"mask": mask, "matte": made["matte"] * mask}
    places = [torch.from_numpy(canonical(m * (size / side), size))[None] for m in (source, swap)]
    return shrink(PlacedPairs(**made, source_places=places[0], places=places[1]), size)


def studio_pairs(shards: Sequence[Path], size: int) -> tuple[PairStore, tuple[str, ...]]:
    """The triplets of these shards, on whose faces landmarks are found, as pairs of side `size`.

    Returns:
        The pairs, and a sentence about every damaged shard, which is left out whole, and about faces not found.

    Raises:
        InputError: no triplet shows faces.
    """
    measure, parser = landmarks.load_landmarker(), load_parser(PARSER)
    maps: dict[str, list[torch.Tensor]] = {}
    notes, seen, hidden = [], 0, 0
    for shard in tqdm(shards, desc="triplets", disable=None):
        try:
            found = [pair_of(triplet, measure, parser, size) for triplet in read_shard(shard)]
        except (InputError, OSError) as error:
            notes.append(f"shard {shard.name} was left out: {error}")
            continue
        seen, hidden = seen + len(found), hidden + found.count(None)
        for pair in found:
            for name, value in {} if pair is None else vars(pair).items():
                maps.setdefault(name, []).append(pack(name, value[0]))
    if hidden:
        notes.append(f"{hidden} of {seen} triplets were left out: landmarks of a face were not found")
    if not maps:
        told = "".join(f" ({note})" for note in notes)
        raise InputError(f"expected triplets that show faces in {len(shards)} shards; found none{told}.")
    return PairStore({name: torch.stack(values) for name, values in maps.items()}), tuple(notes)
