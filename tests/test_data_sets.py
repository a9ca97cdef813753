"""Data sets in their official layouts, made up of drawn people: prepared, and trained on for a step or two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_train_swaps import toy_networks  # noqa: F401  (a fixture: small networks in place of those that losses ask)

from mattface.cli import main
from mattface.errors import InputError
from mattface.training.data.catalogue import Catalogue, catalogue
from mattface.training.data.celebamask import TEST, USUAL
from mattface.training.data.photo import Settings, aligned
from mattface.training.data.prepare import prepare
from mattface.training.data.records import read_mask, read_mesh
from mattface.training.data.report import describe_work

SIDE, MASK = 256, 128
"""Of the pictures and of their masks: twice as large, as in the real data set."""
NUMBERS = (0, 1, 2000, 2001, TEST, TEST + 1)
SETTINGS = Settings(size=64, smallest=32)


@pytest.fixture(scope="module")
def people(need: Callable[..., None]) -> list[np.ndarray]:
    """Three people who do not exist, twice each: as they are, and mirrored."""
    need("mattface-demo", "centerface", "face-mesh")
    from mattface import sampling

    sampler = sampling.load(device="cpu")
    drawn = [np.asarray(Image.fromarray(sampler(k)).resize((SIDE, SIDE), Image.Resampling.BOX)) for k in range(3)]
    return [picture for one in drawn for picture in (one, one[:, ::-1])]


def mask(path: Path, top: float, bottom: float, size: int = MASK) -> None:
    """White between two heights, in parts of the side."""
    pixels = np.zeros((size, size), np.uint8)
    pixels[int(top * size) : int(bottom * size)] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def part(root: Path, number: int, name: str) -> Path:
    """Where the mask of a part lies."""
    return root / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{name}.png"


def celebamask(root: Path, people: list[np.ndarray], identities: bool = True) -> Path:
    """CelebAMask-HQ: the face in the middle, hair above it and over a part of the skin."""
    (root / "CelebA-HQ-img").mkdir(parents=True)
    mapping, who = ["idx    orig_idx    orig_file"], []
    for k, (number, picture) in enumerate(zip(NUMBERS, people, strict=True)):
        Image.fromarray(picture).save(root / "CelebA-HQ-img" / f"{number}.jpg", quality=95)
        for name in USUAL:
            mask(part(root, number, name), 0.1 if name == "skin" else 0.5, 0.95 if name == "skin" else 0.7)
        mask(part(root, number, "hair"), 0, 0.5)
        mapping.append(f"{number}   {100 + k}   {101 + k:06d}.jpg")
        who.append(f"{101 + k:06d}.jpg {7 + k // 2}")
    if identities:
        (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")
        (root / "identity_CelebA.txt").write_text("\n".join(who) + "\n")
    return root


def ffhq(root: Path, people: list[np.ndarray]) -> Path:
    """FFHQ in folders of a thousand."""
    for k, picture in enumerate(people):
        path = root / "images1024x1024" / f"{k // 3:02d}000" / f"{k // 3 * 1000 + k:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return root


def train(name: str, data: Path, out: Path, *changes: str) -> list[dict[str, float]]:
    """Two steps of a tiny recipe by the command line; its metrics."""
    command = ["train", name, "--tiny", "--data", str(data), "--out", str(out), "--device", "cpu"]
    for change in changes:
        command += ["--set", change]
    assert main(command) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("layout", ["celebamask-hq", "ffhq"])
def test_a_data_set_is_prepared_and_trained_on(tmp_path, people, toy_networks, capsys, layout):  # noqa: F811
    make, split = (celebamask, ["--split", "mattface"]) if layout == "celebamask-hq" else (ffhq, [])
    root, out = make(tmp_path / "set", people), tmp_path / "out"
    assert main(["data", "prepare", str(root), str(out), "--size", "64", "--smallest", "32", *split]) == 0
    said, identities = capsys.readouterr().out, 3 if split else 6
    assert f"6 of 6 photos kept, {identities} identities" in said
    found = catalogue(out)
    assert len(found.identities()) == identities and all(r.masks and r.mesh for r in found.records)
    if split:
        assert "CelebAMask-HQ layout: 6 pictures, 3 identities, official masks, 4 to train and 2 to test" in said
        assert [r.name for r in found.split(4)[1].records] == ["28000", "28001"]
    else:
        assert "FFHQ layout: 6 pictures, every picture its own identity" in said
    short = ["loop.images=12", "loop.save_every=12", "loop.grid_every=0", "loop.score_every=0"]
    assert all(np.isfinite(v) for row in train("mattface", out, tmp_path / "a", *short) for v in row.values())
    short = ["loop.images=8", "loop.save_every=8", "loop.grid_every=0", "network.code=16", "loss.clip_text=0"]
    assert all(np.isfinite(v) for row in train("alphaface", out, tmp_path / "b", *short) for v in row.values())


def test_the_official_mask_is_cut_as_its_picture_is(tmp_path, people):
    """Hair, from above down to the middle of the picture, hides the face there; below it skin is seen."""
    root = celebamask(tmp_path / "set", people)
    prepare(catalogue(root), tmp_path / "out", SETTINGS)
    prepare(catalogue(root / "CelebA-HQ-img"), tmp_path / "parsed", SETTINGS)
    for record in catalogue(tmp_path / "out").records:
        inner, mesh = read_mask(record, 64), read_mesh(record, 64)
        top, bottom = mesh[[10, 152], 1]
        middle = int(mesh[:, 0].mean())
        seen = np.flatnonzero(inner[:, middle] > 0.5)
        assert seen.max() == pytest.approx(bottom, abs=5)
        assert seen.min() > top + 0.2 * (bottom - top), "hair lies over the forehead"
    parsed = read_mask(catalogue(tmp_path / "parsed").records[0], 64)
    assert np.flatnonzero(parsed[:, middle] > 0.5).min() < seen.min(), "the parser knows nothing of that hair"


def test_a_mask_of_another_size_than_its_picture_stays_on_its_place():
    """The mask says where it is: its value is the picture's x over the picture's width."""
    ramp = np.tile((np.arange(50, dtype=np.float32) + 0.5) / 50, (40, 1))
    image_to_crop = np.array([[0.5, 0, -20], [0, 0.5, -30], [0, 0, 1]])  # the picture has 400x320 pixels
    cut = aligned(ramp, (320, 400), image_to_crop, 60)
    assert cut == pytest.approx(np.tile(((np.arange(60) + 0.5 + 20) / 0.5) / 400, (60, 1)), abs=1e-3)
    beyond = aligned(np.ones((40, 50), np.float32), (320, 400), np.array([[0.5, 0, 30], [0, 0.5, 0], [0, 0, 1]]), 60)
    assert beyond[10:, :26].max() < 0.01 and beyond[10:, 34:].min() > 0.99, "nothing is beyond the border"


def test_bad_masks_are_named_and_missing_parts_are_counted(tmp_path, people):
    root = celebamask(tmp_path / "set", people)
    part(root, 0, "nose").write_bytes(b"no PNG")
    mask(part(root, 1, "l_eye"), 0.3, 0.4, size=96)
    part(root, 2000, "skin").unlink()
    for name in ("l_brow", "r_brow"):
        part(root, 2001, name).unlink()
    part(root, TEST, "l_brow").unlink()
    report = prepare(catalogue(root), tmp_path / "out", SETTINGS)
    bad = report["dropped"]["bad mask"]
    assert len(bad) == 3 and report["kept"] == 3
    assert "CelebA-HQ-img/0.jpg" in bad[0] and "00000_nose.png must be a picture; it is damaged" in bad[0]
    assert "00001_l_eye.png must have the shape of its picture (256x256) and the size of the other masks" in bad[1]
    assert "(128x128); got 96x96" in bad[1]
    assert "CelebA-HQ-img/2000.jpg: part skin is not annotated" in bad[2]
    rows = describe_work(report, tmp_path / "out").splitlines()
    assert rows[0].startswith("3 of 6 photos kept, 2 identities")
    assert rows[1].startswith("  dropped, bad mask: 3 (CelebA-HQ-img/0.jpg: ")
    assert rows[2:] == [
        "  kept, mask lacks l_brow: 2 (CelebA-HQ-img/2001.jpg, CelebA-HQ-img/28000.jpg)",
        "  kept, mask lacks r_brow: 1 (CelebA-HQ-img/2001.jpg)",
    ]
    assert {path.stem for path in (tmp_path / "out" / "img").iterdir()} == {"02001", "28000", "28001"}


def test_identities_that_arrive_later_are_taken_up(tmp_path, people):
    root, out = celebamask(tmp_path / "set", people, identities=False), tmp_path / "out"
    first = prepare(catalogue(root), out, SETTINGS)
    assert first["identities"] == 6 and "a same-identity pair is a picture with itself" in first["notes"][0]
    (root / "CelebA-HQ-identity.txt").write_text("".join(f"{n}.jpg {k // 2}\n" for k, n in enumerate(NUMBERS)))
    assert prepare(catalogue(root), out, SETTINGS)["identities"] == 3
    assert len(catalogue(out).identities()) == 3


def test_folders_that_do_not_go_together_are_rejected(tmp_path, people):
    root = celebamask(tmp_path / "set", people)
    with pytest.raises(InputError, match="OUT must lie outside the folder of photos"):
        prepare(catalogue(root), root / "out", SETTINGS)
    with pytest.raises(InputError, match="it holds shards"):
        prepare(Catalogue(tmp_path, "shards", ()), tmp_path.parent / "out", SETTINGS)
    out = tmp_path / "out"
    out.mkdir()
    (out / "prepared.jsonl").write_text('{"name": 3}\n')
    with pytest.raises(InputError, match=r"prepared.jsonl must have JSON in every line; it is damaged"):
        prepare(catalogue(root), out, SETTINGS)
    (out / "prepared.jsonl").unlink()
    prepare(catalogue(root), out, SETTINGS)
    for path in (root / "CelebAMask-HQ-mask-anno").rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"'masks': 'from the data'.*'masks': 'from the parser'"):
        prepare(catalogue(root), out, SETTINGS)
