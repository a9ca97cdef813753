"""Photos -> training data: faces found, aligned, masked, captioned, without duplicates; and why the rest was dropped.

    OUT/img/NAME.png  mask/NAME.png  mesh/NAME.npy  text/NAME.txt  identities.json  split.json
        prepared.jsonl  settings.json  report.json

prepared.jsonl has a line for every photo that is done, written last: an interrupted preparation goes on behind it.
report.json is written when all photos are done; without it the folder is not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mattface.errors import InputError
from mattface.training.checkpoint import write_json
from mattface.training.data.captions import Captioner
from mattface.training.data.catalogue import Catalogue
from mattface.training.data.photo import Preparer, Settings, write
from mattface.training.data.records import Record
from mattface.training.data.report import Line, reasons, summary

FAILURES = 3
"""Captions that may fail one after the other before the service is given up."""


def read_done(out: Path) -> list[Line]:
    """Lines of an earlier, perhaps interrupted preparation; a line that was cut off does not count.

    Raises:
        InputError: a line is damaged.
    """
    path = out / "prepared.jsonl"
    if not path.exists():
        return []
    whole = [t for t in path.read_text(encoding="utf-8").split("\n")[:-1] if t]
    try:
        lines = [Line(**values | {"remarks": tuple(values["remarks"])}) for values in map(json.loads, whole)]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} must have JSON in every line; it is damaged ({error}). Take another OUT.") from error
    write(path, "".join(t + "\n" for t in whole).encode())
    return lines


def named(photos: Catalogue, before: list[Line]) -> Iterator[tuple[Record, str]]:
    """Every photo that is not done, under a name no other has, and its path below the folder."""
    done, taken = {line.source for line in before}, {line.name for line in before}
    for record in photos.records:
        source = record.image.relative_to(photos.root).as_posix() if isinstance(record.image, Path) else record.name
        if source in done:
            continue
        stem, number = record.name.replace("/", "_"), 1
        while (name := stem if number == 1 else f"{stem}_{number}") in taken:
            number += 1
        taken.add(name)
        yield replace(record, name=name), source


def prepare(photos: Catalogue, out: Path, settings: Settings, captioner: Captioner | None = None) -> dict[str, Any]:
    """Prepares photos, or goes on with what an earlier call left.

    Args:
        photos: what to prepare; masks and captions it has are kept.
        out: folder to write into.
        settings: how; the same as before when a preparation is continued.
        captioner: gives captions; None leaves them out.

    Returns:
        The report (`mattface.training.data.report.summary`).

    Raises:
        InputError: other settings than before, nothing left in the end, a caption service that fails, or an unsuitable
            pair of folders.
    """
    check_folders(photos, out)
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out, settings, photos)
    (out / "report.json").unlink(missing_ok=True)
    lines = work(photos, out, settings)
    kept = [line for line in lines if not line.dropped]
    write_tables(photos, out, kept)
    report = {"layout": photos.summary(), "notes": list(photos.notes), **summary(lines)}
    write_json(out / "report.json", report)
    if captioner is not None and kept:
        report["captions"] = caption(out, kept, captioner)
        write_json(out / "report.json", report)
    if not kept:
        raise InputError(f"none of {len(lines)} photos in {photos.root} could be kept: {reasons(report)}.")
    return report


def work(photos: Catalogue, out: Path, settings: Settings) -> list[Line]:
    """Lines of all photos: those that were done before, with the identities known today, and the others, done now."""
    identity = {record.image: record.identity for record in photos.records}
    before = read_done(out)
    lines = [replace(line, identity=identity.get(photos.root / line.source, line.identity)) for line in before]
    preparer = Preparer(settings, out)
    for line in lines:
        if line.fingerprint:
            preparer.seen.add(line.name, np.frombuffer(bytes.fromhex(line.fingerprint), np.uint8))
    with (out / "prepared.jsonl").open("a", encoding="utf-8") as journal:
        for record, source in tqdm(list(named(photos, before)), desc="photos", disable=None):
            lines.append(preparer(record, source))
            journal.write(json.dumps(asdict(lines[-1])) + "\n")
            journal.flush()
    return lines


def write_tables(photos: Catalogue, out: Path, kept: list[Line]) -> None:
    """Who is who, and what is for training and what for tests where the data says so."""
    write_json(out / "identities.json", {line.name: line.identity for line in kept})
    split = {record.image: record.split for record in photos.records if record.split}
    if split:
        marks = {line.name: split.get(photos.root / line.source, "") for line in kept}
        write_json(out / "split.json", {name: mark for name, mark in marks.items() if mark})
    else:
        (out / "split.json").unlink(missing_ok=True)


def check_folders(photos: Catalogue, out: Path) -> None:
    """Rejects shards, and a folder to write into that lies among the photos.

    Raises:
        InputError: one of these.
    """
    if photos.layout == "shards":
        raise InputError(f"{photos.root} must hold photos; it holds shards, which are trained on as they are.")
    if photos.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"OUT must lie outside the folder of photos; {out} lies in {photos.root}. Take another OUT.")


def check_settings(out: Path, settings: Settings, photos: Catalogue) -> None:
    """Rejects a continuation with other settings, another layout, or masks from elsewhere.

    Raises:
        InputError: naming both.
    """
    masks = "from the data" if any(r.masks for r in photos.records) else "from the parser"
    path, now = out / "settings.json", asdict(settings) | {"layout": photos.layout, "masks": masks}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != now:
            raise InputError(f"{out} was begun with {before}; got {now}. Take another folder.")
    write_json(path, now)


def caption(out: Path, kept: list[Line], captioner: Captioner) -> dict[str, Any]:
    """Captions pictures that have none yet.

    Raises:
        InputError: the service failed several times in a row; what was written stays.
    """
    written, missing, failed = 0, [], 0
    for line in tqdm(kept, desc="captions", disable=None):
        path = out / "text" / f"{line.name}.txt"
        if path.exists():
            continue
        try:
            text = captioner(line.name, (out / "img" / f"{line.name}.png").read_bytes())
            failed = 0
        except InputError as error:
            failed += 1
            missing.append(line.name)
            if failed == FAILURES:
                raise InputError(f"{error} ({written} captions were written; the same command goes on.)") from error
            continue
        if text:
            write(path, text.encode())
            written += 1
        else:
            missing.append(line.name)
    return {"written": written, "missing": missing}
