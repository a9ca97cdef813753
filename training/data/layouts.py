"""Layouts of data sets: how a folder is recognised, and what lies where.

| layout | looks like | identities |
|---|---|---|
| folder | *.jpg, *.png | every picture its own |
| identities | PERSON/*.jpg | a folder per person; pictures beside the folders are their own |
| nested | pictures at several depths, of no known layout | the folder that a picture lies in |
| vggface2 | [train/]n000002/0001_01.jpg (VGGFace2, VGGFace2-HQ) | a folder per person |
| ffhq | images1024x1024/[00000/]00000.png (or in-the-wild-images/, thumbnails128x128/) | every picture its own |
| celebamask-hq | CelebA-HQ-img/0.jpg, CelebAMask-HQ-mask-anno/0/00000_skin.png | see `celebamask` |
| triplets | img/NAME.png, mask/NAME.png, text/NAME.txt (AlphaFace's repository); mesh/NAME.npy | identities.json |
| shards | *.tar with KEY.jpg, KEY.mask.png, KEY.txt, KEY.mesh.npy, KEY.json | "identity" of the JSON |
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mattface.errors import InputError
from mattface.training.data import celebamask
from mattface.training.data.files import IMAGES, images_in, is_image, some
from mattface.training.data.records import Found, Mask, Record
from mattface.training.data.shards import Member, index_shards, read_bytes

FFHQ = ("images1024x1024", "in-the-wild-images", "thumbnails128x128")
"""Folders of FFHQ, the best to train on first."""
VGGFACE2 = re.compile(r"n\d{6}")
TEXTS = ("text", "txt", "texts", "caption", "captions")
"""Names of the folder of captions in triplet layouts."""


def recognise(root: Path) -> str:
    """The layout a folder looks like; "folder" when nothing speaks for another."""
    names = {p.name for p in root.iterdir()}
    if any(n.endswith(".tar") for n in names):
        return "shards"
    if "img" in names:
        return "triplets"
    if celebamask.PICTURES in names:
        return "celebamask-hq"
    if names & set(FFHQ) or root.name in FFHQ or in_thousands(root):
        return "ffhq"
    folders = [p for p in root.iterdir() if p.is_dir()]
    if any(VGGFACE2.fullmatch(p.name) for folder in (root, *folders) for p in folder.iterdir() if p.is_dir()):
        return "vggface2"
    depths = {len(p.relative_to(root).parts) for p in images_in(root, deep=True)[0]}
    if depths <= {1}:
        return "folder"
    return "identities" if depths <= {1, 2} else "nested"


def in_thousands(root: Path) -> bool:
    """Whether all pictures lie as FFHQ's do: 01000/01234.png."""
    folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not folders or not all(re.fullmatch(r"\d\d000", p.name) for p in folders):
        return False
    stems = [(p.name, q.stem) for p in folders for q in p.iterdir() if is_image(q)]
    return bool(stems) and all(re.fullmatch(r"\d{5}", stem) and stem[:2] == name[:2] for name, stem in stems)


def read_people(root: Path, person: Callable[[Path], str]) -> Found:
    """Pictures at any depth.

    Args:
        root: where to look.
        person: path below the root to who it is; empty for somebody who is in no other picture.
    """
    paths, notes = images_in(root, deep=True)
    used: Counter[str] = Counter()
    records = []
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        used[name] += 1
        if used[name] > 1:
            name = f"{name}_{used[name]}"
        records.append(Record(name, person(path.relative_to(root)) or name, path))
    return records, notes


def read_folder(root: Path) -> Found:
    """Every picture an identity."""
    return read_people(root, lambda path: "")


def read_identities(root: Path) -> Found:
    """A folder per person, with folders of pictures or frames in it where somebody likes that."""
    records, notes = read_people(root, lambda path: path.parts[0] if len(path.parts) > 1 else "")
    beside = [r.name for r in records if r.identity == r.name]
    if beside:
        notes.append(f"{len(beside)} pictures lie beside the folders; each is its own identity: {some(beside)}")
    return records, notes + together(records)


def read_nested(root: Path) -> Found:
    """Nobody knows: whoever shares a folder is taken for one person."""
    records, notes = read_people(root, lambda path: path.parent.as_posix() if len(path.parts) > 1 else "")
    notes.append(
        "pictures that share a folder count as one person; --layout identities goes by the first folder below, "
        "--layout folder makes every picture its own identity"
    )
    return records, notes + together(records)


def together(records: Sequence[Record]) -> list[str]:
    """A sentence for when a folder of strangers may have been taken for one person."""
    if len(records) < 2 or len({r.identity for r in records}) > 1:
        return []
    return [f"all pictures lie in {records[0].identity} and count as one person; --layout folder if they are several"]


def read_vggface2(root: Path) -> Found:
    """VGGFace2 and VGGFace2-HQ: a folder per person, right in the root or in parts such as train and test."""
    records, notes = read_people(root, lambda path: next((p for p in path.parts if VGGFACE2.fullmatch(p)), ""))
    strange = [r.name for r in records if r.identity == r.name]
    if strange:
        notes.append(f"{len(strange)} pictures lie in no folder of a person and were left out: {some(strange)}")
    return [r for r in records if r.identity != r.name], notes


def read_ffhq(root: Path) -> Found:
    """FFHQ: every picture a person, flat or a thousand in a folder."""
    here = [root / name for name in FFHQ if (root / name).is_dir()] or [root]
    paths, notes = images_in(here[0], deep=True)
    if len(here) > 1:
        notes.append(f"{here[0].name} was taken; {some(p.name for p in here[1:])} left out")
    return [Record(p.stem, p.stem, p) for p in paths], notes


def read_triplets(root: Path) -> Found:
    """Pictures, masks and captions of equal names; identities.json (NAME -> PERSON) and split.json where they are."""
    if not (root / "img").is_dir():
        return [], ["img is not there"]
    if (root / "prepared.jsonl").exists() and not (root / "report.json").exists():
        raise InputError(f"the preparation of {root} was interrupted. Type the same mattface data prepare again.")
    paths, notes = images_in(root / "img")
    people, split = listed(root / "identities.json"), listed(root / "split.json")
    texts = next((root / n for n in TEXTS if (root / n).is_dir()), None)
    records = []
    for path in paths:
        mask, mesh = root / "mask" / f"{path.stem}.png", root / "mesh" / f"{path.stem}.npy"
        text = texts / f"{path.stem}.txt" if texts else None
        records.append(
            Record(
                path.stem,
                people.get(path.stem, path.stem),
                path,
                (Mask(mask),) if mask.exists() else (),
                text if text and text.exists() else None,
                mesh if mesh.exists() else None,
                split.get(path.stem, ""),
            )
        )
    return records, notes + missing(records)


def listed(path: Path) -> dict[str, str]:
    """Name -> text out of a JSON file; empty without one.

    Raises:
        InputError: it holds something else.
    """
    if not path.exists():
        return {}
    try:
        return {str(name): str(text) for name, text in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f'{path} must be JSON {{"NAME": "TEXT"}}; it cannot be read ({error}).') from error


def missing(records: Sequence[Record]) -> list[str]:
    """Sentences about masks and captions that some records have and others lack."""
    notes = []
    for what, names in (
        ("mask", [r.name for r in records if not r.masks]),
        ("caption", [r.name for r in records if r.caption is None]),
    ):
        if names and len(names) < len(records):
            notes.append(f"{len(names)} of {len(records)} pictures have no {what}: {some(names)}")
    return notes


def read_shards(root: Path) -> Found:
    """Tar files; a shard that cannot be read is left out and named."""
    samples, notes = index_shards(sorted(root.glob("*.tar")))
    records, without = [], []
    for key, members in samples.items():
        image = next((members[e] for e in IMAGES if e in members), None)
        if image is None:
            without.append(key)
            continue
        masks = tuple(Mask(members[e]) for e in ("mask.png",) if e in members)
        records.append(
            Record(key, shard_identity(key, members), image, masks, members.get("txt"), members.get("mesh.npy"))
        )
    if without:
        notes.append(f"{len(without)} samples hold no picture and were left out: {some(without)}")
    return records, notes + missing(records)


def shard_identity(key: str, members: dict[str, Member]) -> str:
    """ "identity" of the sample's JSON, else its key."""
    if "json" not in members:
        return key
    try:
        return str(json.loads(read_bytes(members["json"])).get("identity", key))
    except (ValueError, AttributeError):
        return key


READERS: dict[str, Callable[[Path], Found]] = {
    "folder": read_folder,
    "identities": read_identities,
    "nested": read_nested,
    "vggface2": read_vggface2,
    "ffhq": read_ffhq,
    "celebamask-hq": celebamask.read_celebamask,
    "triplets": read_triplets,
    "shards": read_shards,
}
TITLES = {
    "folder": "folder of portraits",
    "identities": "folder per person",
    "nested": "no known layout",
    "vggface2": "VGGFace2 layout",
    "ffhq": "FFHQ layout",
    "celebamask-hq": "CelebAMask-HQ layout",
    "triplets": "triplets (img, mask, text)",
    "shards": "shards",
}
