"""Lays the layers: mark into pixels, tag into metadata, manifest over the finished bytes.

Nothing here loses a picture: what cannot be laid is left out, and said.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mattface.errors import MattfaceError
from mattface.provenance import journal
from mattface.provenance.settings import C2PA, LAYERS, MARK, XMP, Laid, Settings, Signing, Swapped

if TYPE_CHECKING:
    from mattface.provenance.signing import Signer

LAID, OFF = "laid", "off"
NO_FACE = "no swapped face in any frame"
UNTRUSTED = "laid, signed by this machine's own certificate"


class Laying:
    """One file on its way out: collects what was laid, and why something was not.

    Args:
        settings: which layers.
        record: what the swap knows; None for a picture that no swap made.
        payload: 48-bit id; None draws one.
    """

    def __init__(self, settings: Settings, record: Swapped | None = None, payload: int | None = None) -> None:
        self.settings, self.record = settings, record
        self.number = secrets.randbits(48) if payload is None else payload
        self.states = {name: (LAID if name in settings.layers else OFF) for name in LAYERS}
        self.notes: list[str] = []
        self.manifest: bytes | None = None

    @property
    def payload(self) -> str:
        """The id as 12 hexadecimal digits."""
        return f"{self.number:012x}"

    def wants(self, layer: str) -> bool:
        """Whether a layer is still to be laid."""
        return self.states[layer] == LAID

    def absent(self, layer: str, why: str) -> None:
        """Notes that a layer could not be laid."""
        self.states[layer] = f"absent: {why}"

    def mark(self, pixels: np.ndarray) -> np.ndarray:
        """The picture with the imperceptible mark, where there is a face to carry it."""
        if not self.wants(MARK):
            return pixels
        record = self.record
        if record is None or not record.meshes or not record.matte.any():
            self.absent(MARK, "no swapped face in the picture")
        elif record.matte.shape != pixels.shape[:2]:
            self.absent(MARK, "the picture has another size than the swap")
        elif pixels.dtype == np.float32 and not self.settings.floats:
            self.absent(MARK, "floating-point pixels are marked only when it is asked for by name")
        else:
            from mattface.provenance import watermark

            return watermark.embed(pixels, record.matte, record.meshes, self.number)
        return pixels

    def sign(self, data: bytes, path: Path, version: str) -> bytes:
        """A file's content with its signed manifest; as it is where none could be made.

        Args:
            data: the content of a format that holds manifests.
            path: the name it will have.
            version: of this tool.
        """
        out = io.BytesIO()
        return out.getvalue() if self.sign_into(io.BytesIO(data), out, path, version) else data

    def sign_into(self, source: BinaryIO, out: BinaryIO, path: Path, version: str) -> bool:
        """Signs what `source` holds into `out`; the manifest is kept in `manifest`, too.

        Returns:
            Whether there is a manifest now.
        """
        if not self.wants(C2PA):
            return False
        from mattface.provenance import manifest

        try:
            try:
                by = self._signed(source, out, path, version, self.settings.signing)
            except manifest.ManifestError as error:
                if not self.settings.signing.timestamp:
                    raise
                self.notes.append(f"signed without a time stamp: {error}")
                for file in (source, out):
                    file.seek(0)
                out.truncate()
                by = self._signed(source, out, path, version, replace(self.settings.signing, timestamp=None))
        except (MattfaceError, ImportError, OSError) as error:  # nothing about signing may cost the picture
            self.absent(C2PA, str(error))
            self.notes.append(f"written without a signed manifest: {error}")
            return False
        self.notes += [by.note] if by.note else []
        if by.own:
            self.states[C2PA] = UNTRUSTED
        return True

    def _signed(self, source: BinaryIO, out: BinaryIO, path: Path, version: str, who: Signing) -> Signer:
        from mattface.provenance import manifest, signing

        by = signing.signer(who)
        payload = self.payload if self.wants(MARK) else None
        self.manifest, notes = manifest.sign(
            source, out, path.suffix, path.name, version, by, self.settings, self.record, payload
        )
        self.notes += notes
        return by

    def done(self, output: str) -> Laid:
        """What was laid; noted in the local log where a swap made the file."""
        if self.record is not None or self.wants(MARK):
            note = journal.write(self.payload, output, self.record, self.manifest, self.states)
            self.notes += [note] if note else []
        given = self.payload if any(state.startswith(LAID) for state in self.states.values()) else None
        return Laid(dict(self.states), given, tuple(self.notes))


def seal(path: Path, named: Path, laying: Laying, version: str) -> None:
    """Signs a finished file in place; where its format holds no manifest, one is laid beside `named`.

    Args:
        path: the file, still under a temporary name.
        named: the name it will have.
        laying: settings and states.
        version: of this tool.
    """
    from mattface.provenance.manifest import SIDECAR, TYPES

    sidecar = named.with_name(named.name + SIDECAR)
    temporary = path.with_name(f".mattface-{secrets.token_hex(6)}.tmp")
    try:
        with open(path, "rb") as source, open(temporary, "w+b") as out:
            signed = laying.sign_into(source, out, named, version)
        if signed and named.suffix.lower() in TYPES:
            os.replace(temporary, path)
        elif signed:
            temporary.write_bytes(laying.manifest or b"")
            os.replace(temporary, sidecar)
        else:
            sidecar.unlink(missing_ok=True)  # of an earlier file of that name
    except OSError as error:
        laying.manifest = None
        laying.absent(C2PA, f"the manifest could not be written ({error.strerror or error})")
        laying.notes.append(f"written without a signed manifest: {error}")
    finally:
        with suppress(OSError):
            temporary.unlink()


def settled(landmarker: Callable[..., Any], rgb: np.ndarray, face: Any) -> np.ndarray:
    """(468, 3) landmarks for the mark: the mean of four looks from slightly different places, which wander less.

    Args:
        landmarker: `mattface.landmarks.Landmarker`, or anything called like it.
        rgb: (H, W, 3) uint8.
        face: as detected, or with the mesh of a moment ago.
    """
    face = landmarker(rgb, face, 2)
    width, middle = float(np.ptp(face.mesh[:, 0])), face.mesh.mean(0)
    looks = []
    for right, down, scale in ((0.02, 0.02, 1.0), (-0.02, -0.02, 1.0), (0.02, -0.02, 1.03), (-0.02, 0.02, 0.97)):
        moved = (face.mesh - middle) * scale + middle + np.array([right * width, down * width, 0.0])
        looks.append(landmarker(rgb, replace(face, mesh=moved), 1).mesh)
    return np.mean(looks, axis=0)


def payload_of_job(plan: Any) -> int:
    """The 48-bit id of a video job: of its plan, so that a resumed run goes on with the same one."""
    import hashlib

    return int.from_bytes(hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).digest()[:6], "big")


def tags(layers: Sequence[str], version: str) -> dict[str, str]:
    """Tags of a video container, when that layer is wanted."""
    from mattface.provenance.xmp import mark_tags

    return mark_tags(version) if XMP in layers else {}
