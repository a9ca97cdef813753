"""What lies in a folder of training data, in any of the layouts of `mattface.training.data.layouts`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mattface.errors import InputError, UsageError
from mattface.measure.held_out import is_held_out
from mattface.training.data.celebamask import divided
from mattface.training.data.files import IMAGES, some
from mattface.training.data.layouts import READERS, TITLES, recognise
from mattface.training.data.records import Record, opened

LAYOUTS = tuple(READERS)


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

    def summary(self) -> str:
        """One line, such as "CelebAMask-HQ layout: 30000 pictures, 6217 identities, official masks"."""
        count, people = len(self.records), len(self.identities())
        said = [f"{count} pictures", "every picture its own identity" if people == count else f"{people} identities"]
        masked = sum(bool(r.masks) for r in self.records)
        if masked:
            kind = "official masks" if self.layout == "celebamask-hq" else "masks"
            said.append(kind if masked == count else f"{kind} for {masked}")
        test = sum(r.split == "test" for r in self.records)
        if test:
            said.append(f"{count - test} to train and {test} to test")
        return f"{TITLES[self.layout]}: {', '.join(said)}"

    def split(self, one_in: int) -> tuple[Catalogue, Catalogue]:
        """(training, held-out) records.

        Data that has a split of its own is divided by it, other data by `mattface.measure.held_out.is_held_out`. With 0
        nobody is held out.
        """
        given = any(r.split for r in self.records)

        def is_held(record: Record) -> bool:
            return record.split == "test" if given else is_held_out(record.identity, one_in)

        held = [one_in > 0 and is_held(r) for r in self.records]
        parts = [tuple(r for r, out in zip(self.records, held, strict=True) if out == side) for side in (False, True)]
        return replace(self, records=parts[0]), replace(self, records=parts[1])

    def divided(self) -> Catalogue:
        """CelebAMask-HQ with MAttFace's split, see `mattface.training.data.celebamask.divided`.

        Raises:
            UsageError: another layout.
            InputError: a part of the split is empty.
        """
        if self.layout != "celebamask-hq":
            raise UsageError(f"the split of MAttFace is one of CelebAMask-HQ; {self.root} is a {TITLES[self.layout]}.")
        records = divided(self.records)
        seen = {r.identity for r in records if r.split == "train"}
        test = {r.identity for r in records if r.split == "test"}
        note = f"the split goes by picture: {len(test & seen)} of {len(test)} identities to test are also trained on"
        return replace(self, records=records, notes=(*self.notes, note))

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
