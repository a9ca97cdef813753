"""What is laid on every picture and video: one setting, everything by default."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mattface.errors import InputError, UsageError

XMP, C2PA, MARK = "xmp", "c2pa", "mark"
LAYERS = (XMP, C2PA, MARK)
"""Metadata tag, signed manifest, imperceptible mark."""
RECORD = "swapped"
"""Key of `Picture.metadata` under which a `Swapped` travels."""
FILE = "file"
"""Key of `Picture.metadata` under which the path travels that a picture was read from."""
LONGEST_NOTE = 4096
"""Characters of a consent note; longer texts are named by their hash."""


@dataclass(frozen=True)
class Signing:
    """Who signs manifests. Without a chain, a certificate that this machine makes for itself.

    Attributes:
        chain: PEM file of the certificate chain, the signer's own first.
        key: PEM file of its private key, not encrypted; or a function that signs bytes, so that a key never leaves a
            hardware module.
        algorithm: "es256", "es384", "es512", "ps256", "ps384", "ps512" or "ed25519"; None asks the certificate.
        timestamp: address of an RFC 3161 time stamp authority.
    """

    chain: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | Callable[[bytes], bytes] | None = None
    algorithm: str | None = None
    timestamp: str | None = None


@dataclass(frozen=True)
class Settings:
    """How a picture or video is marked.

    Attributes:
        layers: which of `LAYERS`.
        signing: who signs.
        consent: a note on the consent of the people shown, or None.
        generated: everything in the picture was made by a model, not a part of it.
        floats: floating-point pixels get the imperceptible mark, too.
    """

    layers: tuple[str, ...] = LAYERS
    signing: Signing = field(default_factory=Signing)
    consent: str | None = None
    generated: bool = False
    floats: bool = False

    @staticmethod
    def of(value: bool | str | Collection[str] | Settings) -> Settings:
        """Settings from the short forms: True (all layers), False (none), or the names of layers ("xmp,c2pa").

        Naming the mark asks for it on floating-point pixels, too.

        Raises:
            UsageError: an unknown layer.
        """
        if isinstance(value, Settings):
            return value
        if isinstance(value, bool):
            return Settings(LAYERS if value else ())
        given = value.split(",") if isinstance(value, str) else list(value)
        if given in (["all"], ["none"]):
            return Settings.of(given == ["all"])
        names = given
        unknown = [name for name in names if name not in LAYERS]
        if unknown:
            raise UsageError(f"expected all, none or layers out of {', '.join(LAYERS)}; got {', '.join(unknown)}.")
        return Settings(tuple(name for name in LAYERS if name in names), floats=MARK in names)


@dataclass(frozen=True)
class Swapped:
    """What a swap knows about its own origin; it travels with the `Picture` to whoever writes it.

    Attributes:
        matte: (H, W) float32, where faces were replaced.
        meshes: (468, 3) landmarks of the swapped faces as the result shows them.
        target: file that was changed, or None when it came as an array.
        target_hash: SHA-256 of that file, or of the pixels.
        source_hashes: SHA-256 of the source's pictures.
        method, weights: of the swap.
    """

    matte: np.ndarray
    meshes: tuple[np.ndarray, ...]
    target: Path | None = None
    target_hash: str | None = None
    source_hashes: tuple[str, ...] = ()
    method: str | None = None
    weights: str | None = None

    def over(self, before: Any) -> Swapped:
        """This swap, done on the result of another: both mattes, all faces, the first target."""
        if not isinstance(before, Swapped):
            return self
        return Swapped(
            np.maximum(self.matte, before.matte),
            (*before.meshes, *self.meshes),
            before.target,
            before.target_hash,
            tuple(dict.fromkeys((*before.source_hashes, *self.source_hashes))),
            self.method,
            self.weights,
        )


@dataclass(frozen=True)
class Laid:
    """What was laid on a file.

    Attributes:
        layers: layer -> "laid", or why not.
        payload: the 48-bit id of mark and manifest as 12 hexadecimal digits, or None.
        notes: sentences for the user.
    """

    layers: dict[str, str]
    payload: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line, for reports."""
        return ", ".join(f"{name}: {state}" for name, state in self.layers.items())


def consent_note(value: str) -> str:
    """A note on consent: a text as it is, a file by its name and SHA-256.

    Raises:
        InputError: the file cannot be read, or the text is too long.
    """
    if len(value) > LONGEST_NOTE:
        raise InputError(f"consent: expected at most {LONGEST_NOTE} characters; got {len(value)}. Name a file instead.")
    path = Path(value)
    try:
        content = path.read_bytes()
    except PermissionError as error:
        raise InputError(f"{value}: expected a readable document or a text; {error.strerror}.") from error
    except (OSError, ValueError):  # no file of that name: a text
        return value
    return f"{path.name}, SHA-256 {hashlib.sha256(content).hexdigest()}"


def file_of(value: Any) -> Path | None:
    """The file that a path, or a `Picture` that was read, stands for."""
    if isinstance(value, str | os.PathLike):
        return Path(value)
    return getattr(value, "metadata", {}).get(FILE)


def hash_of(value: Any) -> str | None:
    """SHA-256 of the file behind a path or a `Picture`, else of the pixels; None for anything else."""
    path = file_of(value)
    if path is not None:
        with suppress(OSError), open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    pixels = getattr(value, "pixels", value)
    if not isinstance(pixels, np.ndarray):
        return None
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def folder() -> Path:
    """Where this machine's certificate and the log are: $MATTFACE_PROVENANCE, else in the user's configuration."""
    given = os.environ.get("MATTFACE_PROVENANCE")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_config_dir("mattface")) / "provenance"
