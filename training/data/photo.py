"""One photo -> the files of its face: aligned crop, mask of the inner face, mesh; or why it is left out."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mattface import align, perception, picture_io
from mattface.errors import InputError
from mattface.measure.held_out import as_pixels
from mattface.parse import inner_face
from mattface.pixels import eight_bit
from mattface.training.checkpoint import PARTIAL
from mattface.training.data.fingerprints import Fingerprints, fingerprint
from mattface.training.data.records import Record, read_caption, whole_mask
from mattface.training.data.report import Line
from mattface.vocabulary import Crop

PRESENCE = 0.5
"""Below this the landmark stage sees no face."""
NEEDED = "skin"
"""The part without which an annotation is no mask of a face; other parts may be hidden by something."""


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


class Dropped(Exception):
    """Why a photo is left out; never leaves this file."""


class Preparer:
    """Prepares photos one by one.

    Args:
        settings: how.
        out: folder to write into.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        self.detector, self.landmarker = perception.load("detector"), perception.load("landmarks")
        self.parser = perception.load("parser")
        self.seen = Fingerprints()

    def __call__(self, record: Record, source: str) -> Line:
        """Writes a photo's files, or says why not."""
        try:
            pixels = self.photo(record)
            crop, remarks = self.crop(pixels)
            mask = self.mask(record, crop, pixels.shape[:2])
            picture = as_pixels(crop.pixels)
            bits = fingerprint(picture)
            twin = None if self.settings.duplicates else self.seen.near(bits)
            if twin is not None:
                raise Dropped(f"duplicate: of {twin}")
        except Dropped as reason:
            return Line(record.name, record.identity, source, dropped=str(reason))
        self.seen.add(record.name, bits)
        self.keep(record, crop, picture, mask)
        remarks += tuple(f"mask lacks {part}" for part in record.lacks)
        return Line(record.name, record.identity, source, remarks=remarks, fingerprint=bits.tobytes().hex())

    def photo(self, record: Record) -> np.ndarray:
        """(H, W, 3) pixels as they are stored."""
        if not isinstance(record.image, Path):
            raise InputError(f"photos must be files; {record.image} lies in a shard, whose pictures are prepared.")
        try:
            return picture_io.read(record.image).pixels
        except InputError as error:
            raise Dropped(f"cannot be read: {error}") from error

    def crop(self, pixels: np.ndarray) -> tuple[Crop, tuple[str, ...]]:
        """The aligned crop of the largest face, and remarks."""
        eight = eight_bit(pixels)
        found = self.detector(eight)
        if not found:
            raise Dropped("no face")
        face = self.landmarker(eight, found[0])
        if face.presence is not None and face.presence < PRESENCE:
            raise Dropped(f"no sure face: presence {face.presence:.2f}")
        settings = self.settings
        matrix = align.crop_matrix(face, settings.template, settings.size)
        side, least = settings.size / float(np.hypot(*matrix[0, :2])), settings.smallest or settings.size // 2
        if side < least:
            raise Dropped(f"face too small: its square has {side:.0f} pixels, {least} are wanted")
        crop = align.cut(pixels, face, settings.template, settings.size)
        return crop, (f"several faces: {len(found)}, the largest was taken",) if len(found) > 1 else ()

    def mask(self, record: Record, crop: Crop, picture: tuple[int, ...]) -> np.ndarray:
        """(S, S) uint8 inner face: by the record's masks within the outline of the mesh, else by the parser."""
        if NEEDED in record.lacks:
            raise Dropped(f"bad mask: part {NEEDED} is not annotated")
        if not record.masks or crop.mesh is None:
            area = self.parser(crop)[0, 0].cpu().numpy()
        else:
            try:
                drawn = whole_mask(record, (picture[0], picture[1]))
            except InputError as error:
                raise Dropped(f"bad mask: {error}") from error
            inside = inner_face(crop.mesh, crop.size)[0, 0].numpy()
            area = inside * aligned(drawn, (picture[0], picture[1]), crop.image_to_crop, crop.size)
        return np.round(area * 255).astype(np.uint8)

    def keep(self, record: Record, crop: Crop, picture: np.ndarray, mask: np.ndarray) -> None:
        """Writes the files of a photo."""
        name, mesh = record.name, io.BytesIO()
        np.save(mesh, np.asarray(crop.mesh, np.float32))
        write(self.out / "img" / f"{name}.png", png(picture))
        write(self.out / "mask" / f"{name}.png", png(mask))
        write(self.out / "mesh" / f"{name}.npy", mesh.getvalue())
        if record.caption is not None:
            write(self.out / "text" / f"{name}.txt", read_caption(record).encode())


def aligned(mask: np.ndarray, picture: tuple[int, int], image_to_crop: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32 crop of a picture's mask; nothing is beyond the picture's border.

    Args:
        mask: (h, w) float32 in [0, 1], of the picture's shape but not of its size.
        picture: (H, W).
        image_to_crop: (3, 3) from pixels of the picture to those of the crop.
        size: side of the crop.
    """
    height, width = mask.shape
    padded = np.pad(mask, ((height, height), (width, width)))
    to_picture = np.diag([picture[1] / width, picture[0] / height, 1.0])
    to_mask = np.array([[1.0, 0.0, -width], [0.0, 1.0, -height], [0.0, 0.0, 1.0]])
    colour = np.repeat(padded[..., None], 3, 2)
    return np.clip(align.warp(colour, image_to_crop @ to_picture @ to_mask, size)[..., 0], 0, 1)


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
