"""CelebAMask-HQ (Lee et al. 2020, arXiv 1907.11922): pictures of CelebA-HQ, masks drawn by hand, identities of CelebA.

    CelebA-HQ-img/N.jpg                         N from 0 to 29999
    CelebAMask-HQ-mask-anno/K/NNNNN_PART.png    one mask per visible part, 512 x 512; K = N // 2000
    CelebA-HQ-to-CelebA-mapping.txt             a heading, then lines "N NUMBER NNNNNN.jpg": N's name in CelebA
    identity_CelebA-HQ.txt                      lines "N.jpg IDENTITY"; also called CelebA-HQ-identity.txt
    identity_CelebA.txt                         CelebA's own list: lines "NNNNNN.jpg IDENTITY"

The first three come with the data set. The lists of identities are published apart from it; either may lie in the
folder or in a folder right below it, and one of them is enough.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from mattface.errors import InputError
from mattface.training.data.files import images_in, some
from mattface.training.data.records import Found, Mask, Record

PICTURES, ANNOTATIONS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING, CELEBA = "CelebA-HQ-to-CelebA-mapping.txt", "identity_CelebA.txt"
IDENTITIES = ("identity_CelebA-HQ.txt", "CelebA-HQ-identity.txt")
PAINTED = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip"),
    *("hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
"""Parts in the order in which the data set's authors paint them: where two overlap, the later one is seen."""
INNER = ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
"""Parts of the inner face."""
USUAL = tuple(part for part in INNER if part != "mouth")
"""Parts that every face has unless something hides them; the inside of a closed mouth is not annotated."""
TEST = 28_000
"""Number of the first test picture: MAttFace trains on 28 000 pictures and tests on 2 000. It does not say which; by
number is the usual way."""


def read_celebamask(root: Path) -> Found:
    """CelebAMask-HQ as it is unpacked."""
    if not (root / PICTURES).is_dir():
        return [], [f"{PICTURES} is not there"]
    paths, notes = images_in(root / PICTURES)
    strange = [p.name for p in paths if not p.stem.isdigit()]
    if strange:
        notes.append(f"{len(strange)} pictures have no number and were left out: {some(strange)}")
    identity, masks, found = identities(root), read_annotations(root), []
    for path in (p for p in paths if p.stem.isdigit()):
        number, name = int(path.stem), f"{int(path.stem):05d}"
        parts = masks.get(number, {})
        painted = tuple(Mask(parts[part], part in INNER) for part in PAINTED if part in parts)
        lacks = tuple(part for part in USUAL if part not in parts) if masks else ()
        found.append(Record(name, identity.get(number, name), path, painted, lacks=lacks))
    if not masks:
        notes.append(f"{ANNOTATIONS} is not there or holds no masks: masks will come from a parsing network")
    return found, notes + identity_notes(root, found)


def read_annotations(root: Path) -> dict[int, dict[str, Path]]:
    """Number of a picture -> part -> mask."""
    found: dict[int, dict[str, Path]] = {}
    for folder, _, names in os.walk(root / ANNOTATIONS, followlinks=True):
        for name in names:
            number, _, part = name.removesuffix(".png").partition("_")
            if number.isdigit() and part in PAINTED:
                found.setdefault(int(number), {})[part] = Path(folder, name)
    return found


def identities(root: Path) -> dict[int, str]:
    """Number of a picture -> who it is; empty without a list of identities.

    Raises:
        InputError: a damaged list.
    """
    own, celeba, mapping = (find_file(root, *names) for names in (IDENTITIES, (CELEBA,), (MAPPING,)))
    if own:
        return {number: f"person-{who}" for number, who in table(own, 2).items()}
    if not celeba or not mapping:
        return {}
    who = table(celeba, 2)
    originals = {number: int(Path(name).stem) for number, name in table(mapping, 3).items()}
    return {number: f"person-{who[original]}" for number, original in originals.items() if original in who}


def identity_notes(root: Path, records: list[Record]) -> list[str]:
    """A sentence about pictures of which nobody says who they are."""
    alone = [r.name for r in records if r.identity == r.name]
    if not alone:
        return []
    if len(alone) < len(records):
        return [f"{len(alone)} pictures have no identity in the list; each is its own: {some(alone)}"]
    half = f" ({CELEBA} is there, {MAPPING} is not)" if find_file(root, CELEBA) and not find_file(root, MAPPING) else ""
    return [
        f"no list of identities{half}: every picture is its own identity, and a same-identity pair is a picture with "
        f"itself. MAttFace pairs different pictures of a person: add {IDENTITIES[0]}, or CelebA's {CELEBA} beside "
        f"{MAPPING}"
    ]


def find_file(root: Path, *names: str) -> Path | None:
    """The first of these files in a folder or right below it."""
    for name in names:
        for path in (root / name, *sorted(root.glob(f"*/{name}"))):
            if path.is_file():
                return path
    return None


def table(path: Path, columns: int) -> dict[int, str]:
    """Number in the first column (7, 7.jpg, 000007.jpg) -> the last column; a heading is skipped.

    Raises:
        InputError: a line of another form.
    """
    found: dict[int, str] = {}
    for row, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        fields = line.split()
        if not fields or (row == 0 and fields[0] == "idx"):
            continue
        number, last = Path(fields[0]).stem, fields[-1]
        if len(fields) != columns or not number.isdigit() or not Path(last).stem.isdigit():
            raise InputError(
                f"{path}, line {row + 1}: expected {columns} columns, the first and last with a number; got {line!r}. "
                "Take the list as it was published."
            )
        found[int(number)] = last
    return found


def divided(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Records of CelebAMask-HQ marked "train" or "test" as MAttFace divides them (section 4.3).

    Raises:
        InputError: one of the parts is empty.
    """
    marked = tuple(replace(r, split="test" if int(r.name) >= TEST else "train") for r in records)
    if len({r.split for r in marked}) < 2:
        raise InputError(
            f"the split of MAttFace trains on pictures 0 to {TEST - 1} and tests on {TEST} to 29999; the folder has "
            f"{some([r.name for r in records], 3)}. Unpack the whole data set, or leave --split out."
        )
    return marked
