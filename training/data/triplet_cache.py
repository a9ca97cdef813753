"""Triplets of a data folder, made once and cached beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mattface.errors import InputError
from mattface.training.checkpoint import load_state, save_state
from mattface.training.config import Data, TripletRecipe
from mattface.training.data.mesh_triplets import PARSER, MeshSwapper, make_mesh_triplets
from mattface.training.data.portraits import crop_portraits, pictures_in, training_portraits
from mattface.training.data.studio_triplets import read_studio_triplets
from mattface.training.data.triplets import MemoryTriplets

Made = tuple[MemoryTriplets, tuple[str, ...]]
"""Triplets, and sentences about what was left out of them."""


def load_triplets(recipe: TripletRecipe, data: Data) -> Made:
    """Mesh swaps of the portraits and triplets of the studio in a folder, made once and cached beside the run.

    Raises:
        InputError: the folder holds neither portraits nor shards.
    """
    parts, notes, seed = [], [], recipe.loop.seed
    if pictures_in(data.root):
        wanted: dict[str, Any] = {"size": recipe.size, "count": recipe.mesh_swaps, "same": recipe.same, "seed": seed}
        wanted |= {"parser": PARSER, "shape": recipe.config.shape, "files": file_sizes(training_portraits(data.root))}
        triplets, said = cached(data.out / "triplets-mesh.pt", wanted, lambda: make_of_portraits(recipe, data.root))
        parts.append(triplets)
        notes += [f"{triplets.count} triplets made by mesh", *said]
    if shards := sorted(data.root.glob("*.tar")):
        wanted = {"size": recipe.size, "parser": PARSER, "files": file_sizes(shards)}
        triplets, said = cached(
            data.out / "triplets-studio.pt", wanted, lambda: read_studio_triplets(shards, recipe.size)
        )
        parts.append(triplets)
        notes += [f"{triplets.count} triplets of the studio", *said]
    if not parts:
        raise InputError(f"{data.root} must hold portraits, or shards of triplets (*.tar), or both; found neither.")
    return MemoryTriplets.concatenate(parts), tuple(notes)


def file_sizes(paths: Sequence[Path]) -> list[str]:
    """Names and sizes of files."""
    return [f"{path.name} {path.stat().st_size}" for path in paths]


def cached(path: Path, wanted: dict[str, Any], make: Callable[[], Made]) -> Made:
    """The triplets in a file, if they were made from what is wanted now; else they are made, and cached there.

    Args:
        path: the file; it says what its triplets were made from, and what was left out.
        wanted: settings and files that the triplets depend on, as JSON can say them.
        make: makes them.
    """
    origin, there = json.dumps(wanted, sort_keys=True), load_state(path)
    if there is not None and there.get("origin") == origin:
        return MemoryTriplets(there["maps"]), tuple(there["notes"])
    triplets, notes = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state(path, {"maps": triplets.maps, "origin": origin, "notes": list(notes)})
    if there is not None:
        notes = (*notes, f"{path.name} held triplets of other files or settings and was made anew")
    return triplets, notes


def make_of_portraits(recipe: TripletRecipe, root: Path) -> Made:
    """Mesh swaps of the portraits in a folder."""
    paths = training_portraits(root)
    crops = crop_portraits(paths, 2 * recipe.size)
    missed = len(paths) - len(crops)
    notes = (f"{missed} of {len(paths)} portraits were left out: no face was found",) if missed else ()
    swapper = MeshSwapper(crops, recipe.config.shape)
    return make_mesh_triplets(swapper, recipe.size, recipe.mesh_swaps, recipe.same, recipe.loop.seed), notes
