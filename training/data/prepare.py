"""Photos -> training data: faces found, aligned, masked, captioned, without duplicates; and why the rest was dropped.

    OUT/img/NAME.png  mask/NAME.png  mesh/NAME.npy  text/NAME.txt  identities.json  prepared.jsonl  report.json

prepared.jsonl has a line for every photo that is done, written last: an interrupted preparation goes on behind it.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mattface import align, picture_io
from mattface.errors import InputError
from mattface.measure.held_out import as_pixels
from mattface.pixels import eight_bit
from mattface.training.checkpoint import PARTIAL, write_json
from mattface.training.data.captions import Captioner
from mattface.training.data.catalogue import is_image, some
from mattface.training.data.fingerprints import Fingerprints, fingerprint
from mattface.vocabulary import Crop

FAILURES = 3
"""Captions that may fail one after the other before the service is given up."""
PRESENCE = 0.5
"""Below this the landmark stage sees no face."""


@dataclass(frozen=True)
class Settings:
    """How photos are prepared.

    Attributes:
        size: side of the crops.
        template: "ffhq" or "arcface".
        smallest: least side, in pixels of the photo, of the square that becomes the crop; 0 takes half of `size`.
        duplicates: whether duplicates stay.
    """

    size: int = 512
    template: str = "ffhq"
    smallest: int = 0
    duplicates: bool = False


@dataclass(frozen=True)
class Line:
    """What became of a photo.

    Attributes:
        name: of its files, unique.
        identity: folder it lies in, or its own name right in the root.
        source: path below the root.
        dropped: why it was left out; empty when it was kept.
        remark: worth knowing of a kept one.
        fingerprint: of the crop, as hexadecimal digits; empty for dropped ones.
    """

    name: str
    identity: str
    source: str
    dropped: str = ""
    remark: str = ""
    fingerprint: str = ""


def photos(root: Path) -> list[Path]:
    """All pictures below a folder, by path.

    Raises:
        InputError: no folder, or no pictures in it.
    """
    if not root.is_dir():
        raise InputError(f"expected a folder of photos; {root} is none.")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    found = [p for p in files if is_image(p)]
    if not found:
        raise InputError(f"{root} must hold photos (jpg, png, webp); found none among {len(files)} files.")
    return found


class Dropped(Exception):
    """Why a photo is left out; never leaves this file."""


class Preparer:
    """Prepares photos one by one.

    Args:
        settings: how.
        out: folder to write into.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        from mattface.detect import load_detector
        from mattface.landmarks import load_landmarker
        from mattface.parse import load_parser

        self.settings, self.out = settings, out
        self.detector, self.landmarker, self.parser = load_detector(), load_landmarker(), load_parser()
        self.seen = Fingerprints()

    def __call__(self, path: Path, name: str, identity: str, source: str) -> Line:
        """Writes a photo's files, or says why not."""
        try:
            crop, remark = self.crop(path)
            pixels = as_pixels(crop.pixels)
            bits = fingerprint(pixels)
            twin = None if self.settings.duplicates else self.seen.near(bits)
            if twin is not None:
                raise Dropped(f"duplicate of {twin}")
        except Dropped as reason:
            return Line(name, identity, source, dropped=str(reason))
        self.seen.add(name, bits)
        mask = (self.parser(crop)[0, 0] * 255).round().byte().cpu().numpy()
        write(self.out / "img" / f"{name}.png", png(pixels))
        write(self.out / "mask" / f"{name}.png", png(mask))
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(crop.mesh, np.float32))
        write(self.out / "mesh" / f"{name}.npy", buffer.getvalue())
        return Line(name, identity, source, remark=remark, fingerprint=bits.tobytes().hex())

    def crop(self, path: Path) -> tuple[Crop, str]:
        """The aligned crop of the largest face, and a remark."""
        try:
            pixels = picture_io.read(path).pixels
        except InputError as error:
            raise Dropped(f"cannot be read: {error}") from error
        eight = eight_bit(pixels)
        found = self.detector(eight)
        if not found:
            raise Dropped("no face")
        face = self.landmarker(eight, found[0])
        if face.presence is not None and face.presence < PRESENCE:
            raise Dropped(f"no sure face (presence {face.presence:.2f})")
        settings = self.settings
        matrix = align.crop_matrix(face, settings.template, settings.size)
        side, least = settings.size / float(np.hypot(*matrix[0, :2])), settings.smallest or settings.size // 2
        if side < least:
            raise Dropped(f"too small: the face's square has {side:.0f} pixels, {least} are wanted")
        crop = align.cut(pixels, face, settings.template, settings.size)
        return crop, f"{len(found)} faces; the largest was taken" if len(found) > 1 else ""


def png(pixels: np.ndarray) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + PARTIAL)
    temporary.write_bytes(data)
    os.replace(temporary, path)


def done_before(out: Path) -> list[Line]:
    """Lines of an earlier, perhaps interrupted preparation; a line that was cut off does not count."""
    path = out / "prepared.jsonl"
    if not path.exists():
        return []
    whole = [t for t in path.read_text(encoding="utf-8").split("\n")[:-1] if t]
    write(path, "".join(t + "\n" for t in whole).encode())
    return [Line(**json.loads(t)) for t in whole]


def named(root: Path, paths: list[Path]) -> Iterator[tuple[Path, str, str, str]]:
    """(path, unique name, identity, path below the root) of every photo."""
    used: Counter[str] = Counter()
    for path in paths:
        below = path.relative_to(root)
        stem = "_".join(below.with_suffix("").parts)
        used[stem] += 1
        name = stem if used[stem] == 1 else f"{stem}_{used[stem]}"
        yield path, name, below.parent.as_posix() if len(below.parts) > 1 else name, below.as_posix()


def prepare(root: Path, out: Path, settings: Settings, captioner: Captioner | None = None) -> dict[str, Any]:
    """Prepares all photos below a folder, or goes on with what an earlier call left.

    Args:
        root: folder of photos; those of one person may share a folder.
        out: folder to write into.
        settings: how; the same as before when a preparation is continued.
        captioner: gives captions; None leaves them out.

    Returns:
        The report: counts, and names by the reason they were dropped for.

    Raises:
        InputError: no photos, other settings than before, nothing left in the end, or a caption service that fails.
    """
    paths = photos(root)
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out, settings)
    lines = done_before(out)
    known = {line.source for line in lines}
    preparer = Preparer(settings, out)
    for line in lines:
        if line.fingerprint:
            preparer.seen.add(line.name, np.frombuffer(bytes.fromhex(line.fingerprint), np.uint8))
    with (out / "prepared.jsonl").open("a", encoding="utf-8") as journal:
        for path, name, identity, source in tqdm(list(named(root, paths)), desc="photos", disable=None):
            if source not in known:
                lines.append(preparer(path, name, identity, source))
                journal.write(json.dumps(asdict(lines[-1])) + "\n")
                journal.flush()
    kept = [line for line in lines if not line.dropped]
    write_json(out / "identities.json", {line.name: line.identity for line in kept})
    report = summary(lines)
    if captioner is not None and kept:
        report["captions"] = caption(out, kept, captioner)
    write_json(out / "report.json", report)
    if not kept:
        raise InputError(f"none of {len(lines)} photos in {root} could be kept: {reasons(report)}.")
    return report


def check_settings(out: Path, settings: Settings) -> None:
    """Refuses to go on with other settings.

    Raises:
        InputError: naming both.
    """
    path = out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != asdict(settings):
            raise InputError(f"{out} was begun with {before}; got {asdict(settings)}. Take another folder.")
    write_json(path, asdict(settings))


def summary(lines: list[Line]) -> dict[str, Any]:
    """Counts and names by reason; the reason is what stands before a colon or "of"."""
    dropped: dict[str, list[str]] = {}
    for line in lines:
        if line.dropped:
            reason = line.dropped.split(":")[0].split(" of ")[0].split(" (")[0]
            dropped.setdefault(reason, []).append(f"{line.source}: {line.dropped}")
    kept = [line for line in lines if not line.dropped]
    people = len({line.identity for line in kept})
    return {"photos": len(lines), "kept": len(kept), "people": people, "dropped": dropped}


def reasons(report: dict[str, Any]) -> str:
    """ "no face 3, duplicate 2"."""
    return ", ".join(f"{reason} {len(names)}" for reason, names in report["dropped"].items()) or "nothing dropped"


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


def told(report: dict[str, Any], out: Path) -> str:
    """The report for people."""
    rows = [f"{report['kept']} of {report['photos']} photos kept, {report['people']} people: {out.resolve()}"]
    rows += [f"  dropped, {reason}: {len(names)} ({some(names, 3)})" for reason, names in report["dropped"].items()]
    if "captions" in report:
        missing = report["captions"]["missing"]
        note = f", {len(missing)} missing ({some(missing, 3)})" if missing else ""
        rows.append(f"  captions: {report['captions']['written']} written{note}")
    return "\n".join(rows)
