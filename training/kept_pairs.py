"""Answered pairs of a data folder, made once and kept beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mattface.errors import InputError
from mattface.training.checkpoint import load_state, save_state
from mattface.training.pairs import PARSER, PairStore, Teacher, crops_of, make_pairs, pictures, training_portraits
from mattface.training.recipes.mattface_demo import Recipe
from mattface.training.studio_pairs import studio_pairs
from mattface.training.tasks import Data

Made = tuple[PairStore, tuple[str, ...]]
"""Pairs, and sentences about what was left out of them."""


def store_of(recipe: Recipe, data: Data) -> Made:
    """Pairs of portraits answered by the teacher and triplets of the studio, made once and kept beside the run."""
    stores, notes = [], []
    if pictures(data.root):
        wanted = {k: getattr(recipe, k) for k in ("size", "pairs", "same", "seed")} | {"parser": PARSER}
        wanted["shape"] = recipe.config.shape
        wanted["files"] = listed(training_portraits(data.root))
        store, said = kept(data.out / "pairs-mesh.pt", wanted, lambda: made_by_teacher(recipe, data.root))
        stores.append(store)
        notes += [f"{store.count} pairs answered by mesh", *said]
    if shards := sorted(data.root.glob("*.tar")):
        wanted = {"size": recipe.size, "parser": PARSER, "files": listed(shards)}
        store, said = kept(data.out / "pairs-studio.pt", wanted, lambda: studio_pairs(shards, recipe.size))
        stores.append(store)
        notes += [f"{store.count} pairs answered by studio", *said]
    if not stores:
        raise InputError(f"{data.root} must hold portraits, or shards of triplets (*.tar), or both; found neither.")
    return PairStore.joined(stores), tuple(notes)


def listed(paths: Sequence[Path]) -> list[str]:
    """Names and sizes of files."""
    return [f"{path.name} {path.stat().st_size}" for path in paths]


def kept(path: Path, wanted: dict[str, Any], make: Callable[[], Made]) -> Made:
    """The pairs in a file, if they were made from what is wanted now; else they are made, and kept there.

    Args:
        path: the file; it says what its pairs were made from, and what was left out.
        wanted: settings and files that the pairs depend on, as JSON can say them.
        make: makes them.
    """
    origin, there = json.dumps(wanted, sort_keys=True), load_state(path)
    if there is not None and there.get("origin") == origin:
        return PairStore(there["maps"]), tuple(there["notes"])
    store, notes = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state(path, {"maps": store.maps, "origin": origin, "notes": list(notes)})
    if there is not None:
        notes = (*notes, f"{path.name} held pairs of other files or settings and was made anew")
    return store, notes


def made_by_teacher(recipe: Recipe, root: Path) -> Made:
    """Mesh pairs of the portraits in a folder."""
    paths = training_portraits(root)
    crops = crops_of(paths, 2 * recipe.size)
    missed = len(paths) - len(crops)
    notes = (f"{missed} of {len(paths)} portraits were left out: no face was found",) if missed else ()
    store = make_pairs(Teacher(crops, recipe.config.shape), recipe.size, recipe.pairs, recipe.same, recipe.seed)
    return store, notes
