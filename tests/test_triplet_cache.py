"""Triplets cached beside a run: used again for the same files and settings, made anew for others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mattface.errors import InputError
from mattface.training.config import Data, TripletRecipe
from mattface.training.data import triplet_cache
from mattface.training.data.triplets import MemoryTriplets
from mattface.training.recipes.mattface_demo import tiny


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """What was made so far, by makers that need no landmarks."""
    calls: list[str] = []

    def store(name: str, count: int) -> MemoryTriplets:
        calls.append(name)
        return MemoryTriplets({"source": torch.full((count, 3, 4, 4), len(calls), dtype=torch.uint8)})

    def studio(shards: list[Path], size: int) -> tuple[MemoryTriplets, tuple[str, ...]]:
        return store("studio", len(shards)), ("1 of 9 triplets were left out",)

    monkeypatch.setattr(triplet_cache, "read_studio_triplets", studio)
    monkeypatch.setattr(triplet_cache, "make_of_portraits", lambda recipe, root: (store("mesh", 2), ()))
    return calls


@pytest.fixture
def data(tmp_path) -> Data:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "t-0.tar"):
        (root / name).write_bytes(b"x")
    return Data(root, out=tmp_path / "run")


def test_the_same_files_and_settings_are_made_once_with_their_notes(data, made):
    first, notes = triplet_cache.load_triplets(tiny(), data)
    again, again_notes = triplet_cache.load_triplets(tiny(), data)
    assert made == ["mesh", "studio"]
    assert torch.equal(first.maps["source"], again.maps["source"]) and first.count == 3
    said = ("2 triplets made by mesh", "1 triplets of the studio", "1 of 9 triplets were left out")
    assert notes == again_notes == said


def changed(**fields: object) -> TripletRecipe:
    return replace(tiny(), **fields)


@pytest.mark.parametrize(
    ("recipe", "anew"),
    [
        (changed(size=16), ["mesh", "studio"]),
        (changed(mesh_swaps=25), ["mesh"]),
        (changed(same=0.5), ["mesh"]),
        (changed(loop=replace(tiny().loop, seed=1)), ["mesh"]),
        (changed(config=replace(tiny().config, shape=0.25)), ["mesh"]),
        (changed(stages={}, optimisers={}), []),
    ],
)
def test_other_settings_make_what_depends_on_them_anew(data, made, recipe, anew):
    triplet_cache.load_triplets(tiny(), data)
    made.clear()
    _, notes = triplet_cache.load_triplets(recipe, data)
    assert made == anew
    assert sum("was made anew" in note for note in notes) == len(anew)


@pytest.mark.parametrize(("name", "anew"), [("t-0.tar", ["studio"]), ("t-1.tar", ["studio"]), ("a.png", ["mesh"])])
def test_other_files_make_their_pairs_anew(data, made, name, anew):
    triplet_cache.load_triplets(tiny(), data)
    made.clear()
    (data.root / name).write_bytes(b"longer")
    triplet_cache.load_triplets(tiny(), data)
    assert made == anew


def test_maps_without_an_origin_are_not_trusted(data, made):
    data.out.mkdir()
    torch.save({"source": torch.zeros(9, 3, 4, 4, dtype=torch.uint8)}, data.out / "triplets-mesh.pt")
    store, _ = triplet_cache.load_triplets(tiny(), data)
    assert made == ["mesh", "studio"] and store.count == 3


def test_a_folder_with_nothing_to_learn_from_is_rejected(tmp_path):
    with pytest.raises(InputError, match="must hold portraits, or shards"):
        triplet_cache.load_triplets(tiny(), Data(tmp_path, out=tmp_path))
