"""Training data: every layout is recognised, bad input is named, and a position always holds the same sample."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mattface.errors import InputError, UsageError
from mattface.mesh import topology
from mattface.training.data.catalogue import Catalogue, catalogue
from mattface.training.data.celebamask import USUAL
from mattface.training.data.feed import FacePairs, Faces, PositionFeed, mirror_mesh
from mattface.training.data.records import read_caption, read_image, read_mask, read_mesh
from mattface.training.data.shards import read_bytes
from mattface.training.randomness import shuffled_index
from mattface.training.studio import stream
from mattface.training.studio.triplet import Triplet


def picture(path: Path, size: int = 64, value: int = 120, grey: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size) if grey else (size, size, 3), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def encoded(size: int = 64, value: int = 120) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def face_mesh(size: int) -> np.ndarray:
    mesh = topology().mean * (0.25 * size)
    mesh[:, :2] += size / 2
    return mesh


def triplet_folder(root: Path, count: int = 4, meshes: bool = True, size: int = 64) -> Path:
    """What `mattface data prepare` leaves."""
    for k in range(count):
        picture(root / "img" / f"p{k}.png", size, 40 + 20 * k)
        picture(root / "mask" / f"p{k}.png", size, 255, grey=True)
        (root / "text").mkdir(exist_ok=True)
        (root / "text" / f"p{k}.txt").write_text(f"face\nnumber {k}")
        if meshes:
            (root / "mesh").mkdir(exist_ok=True)
            np.save(root / "mesh" / f"p{k}.npy", face_mesh(size).astype(np.float32))
    return root


def make_folder(root: Path) -> None:
    picture(root / "a.jpg")
    picture(root / "b.png")


def make_identities(root: Path) -> None:
    for name in ("anna/1.jpg", "anna/2.jpg", "bert/1.jpg"):
        picture(root / name)


def make_ffhq(root: Path) -> None:
    for name in ("00000/00000.png", "01000/01000.png"):
        picture(root / "images1024x1024" / name)


def make_flat_ffhq(root: Path) -> None:
    for name in ("00000", "01000"):
        picture(root / "images1024x1024" / f"{name}.png")


def make_ffhq_in_thousands(root: Path) -> None:
    for name in ("00000/00000.png", "00000/00001.png", "69000/69999.png"):
        picture(root / name)


def make_vggface2(root: Path) -> None:
    for name in ("train/n000002/0001_01.jpg", "train/n000002/0002_01.jpg", "test/n000001/0001_01.jpg"):
        picture(root / name)


def make_nested(root: Path) -> None:
    for name in ("set/anna/1.jpg", "set/anna/2.jpg", "set/bert/1.jpg", "carl.jpg"):
        picture(root / name)


def make_celeba(root: Path, identities: bool = True) -> None:
    for k in (0, 1, 2000):
        picture(root / "CelebA-HQ-img" / f"{k}.jpg")
        for part in (*USUAL, "hair"):
            picture(root / "CelebAMask-HQ-mask-anno" / str(k // 2000) / f"{k:05d}_{part}.png", 64, 255, grey=True)
    if identities:
        (root / "identity_CelebA-HQ.txt").write_text("0.jpg 17\n1.jpg 17\n2000.jpg 4\n")


def make_shards(root: Path) -> None:
    members = {}
    for k in range(2):
        members |= {f"{k}.png": encoded(), f"{k}.txt": b"a face", f"{k}.mask.png": encoded()}
        members[f"{k}.json"] = json.dumps({"identity": f"who{k}"}).encode()
    shard(root / "a-000000.tar", members)


@pytest.mark.parametrize(
    ("make", "layout", "pictures", "people", "masks", "captions"),
    [
        (make_folder, "folder", 2, 2, 0, 0),
        (make_identities, "identities", 3, 2, 0, 0),
        (make_vggface2, "vggface2", 3, 2, 0, 0),
        (make_ffhq, "ffhq", 2, 2, 0, 0),
        (make_flat_ffhq, "ffhq", 2, 2, 0, 0),
        (make_ffhq_in_thousands, "ffhq", 3, 3, 0, 0),
        (make_celeba, "celebamask-hq", 3, 2, 9, 0),
        (triplet_folder, "triplets", 4, 4, 1, 4),
        (make_shards, "shards", 2, 2, 1, 2),
    ],
)
def test_layouts_are_recognised(tmp_path, make: Callable[[Path], None], layout, pictures, people, masks, captions):
    make(tmp_path)
    found = catalogue(tmp_path)
    assert (found.layout, len(found.records), len(found.identities())) == (layout, pictures, people)
    assert found.notes == ()
    assert {len(r.masks) for r in found.records} == {masks}
    assert sum(r.caption is not None for r in found.records) == captions
    assert read_image(found.records[0], 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_folder, "folder of portraits: 2 pictures, every picture its own identity"),
        (make_ffhq_in_thousands, "FFHQ layout: 3 pictures, every picture its own identity"),
        (make_vggface2, "VGGFace2 layout: 3 pictures, 2 identities"),
        (make_celeba, "CelebAMask-HQ layout: 3 pictures, 2 identities, official masks"),
        (make_nested, "no known layout: 4 pictures, 3 identities"),
    ],
)
def test_what_was_understood_is_said_in_a_line(tmp_path, make, expected):
    make(tmp_path)
    assert catalogue(tmp_path).summary() == expected


def test_a_layout_that_is_named_goes_before_what_is_recognised(tmp_path):
    make_nested(tmp_path)
    found = {layout: catalogue(tmp_path, layout) for layout in ("auto", "folder", "identities")}
    assert [set(f.identities()) for f in found.values()] == [
        {"set/anna", "set/bert", "carl"},
        {"set/anna/1", "set/anna/2", "set/bert/1", "carl"},
        {"set", "carl"},
    ]
    assert any("share a folder count as one person; --layout" in note for note in found["auto"].notes)
    assert "1 pictures lie beside the folders; each is its own identity: carl" in found["identities"].notes
    for layout in ("celebamask-hq", "triplets", "vggface2"):
        with pytest.raises(InputError, match="found none"):
            catalogue(tmp_path, layout)


def test_a_folder_of_strangers_that_counts_as_one_person_is_pointed_out(tmp_path):
    for k in range(3):
        picture(tmp_path / "portraits" / f"{k}.png")
    picture(tmp_path / "portraits" / "1.jpg")
    found = catalogue(tmp_path)
    assert found.notes == (
        "all pictures lie in portraits and count as one person; --layout folder if they are several",
    )
    assert [r.name for r in found.records] == ["portraits/0", "portraits/1", "portraits/1_2", "portraits/2"]


def test_folders_of_thousands_are_people_unless_their_pictures_are_ffhqs(tmp_path):
    for name in ("00000/00001.png", "01000/02345.png"):
        picture(tmp_path / name)
    assert catalogue(tmp_path).layout == "identities"


MAPPING = "idx    orig_idx    orig_file\n0   119613    119614.jpg\n1   99094   099095.jpg\n2000   7   000008.jpg\n"


def test_identities_of_celeba_come_through_the_mapping(tmp_path):
    make_celeba(tmp_path, identities=False)
    lists = tmp_path / "CelebA-HQ-identity"
    lists.mkdir()
    (lists / "identity_CelebA.txt").write_text("000008.jpg 5\n099095.jpg 2880\n119614.jpg 2880\n")
    without = catalogue(tmp_path)
    assert len(without.identities()) == 3 and "CelebA-HQ-to-CelebA-mapping.txt is not" in without.notes[0]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(MAPPING)
    found = catalogue(tmp_path)
    assert {who: len(of) for who, of in found.identities().items()} == {"person-2880": 2, "person-5": 1}
    assert found.notes == ()


def test_celebamask_without_identities_says_what_that_means(tmp_path):
    make_celeba(tmp_path, identities=False)
    found = catalogue(tmp_path)
    assert len(found.identities()) == 3
    assert "a same-identity pair is a picture with itself. MAttFace pairs different" in found.notes[0]
    (tmp_path / "identity_CelebA-HQ.txt").write_text("0.jpg 17\n1.jpg 17\n")
    assert catalogue(tmp_path).notes == ("1 pictures have no identity in the list; each is its own: 02000",)
    (tmp_path / "identity_CelebA-HQ.txt").write_text("0.jpg 17\n1.jpg\n")
    with pytest.raises(InputError, match=r"identity_CelebA-HQ.txt, line 2: expected 2 columns"):
        catalogue(tmp_path)


def test_a_part_that_is_painted_later_hides_the_face(tmp_path):
    make_celeba(tmp_path)
    folder = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    half = np.zeros((64, 64), np.uint8)
    half[:32] = 255
    Image.fromarray(half).save(folder / "00000_hair.png")
    Image.fromarray(half.T).save(folder / "00000_eye_g.png")
    for part in USUAL:
        if part != "skin":
            picture(folder / f"00000_{part}.png", 64, 255 if part == "l_eye" else 0, grey=True)
    mask = read_mask(catalogue(tmp_path).records[0], 64)
    assert mask[:32].max() == 0 and mask[32:].min() == 1  # below the hair; eyes are painted over glasses
    picture(folder / "00000_l_eye.png", 64, 0, grey=True)
    assert read_mask(catalogue(tmp_path).records[0], 64)[32:, :32].max() == 0  # skin is not


def test_mattfaces_split_is_by_number_and_training_keeps_to_it(tmp_path):
    make_celeba(tmp_path)
    with pytest.raises(InputError, match="trains on pictures 0 to 27999 and tests on 28000 to 29999"):
        catalogue(tmp_path).divided()
    for k in (27999, 28000):
        picture(tmp_path / "CelebA-HQ-img" / f"{k}.jpg")
    (tmp_path / "identity_CelebA-HQ.txt").write_text("0.jpg 17\n1.jpg 17\n2000.jpg 4\n27999.jpg 8\n28000.jpg 8\n")
    found = catalogue(tmp_path).divided()
    train, test = found.split(4)
    assert [r.name for r in test.records] == ["28000"] and len(train.records) == 4
    assert "1 of 1 identities to test are also trained on" in found.notes[-1]
    assert found.summary().endswith("4 to train and 1 to test") and not found.split(0)[1].records
    with pytest.raises(UsageError, match="split of MAttFace is one of CelebAMask-HQ"):
        catalogue(triplet_folder(tmp_path / "other")).divided()


def test_triplets_hold_what_lies_beside_each_other(tmp_path):
    record = catalogue(triplet_folder(tmp_path)).records[2]
    assert read_caption(record) == "face number 2"
    assert read_mask(record, 16).min() == 1.0
    assert read_mesh(record, 32) == pytest.approx(face_mesh(32), abs=1e-4)
    assert read_image(record, 64)[0, 0].tolist() == [80, 80, 80]


def test_an_empty_folder_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"must hold pictures.*found none"):
        catalogue(tmp_path)
    with pytest.raises(InputError, match="expected a folder"):
        catalogue(tmp_path / "absent")
    with pytest.raises(UsageError, match="layout must be"):
        catalogue(tmp_path, "lsun")


def test_files_that_are_no_pictures_are_counted_and_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "more.pdf").write_bytes(b"%PDF")
    assert "2 files" in catalogue(tmp_path).notes[0] and "notes.txt" in catalogue(tmp_path).notes[0]
    only = tmp_path / "only"
    only.mkdir()
    (only / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"found none.*notes\.txt"):
        catalogue(only)


def test_one_identity_is_rejected_unless_only_same_pairs_are_wanted(tmp_path):
    for k in range(3):
        picture(tmp_path / "somebody" / f"{k}.png")
    found = catalogue(tmp_path)
    with pytest.raises(InputError, match=r"at least two people.*found 1 \(3 pictures\)"):
        FacePairs(found, 32, 0.5, 0, masks=False)
    sample = FacePairs(found, 32, 1.0, 0, masks=False)[0]
    assert sample["same"] == 1


def test_small_and_damaged_pictures_are_counted_and_named(tmp_path):
    make_folder(tmp_path)
    picture(tmp_path / "small.png", 20)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    found = catalogue(tmp_path).large_enough(64)
    assert [r.name for r in found.records] == ["a", "b"]
    assert "1 pictures are smaller than 64 pixels and were left out: small" in found.notes
    assert "1 pictures are damaged and were left out: broken" in found.notes
    with pytest.raises(InputError, match=r"pictures of at least 500 pixels.*small"):
        catalogue(tmp_path).large_enough(500)


def test_a_picture_that_breaks_later_or_is_no_crop_is_named(tmp_path):
    path = picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"a\.png must be a picture; it is damaged"):
        read_image(catalogue(tmp_path).records[0], 32)
    Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match="square aligned crop; got 64x40"):
        read_image(catalogue(tmp_path).records[0], 32)


def test_damaged_shards_are_skipped_and_named(tmp_path):
    make_shards(tmp_path)
    good = (tmp_path / "a-000000.tar").read_bytes()
    (tmp_path / "b-000001.tar").write_bytes(good[: len(good) // 3])
    (tmp_path / "c-000002.tar").write_bytes(b"rubbish" * 200)
    found = catalogue(tmp_path)
    assert len(found.records) == 2
    assert [n.split(" was")[0] for n in found.notes] == ["shard b-000001.tar", "shard c-000002.tar"]


def test_members_of_shards_are_reached_directly(tmp_path):
    shard(tmp_path / "x.tar", {"a.png": encoded(value=7), "a.txt": b"first", "sub/b.png": encoded(value=9)})
    first, second = catalogue(tmp_path).records
    assert (first.name, second.name) == ("x/a", "x/sub/b")
    assert read_bytes(first.caption) == b"first"
    assert read_image(second, 64)[0, 0, 0] == 9


def test_missing_captions_are_counted_and_named_and_the_rest_is_used(tmp_path):
    triplet_folder(tmp_path)
    (tmp_path / "text" / "p1.txt").unlink()
    found = catalogue(tmp_path)
    assert "1 of 4 pictures have no caption: p1" in found.notes
    pairs = FacePairs(found, 32, 0.0, 0)
    captions = {pairs[p]["target_caption"] for p in range(4)}
    assert captions == {"face number 0", "", "face number 2", "face number 3"}


def test_missing_masks_or_landmarks_are_rejected_where_they_are_needed(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(InputError, match=r"must have a mask; 2 of 2 have none. Run: mattface data prepare"):
        FacePairs(catalogue(tmp_path), 32, 0.0, 0)
    with pytest.raises(InputError, match="must have a mesh"):
        FacePairs(catalogue(tmp_path), 32, 0.0, 0, meshes=True, masks=False)


def test_held_out_people_are_whole_and_few(tmp_path):
    for k in range(200):
        picture(tmp_path / f"person{k // 2}" / f"{k}.png", 8)
    train, held = catalogue(tmp_path).split(4)
    assert not set(train.identities()) & set(held.identities())
    assert 0.15 < len(held.records) / 200 < 0.35
    assert all(len(v) == 2 for v in train.identities().values())
    assert len(catalogue(tmp_path).split(0)[0].records) == 200


def test_every_epoch_is_a_permutation_of_its_own():
    orders = [[shuffled_index(epoch * 50 + k, 50, 3) for k in range(50)] for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert shuffled_index(73, 50, 3) == orders[1][23]


def people(tmp_path: Path) -> Catalogue:
    for k in range(12):
        picture(tmp_path / f"who{k // 3}" / f"{k}.png", 32, 20 * k)
    return catalogue(tmp_path)


def test_pairs_have_the_share_of_same_people_that_was_asked_for(tmp_path):
    found = people(tmp_path)
    pairs = FacePairs(found, 16, 0.5, 1, masks=False)
    samples = [pairs[p] for p in range(200)]
    who = [
        [round(float((s[f"{k}_image"].mean() + 1) * 127.5) / 20) // 3 for k in ("source", "target")] for s in samples
    ]
    assert all((a == b) == bool(s["same"]) for (a, b), s in zip(who, samples, strict=True))
    assert 0.4 < np.mean([s["same"] for s in samples]) < 0.6
    assert any(not torch.equal(s["source_image"], s["target_image"]) for s in samples if s["same"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_position_always_holds_the_same_sample(tmp_path, workers):
    found = people(tmp_path)
    straight = list(PositionFeed(Faces(found, 16, 5), 0).batches(iter([[0, 1, 2], [3, 4, 5], [6, 7, 8]])))
    later = list(PositionFeed(Faces(found, 16, 5), workers).batches(iter([[3, 4, 5], [6, 7, 8]])))
    for a, b in zip(straight[1:], later, strict=True):
        assert torch.equal(a["image"], b["image"])
    assert not torch.equal(straight[0]["image"], straight[1]["image"])


def test_a_mirrored_face_keeps_its_landmarks_on_it(tmp_path):
    mesh = face_mesh(64)
    mesh[:, 0] += 5
    turned = mirror_mesh(mesh, 64, topology().mirror)
    assert turned[:, 0].mean() == pytest.approx(64 - mesh[:, 0].mean())
    assert turned[33, 0] < turned[263, 0]  # the eye on the left is still the eye on the left
    found = catalogue(triplet_folder(tmp_path))
    samples = [FacePairs(found, 64, 0.0, seed, meshes=True)[0] for seed in range(8)]
    assert all(s["target_landmarks"].shape == (68, 2) and s["target_points"][0, 0] < 32 for s in samples)


def test_studio_triplets_come_back_from_their_shards(tmp_path):
    size = 16
    rng = np.random.default_rng(0)
    fields = {k: rng.integers(0, 255, (size, size, 3), np.uint8) for k in ("source", "target", "swap")}
    fields |= {k: np.ones((size, size), np.float32) for k in ("visible", "matte", "mask", "occluder", "depth")}
    made = Triplet(
        **fields, flow=np.full((size, size, 2), 8.0, np.float32), landmarks={}, coefficients={}, kind="exact", seed=3,
        notes=(),
    )  # fmt: skip
    shard(tmp_path / "t-0.tar", {f"0.{k}": v for k, v in stream.encode_triplet(made).items()})
    (again,) = stream.read_shard(tmp_path / "t-0.tar")
    found = stream.as_tensors(again)
    assert torch.equal(((found["swap"] + 1) * 127.5).round().byte().permute(1, 2, 0), torch.from_numpy(made.swap))
    assert found["flow"].abs().max() == 0 and found["matte"].shape == (1, size, size)
    code = "import sys; sys.modules['numba'] = None  # as where it is not installed\n"
    code += "from pathlib import Path; from mattface.training.data.triplets import ShardTriplets\n"
    code += f"print(ShardTriplets([Path({str(tmp_path)!r})], {size}).count)"
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert read.stdout.strip() == "1"
