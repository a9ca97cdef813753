"""Pairs kept beside a run: used again for the same files and settings, made anew for others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mattface.errors import InputError
from mattface.training import kept_pairs
from mattface.training.pairs import PairStore
from mattface.training.recipes.mattface_demo import Recipe, tiny
from mattface.training.tasks import Data


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """What was made so far, by makers that need no landmarks."""
    calls: list[str] = []

    def store(name: str, count: int) -> PairStore:
        calls.append(name)
        return PairStore({"source": torch.full((count, 3, 4, 4), len(calls), dtype=torch.uint8)})

    def studio(shards: list[Path], size: int) -> tuple[PairStore, tuple[str, ...]]:
        return store("studio", len(shards)), ("1 of 9 triplets were left out",)

    monkeypatch.setattr(kept_pairs, "studio_pairs", studio)
    monkeypatch.setattr(kept_pairs, "made_by_teacher", lambda recipe, root: (store("mesh", 2), ()))
    return calls


@pytest.fixture
def data(tmp_path) -> Data:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "t-0.tar"):
        (root / name).write_bytes(b"x")
    return Data(root, out=tmp_path / "run")


def test_the_same_files_and_settings_are_made_once_with_their_notes(data, made):
    first, notes = kept_pairs.store_of(tiny(), data)
    again, told = kept_pairs.store_of(tiny(), data)
    assert made == ["mesh", "studio"]
    assert torch.equal(first.maps["source"], again.maps["source"]) and first.count == 3
    said = ("2 pairs answered by mesh", "1 pairs answered by studio", "1 of 9 triplets were left out")
    assert notes == told == said


def changed(**fields: object) -> Recipe:
    return replace(tiny(), **fields)


@pytest.mark.parametrize(
    ("recipe", "anew"),
    [
        (changed(size=16), ["mesh", "studio"]),
        (changed(pairs=25), ["mesh"]),
        (changed(same=0.5), ["mesh"]),
        (changed(seed=1), ["mesh"]),
        (changed(config=replace(tiny().config, shape=0.25)), ["mesh"]),
        (changed(steps=1, rate=0.5), []),
    ],
)
def test_other_settings_make_what_depends_on_them_anew(data, made, recipe, anew):
    kept_pairs.store_of(tiny(), data)
    made.clear()
    _, notes = kept_pairs.store_of(recipe, data)
    assert made == anew
    assert sum("was made anew" in note for note in notes) == len(anew)


@pytest.mark.parametrize(("name", "anew"), [("t-0.tar", ["studio"]), ("t-1.tar", ["studio"]), ("a.png", ["mesh"])])
def test_other_files_make_their_pairs_anew(data, made, name, anew):
    kept_pairs.store_of(tiny(), data)
    made.clear()
    (data.root / name).write_bytes(b"longer")
    kept_pairs.store_of(tiny(), data)
    assert made == anew


def test_maps_without_an_origin_are_not_trusted(data, made):
    data.out.mkdir()
    torch.save({"source": torch.zeros(9, 3, 4, 4, dtype=torch.uint8)}, data.out / "pairs-mesh.pt")
    store, _ = kept_pairs.store_of(tiny(), data)
    assert made == ["mesh", "studio"] and store.count == 3


def test_a_folder_with_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold portraits, or shards"):
        kept_pairs.store_of(tiny(), Data(tmp_path, out=tmp_path))
