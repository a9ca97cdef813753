"""Triplets of the studio: exact, repeatable, streamed, written and read. Needs numba, no reference data."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="numba is not installed: pip install mattface[train]")

from studio_head import portrait, synthetic_model

from mattface.cli import main
from mattface.errors import InputError, UsageError, WeightsError
from mattface.training.studio import occluders, stream
from mattface.training.studio.face_model import save_model
from mattface.training.studio.people import Studio, build, mix_people
from mattface.training.studio.render import Renderer
from mattface.training.studio.shots import KINDS, Config
from mattface.training.studio.studio_file import load_studio, save_studio
from mattface.training.studio.texture import sample_image
from mattface.training.studio.triplets import TripletMaker

SIZE = 96


@pytest.fixture(scope="module")
def studio() -> Studio:
    photos = [(f"p{k}", *portrait(256, 6.0 * k, k)) for k in range(3)]
    return build(photos, synthetic_model(), size=192, side=64)


@pytest.fixture(scope="module")
def make(studio) -> TripletMaker:
    return TripletMaker(studio, Config(size=SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_triplet_again(make, studio, kind):
    first, again = make(7, kind), TripletMaker(studio, Config(size=SIZE))(7, kind)
    other = make(9, "head")
    for name in ("source", "target", "swap", "flow", "visible", "matte", "mask", "depth"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.target, other.target)
    assert first.kind == kind and first.exact == (kind != "inexact")


@pytest.mark.parametrize("kind", ["head", "photo"])
def test_outside_the_matte_the_swap_is_the_target(make, kind):
    """But for the photograph that follows another outline, and interpolation at the matte's rim."""
    for seed in range(4):
        made = make(seed, kind)
        apart = np.abs(made.swap.astype(int) - made.target).max(-1)
        outside = (made.matte == 0) & (made.occluder == 0)
        assert outside.mean() > 0.2
        assert (apart[outside] > 8).mean() < (0.02 if kind == "head" else 0.08)


def test_same_person_gives_the_target_back(studio):
    make = TripletMaker(studio, Config(size=SIZE, same=1.0, occluded=0.0))
    made = make(3, "photo")
    assert np.abs(made.swap.astype(int) - made.target).mean() < 6
    assert np.allclose(made.coefficients["source_identity"], made.coefficients["target_identity"])


def test_occluders_lie_before_target_and_swap_alike(studio):
    make = TripletMaker(studio, Config(size=SIZE, occluded=4.0))
    made = make(1, "head")
    covered = made.occluder > 0.999
    assert covered.mean() > 0.01
    assert np.array_equal(made.swap[covered], made.target[covered])
    assert made.matte[covered].max() < 2e-3 and made.visible[covered].max() < 2e-3


def test_hair_over_a_photographed_face_stays_the_targets(studio):
    """All but what may bear a beard is said to be covered: matte and face are 0 there, and the swap is the target."""
    hidden = [replace(p, cover=np.full_like(p.cover, 255)) for p in studio.people]
    config = Config(size=SIZE, occluded=0.0, same=0.0, new_people=0.0)
    free, made = (TripletMaker(s, config)(5, "photo") for s in (studio, replace(studio, people=hidden)))
    gone = (free.mask > 0.9) & (made.mask == 0)
    assert gone.mean() > 0.5 * (free.mask > 0.9).mean()
    assert made.matte[gone].max() == 0 and np.array_equal(made.swap[gone], made.target[gone])


@pytest.mark.parametrize("kind", list(occluders.KINDS))
def test_every_occluder_covers_something_within_bounds(make, studio, kind):
    shot = make.photographer.shot(studio.people[0], np.random.default_rng(0), "head")
    head = make.head(shot, 0)
    drawing = make.renderer(head, shot.camera, shot.light, SIZE)
    colour, cover = occluders.KINDS[kind](SIZE, drawing, studio.model, np.random.default_rng(1))
    assert 0.005 < (cover > 0).mean() < 0.8 and cover.min() >= 0 and cover.max() <= 1 + 1e-6
    assert (colour[cover == 0] == 0).all() and np.isfinite(colour).all()


def test_the_flow_carries_the_source_to_the_swap(studio):
    """Under light that does not change, the source's pixels at the flow's positions are the swap's own."""
    make = TripletMaker(studio, Config(size=192, tone=0.0, occluded=0.0, same=0.0, wide=0.0, new_people=0.0))
    rng = np.random.default_rng(2)
    source, target = (make.photographer.shot(studio.people[k], rng, "head") for k in (0, 1))
    target = replace(target, light=source.light, camera=source.camera)
    made = make._finished(source, target, "head", 5, rng)
    weight = made.visible * (made.mask > 0.99) * (made.matte > 0.99)
    carried = sample_image(made.source, made.flow).astype(int)
    apart = np.abs(carried - made.swap).mean(-1)[weight > 0.99]
    assert len(apart) > 1000 and np.median(apart) < 4


def test_depth_and_landmarks_belong_to_the_swap(make):
    made = make(2, "head")
    assert np.isfinite(made.depth).mean() > 0.1
    x, y, _ = made.landmarks["swap"][30]
    assert 0 < x < SIZE and 0 < y < SIZE
    assert made.coefficients["target_pose"].shape == (3,)


def test_both_renderers_make_the_same_triplet(studio, make):
    other = TripletMaker(studio, Config(size=SIZE), Renderer(studio.model, "torch"))
    for kind in KINDS:
        one, two = make(11, kind), other(11, kind)
        for name in ("source", "target", "swap"):
            assert np.abs(getattr(one, name).astype(int) - getattr(two, name)).max() <= 1


def test_mixed_people_are_new_and_repeatable(studio):
    one, again = (mix_people(studio, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.identity, again.identity) and one.photo is None
    assert all(not np.allclose(one.identity, p.identity) for p in studio.people)


def test_a_studio_survives_its_file(studio, make, tmp_path):
    save_studio(studio, tmp_path / "people.npz")
    again = load_studio(tmp_path / "people.npz", studio.model)
    assert np.array_equal(TripletMaker(again, Config(size=SIZE))(5, "photo").source, make(5, "photo").source)
    assert [p.name for p in tmp_path.iterdir()] == ["people.npz"]
    (tmp_path / "people.npz").write_bytes(b"PK\x03\x04 of something else")
    with pytest.raises(WeightsError, match="expected NumPy arrays"):
        load_studio(tmp_path / "people.npz", studio.model)


@pytest.mark.parametrize("config", [Config(size=2048), Config(size=97), Config(kinds=(1.0, 1.0, 0.0))])
def test_impossible_configurations_are_rejected(studio, config):
    with pytest.raises(UsageError, match="expected"):
        TripletMaker(studio, config)


def test_samples_are_what_training_takes(make):
    sample = stream.as_tensors(make(0, "photo"))
    assert sample["flow"].shape == (2, SIZE, SIZE) and sample["mask"].shape == (1, SIZE, SIZE)
    assert sample["source"].min() >= -1 and sample["source"].max() <= 1
    assert all(torch.isfinite(v).all() for v in sample.values())


def test_shards_are_read_as_they_were_written(make, tmp_path):
    paths = stream.write_shards(make, tmp_path, count=3, per_shard=2, seed=30)
    assert [p.name for p in paths] == ["triplets-000000.tar", "triplets-000001.tar"]
    found = [t for p in paths for t in stream.read_shard(p)]
    for k, got in enumerate(found):
        wanted = make(30 + k)
        assert np.array_equal(got.swap, wanted.swap) and np.array_equal(got.flow, wanted.flow)
        assert np.abs(got.matte - wanted.matte).max() <= 1 / 255
        assert got.kind == wanted.kind and got.notes == wanted.notes
        assert np.allclose(got.landmarks["target"], wanted.landmarks["target"], atol=1e-3)


def test_finished_shards_are_kept_and_broken_ones_named(make, tmp_path):
    (path,) = stream.write_shards(make, tmp_path, count=1, seed=1)
    before = path.stat().st_mtime_ns
    stream.write_shards(make, tmp_path, count=1, seed=1)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="triplets-000000"):
        list(stream.read_shard(path))


def test_an_interrupted_shard_leaves_nothing(make, tmp_path):
    def broken(seed: int):
        if seed == 1:
            raise KeyboardInterrupt
        return make(seed)

    with pytest.raises(KeyboardInterrupt):
        stream.write_shards(broken, tmp_path, count=2)
    assert list(tmp_path.iterdir()) == []


def test_shards_are_webdataset_shards(make, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    paths = stream.write_shards(make, tmp_path, count=2, per_shard=2)
    samples = list(webdataset.WebDataset([str(p) for p in paths], shardshuffle=False).decode("rgb8"))
    assert [s["__key__"] for s in samples] == ["00000000", "00000001"]
    assert np.array_equal(samples[0]["source.png"], make(0).source)
    assert samples[1]["json"]["seed"] == 1


def test_keys_and_files_of_a_shard(make, tmp_path):
    (path,) = stream.write_shards(make, tmp_path, count=1)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    wanted = ["source.png", "target.png", "swap.png", "masks.png", "flow.npy", "depth.npy", "json"]
    assert names == [f"00000000.{name}" for name in wanted]


@pytest.fixture
def people_file(studio, tmp_path: Path, monkeypatch) -> Path:
    home = tmp_path / "home"
    (home / "weights").mkdir(parents=True)
    save_model(studio.model, home / "weights" / "ict_face_model.npz")
    monkeypatch.setenv("MATTFACE_HOME", str(home))
    save_studio(studio, tmp_path / "people.npz")
    return tmp_path / "people.npz"


def test_the_command_draws_sheets_pictures_and_shards(people_file, tmp_path, capsys):
    common = ["--people", str(people_file), "--count", "2", "--size", "64"]
    assert main(["studio", "sheet", *common, "--out", str(tmp_path / "sheet.png")]) == 0
    assert main(["studio", "render", *common, "--out", str(tmp_path / "pictures"), "--kind", "head"]) == 0
    assert main(["studio", "shards", *common, "--out", str(tmp_path / "shards")]) == 0
    from PIL import Image

    assert Image.open(tmp_path / "sheet.png").size == (6 * 64, 2 * 64)
    assert len(list((tmp_path / "pictures").iterdir())) == 8
    assert "triplets-000000.tar" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_folders_without_photographs_are_rejected(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "out.npz")
    assert main(["studio", "people", "--portraits", str(tmp_path / folder), "--out", out]) == InputError.exit_code
    assert folder in capsys.readouterr().err
