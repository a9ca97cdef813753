"""A folder of drawn people that grows: codes, pictures and what the recognition network sees, as arrays on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mattface.errors import InputError, UsageError
from mattface.mesh import topology
from mattface.mesh.attributes import NAMES, attributes
from mattface.training.drawn.people import Artist
from mattface.vocabulary import FeaturePyramid, RecognitionFeatures

ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "code": (np.float16, (18, 512)),
    "picture": (np.uint8, (256, 256, 3)),
    "coarse": (np.float16, (64, 17, 17)),
    "medium": (np.float16, (128, 8, 8)),
    "fine": (np.float16, (256, 2, 2)),
    "identity": (np.float32, (128,)),
    "context": (np.float16, (4352,)),
    "attributes": (np.float32, (len(NAMES),)),
}
"""Name -> type and shape of one person's entry; attributes are NaN where no face was found."""
STATE = "people.json"
EVERY = 100
"""People between two notes of how many are there."""


@dataclass(frozen=True)
class Store:
    """People of one seed, numbers 0 on. Open one with `open_store`.

    Attributes:
        folder: of the arrays.
        seed: of the people.
        capacity: how many fit.
        count: how many are there.
    """

    folder: Path
    seed: int
    capacity: int
    count: int

    def array(self, name: str, writable: bool = False) -> np.ndarray:
        """(count or capacity, ...) one array of `ARRAYS`, mapped."""
        found = np.load(self.folder / f"{name}.npy", mmap_mode="r+" if writable else "r")
        return found if writable else found[: self.count]

    def features(self, index: torch.Tensor) -> RecognitionFeatures:
        """What is seen of people, float32."""
        rows = index.numpy()
        coarse, medium, fine, identity, context = (
            torch.from_numpy(np.asarray(self.array(name)[rows], np.float32))
            for name in ("coarse", "medium", "fine", "identity", "context")
        )
        return RecognitionFeatures(FeaturePyramid(coarse, medium, fine), identity, context)


def open_store(folder: Path, seed: int = 0, capacity: int = 10_000) -> Store:
    """Opens a store, or begins one.

    Args:
        folder: made if need be.
        seed, capacity: of a new one; those of an old one must agree.

    Raises:
        UsageError: a store of another seed or capacity.
        InputError: the folder cannot be written, or what is there is damaged.
    """
    state = folder / STATE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not state.exists():
            for name, (kind, shape) in ARRAYS.items():
                np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (capacity, *shape)).flush()
            _note(Store(folder, seed, capacity, 0))
        said = json.loads(state.read_text(encoding="utf-8"))
        found = Store(folder, int(said["seed"]), int(said["capacity"]), int(said["count"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"expected drawn people in {folder}; {error}. Remove it or take another.") from error
    if (found.seed, found.capacity) != (seed, capacity):
        raise UsageError(
            f"{folder} holds up to {found.capacity} people of seed {found.seed}; got {capacity} and {seed}. "
            "Take another folder."
        )
    return found


def extend(store: Store, artist: Artist, count: int, progress: bool = True) -> Store:
    """Draws on until a store holds `count` people; what was drawn before an interruption stays.

    Args:
        store: see there.
        artist: draws.
        count: at most the capacity.
        progress: show it.

    Raises:
        UsageError: more than fit.
    """
    if count > store.capacity:
        raise UsageError(f"{store.folder} holds up to {store.capacity} people; got {count}. Take another folder.")
    arrays = {name: store.array(name, writable=True) for name in ARRAYS}
    numbers, mean = range(store.count, count), topology().mean
    people = artist.people(store.seed, numbers)
    for number, person in zip(numbers, tqdm(people, total=len(numbers), disable=not progress), strict=True):
        seen = person.features
        measured = [np.nan] * len(NAMES) if person.mesh is None else list(attributes(person.mesh, mean).values())
        values = (person.w_plus, person.picture[None], *seen.pyramid.levels(), seen.identity, seen.context, [measured])
        for name, value in zip(ARRAYS, values, strict=True):
            arrays[name][number] = np.asarray(value)[0]
        if (number + 1) % EVERY == 0 or number + 1 == count:
            store = Store(store.folder, store.seed, store.capacity, number + 1)
            _note(store)
    return store


def _note(store: Store) -> None:
    """Writes how many people are there, whole or not at all."""
    part = store.folder / f".{STATE}.part"
    part.write_text(json.dumps({"seed": store.seed, "capacity": store.capacity, "count": store.count}), "utf-8")
    part.replace(store.folder / STATE)
