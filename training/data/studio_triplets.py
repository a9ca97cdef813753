"""The studio's triplets in memory, seen as a user's pictures are: landmarks are found, not known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mattface import perception
from mattface.errors import InputError
from mattface.landmarks import Landmarker
from mattface.mesh.shape import canonical_coordinates
from mattface.parse import Parser
from mattface.training.data.mesh_triplets import PARSER
from mattface.training.data.triplet_batch import Triplets, pack
from mattface.training.data.triplets import MemoryTriplets
from mattface.training.studio.stream import as_tensors, read_shard
from mattface.training.studio.triplet import Triplet
from mattface.vocabulary import Crop, Face

SURE = 0.3
"""Presence below which a face counts as not found."""


def as_detection(marks: np.ndarray) -> Face:
    """A detection as the detector would give it, from the 68 landmarks (68, 2 or more) that a render knows."""
    xy = np.asarray(marks, np.float64)[:, :2]
    points = np.stack([xy[36:42].mean(0), xy[42:48].mean(0), xy[30], xy[48], xy[54]])
    return Face(np.concatenate([xy.min(0), xy.max(0)]), 1.0, points)


def find_mesh(pixels: np.ndarray, marks: np.ndarray, locate: Landmarker) -> np.ndarray | None:
    """(468, 3) landmarks found in (S, S, 3) uint8 pixels; None where no face is seen."""
    face = locate(pixels, as_detection(marks))
    return face.mesh if face.presence is not None and face.presence >= SURE else None


def read_as_photo(triplet: Triplet, locate: Landmarker, parser: Parser, size: int) -> Triplets | None:
    """A triplet as a batch of one of that size; None where the landmarks of a face are not found.

    The mask is what the parser lets through, as in use; nothing beyond it is replaced.
    """
    found = {k: find_mesh(getattr(triplet, k), triplet.landmarks[k], locate) for k in ("source", "target", "swap")}
    source, target, swap = found["source"], found["target"], found["swap"]
    if source is None or target is None or swap is None:
        return None
    side = len(triplet.swap)
    made = {k: v[None] for k, v in as_tensors(triplet).items() if k != "exact"}
    mask = parser(Crop(made["target"], np.eye(3), target, as_detection(triplet.landmarks["target"]).points))
    made |= {"mask": mask, "matte": made["matte"] * mask}
    known = [torch.from_numpy(canonical_coordinates(m * (size / side), size))[None] for m in (source, swap)]
    return Triplets(**made, source_canonical=known[0], canonical=known[1]).shrink(size)


def read_studio_triplets(shards: Sequence[Path], size: int) -> tuple[MemoryTriplets, tuple[str, ...]]:
    """The triplets of these shards, on whose faces landmarks are found, at that size.

    Returns:
        The triplets, and a sentence about every damaged shard, which is left out whole, and about faces not found.

    Raises:
        InputError: no triplet shows faces.
    """
    locate, parser = perception.load("landmarks"), perception.load("parser", PARSER)
    maps: dict[str, list[torch.Tensor]] = {}
    notes, seen, hidden = [], 0, 0
    for shard in tqdm(shards, desc="triplets", disable=None):
        try:
            found = [read_as_photo(triplet, locate, parser, size) for triplet in read_shard(shard)]
        except (InputError, OSError) as error:
            notes.append(f"shard {shard.name} was left out: {error}")
            continue
        seen, hidden = seen + len(found), hidden + found.count(None)
        for triplets in found:
            for name, value in {} if triplets is None else triplets.maps.items():
                maps.setdefault(name, []).append(pack(name, value[0]))
    if hidden:
        notes.append(f"{hidden} of {seen} triplets were left out: landmarks of a face were not found")
    if not maps:
        said = "".join(f" ({note})" for note in notes)
        raise InputError(f"expected triplets that show faces in {len(shards)} shards; found none{said}.")
    return MemoryTriplets({name: torch.stack(values) for name, values in maps.items()}), tuple(notes)
