"""What lies in a folder: plain folders, identity folders, FFHQ, CelebAMask-HQ, VGGFace2-HQ, AlphaFace triplets, shards.

| layout | looks like |
|---|---|
| folder | *.jpg, *.png: every picture is a person of its own |
| identities | PERSON/*.jpg (VGGFace2-HQ: n000002/0001_01.jpg) |
| ffhq | images1024x1024/00000/00000.png (or thumbnails128x128/...) |
| celeba-hq | CelebA-HQ-img/0.jpg, CelebAMask-HQ-mask-anno/0/00000_skin.png, identity_CelebA-HQ.txt (NAME PERSON) |
| triplets | img/NAME.png, mask/NAME.png, text/NAME.txt as in AlphaFace's repository; mesh/NAME.npy beside them |
| shards | *.tar with KEY.jpg, KEY.mask.png, KEY.txt, KEY.mesh.npy, KEY.json |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mattface.errors import InputError, UsageError
from mattface.measure.held_out import is_held_out
from mattface.training.data.records import Record, opened
from mattface.training.data.shards import Member, index_shards, read_bytes

IMAGES = ("jpg", "jpeg", "png", "webp")
LAYOUTS = ("folder", "identities", "ffhq", "celeba-hq", "triplets", "shards")
TEXTS = ("text", "txt", "texts", "caption", "captions")
"""Names of the folder of captions in triplet layouts."""
INNER_PARTS = ("skin", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "mouth", "u_lip", "l_lip")
"""Annotations of CelebAMask-HQ that make the inner face."""


@dataclass(frozen=True)
class Catalogue:
    """Records of a folder.

    Attributes:
        root: the folder.
        layout: one of `LAYOUTS`.
        records: sorted by name.
        notes: sentences about what was left out.
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    def identities(self) -> dict[str, list[int]]:
        """Identity -> indices of its records."""
        found: dict[str, list[int]] = {}
        for index, record in enumerate(self.records):
            found.setdefault(record.identity, []).append(index)
        return found

    def split(self, one_in: int) -> tuple[Catalogue, Catalogue]:
        """(training, held-out), by `mattface.measure.held_out.is_held_out`."""
        held = [is_held_out(r.identity, one_in) for r in self.records]
        parts = [tuple(r for r, out in zip(self.records, held, strict=True) if out == side) for side in (False, True)]
        return replace(self, records=parts[0]), replace(self, records=parts[1])

    def large_enough(self, side: int) -> Catalogue:
        """Without pictures that are damaged or whose shorter side is below `side` pixels; notes say which.

        Raises:
            InputError: nothing is left.
        """
        kept: list[Record] = []
        small: list[Record] = []
        damaged: list[Record] = []
        for record in self.records:
            try:
                with Image.open(opened(record.image)) as image:
                    (kept if min(image.size) >= side else small).append(record)
            except (OSError, Image.DecompressionBombError):
                damaged.append(record)
        notes = list(self.notes)
        for what, which in ((f"smaller than {side} pixels", small), ("damaged", damaged)):
            if which:
                notes.append(f"{len(which)} pictures are {what} and were left out: {some(r.name for r in which)}")
        if not kept:
            raise InputError(f"{self.root} must hold pictures of at least {side} pixels; {'; '.join(notes)}.")
        return replace(self, records=tuple(kept), notes=tuple(notes))


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def catalogue(root: Path, layout: str = "auto") -> Catalogue:
    """Reads what a folder holds; no picture is opened.

    Args:
        root: the folder.
        layout: one of `LAYOUTS`, or "auto" to recognise it.

    Raises:
        InputError: no such folder, or nothing in it that the layout has.
        UsageError: an unknown layout.
    """
    if not root.is_dir():
        raise InputError(f"expected a folder of training data; {root} is none.")
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"layout must be auto, {', '.join(LAYOUTS)}; got {layout!r}.")
    kind = recognise(root) if layout == "auto" else layout
    records, notes = READERS[kind](root)
    if not records:
        raise InputError(
            f"{root} must hold pictures ({', '.join(IMAGES)}) or shards (tar); found none"
            f"{' (' + '; '.join(notes) + ')' if notes else ''}. Layouts: {', '.join(LAYOUTS)}."
        )
    return Catalogue(root, kind, tuple(sorted(records, key=lambda r: r.name)), tuple(notes))


def recognise(root: Path) -> str:
    """The layout a folder looks like; "folder" when nothing speaks for another."""
    names = {p.name for p in root.iterdir()}
    if any(n.endswith(".tar") for n in names):
        return "shards"
    if "img" in names:
        return "triplets"
    if "CelebA-HQ-img" in names:
        return "celeba-hq"
    if names & {"images1024x1024", "thumbnails128x128"}:
        return "ffhq"
    if not any(is_image(root / n) for n in names) and any((root / n).is_dir() for n in names):
        return "identities"
    return "folder"


def is_image(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower().lstrip(".") in IMAGES


Found = tuple[list[Record], list[str]]


def images_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Pictures right in a folder, and a note about other files."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    other = [p.name for p in files if not is_image(p)]
    notes = [f"{len(other)} files in {folder.name} are no pictures and were left out: {some(other)}"] if other else []
    return [p for p in files if is_image(p)], notes


def read_folder(root: Path) -> Found:
    """Every picture a person."""
    paths, notes = images_in(root)
    return [Record(p.stem, p.stem, p) for p in paths], notes


def read_identities(root: Path) -> Found:
    """A folder per person."""
    records, notes = [], []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        paths, found = images_in(folder)
        records += [Record(f"{folder.name}/{p.stem}", folder.name, p) for p in paths]
        notes += found
    return records, notes


def read_ffhq(root: Path) -> Found:
    """Pictures below images1024x1024, a thousand in a folder."""
    top = next(root / n for n in ("images1024x1024", "thumbnails128x128") if (root / n).is_dir())
    return [Record(p.stem, p.stem, p) for p in sorted(top.rglob("*")) if is_image(p)], []


def read_celeba_hq(root: Path) -> Found:
    """CelebA-HQ with CelebAMask-HQ's annotations, which lie two thousand in a folder."""
    people, paths = root / "identity_CelebA-HQ.txt", images_in(root / "CelebA-HQ-img")[0]
    identity = dict(line.split()[:2] for line in people.read_text().splitlines() if line) if people.exists() else {}
    annotations: dict[str, list[Path]] = {}
    for path in sorted((root / "CelebAMask-HQ-mask-anno").rglob("*.png")):
        number, _, part = path.stem.partition("_")
        if part in INNER_PARTS:
            annotations.setdefault(str(int(number)), []).append(path)
    records = [
        Record(f"{int(p.stem):05d}", identity.get(p.name, p.stem), p, tuple(annotations.get(p.stem, ()))) for p in paths
    ]
    return records, [] if people.exists() else ["identity_CelebA-HQ.txt is not there: every picture counts as a person"]


def read_triplets(root: Path) -> Found:
    """Pictures, masks and captions of equal names; identities from identities.json (NAME -> PERSON) where it is."""
    paths, notes = images_in(root / "img")
    listed = root / "identities.json"
    people = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
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
                (mask,) if mask.exists() else (),
                text if text and text.exists() else None,
                mesh if mesh.exists() else None,
            )
        )
    return records, notes + missing(records)


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
        masks = tuple(members[e] for e in ("mask.png",) if e in members)
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


READERS = {
    "folder": read_folder,
    "identities": read_identities,
    "ffhq": read_ffhq,
    "celeba-hq": read_celeba_hq,
    "triplets": read_triplets,
    "shards": read_shards,
}
