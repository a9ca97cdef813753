"""C2PA manifests: what was done to a picture or video, by what, signed and bound to its bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mattface import weights
from mattface.errors import InputError, MattfaceError
from mattface.provenance.settings import Settings, Swapped
from mattface.provenance.signing import Signer, require_packages
from mattface.provenance.xmp import DIGITAL_SOURCE_TYPE, GENERATED, TOOL

TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".tif": "image/tiff",
    ".tiff": "image/tiff", ".gif": "image/gif", ".heic": "image/heic", ".heif": "image/heif", ".avif": "image/avif",
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".m4v": "video/mp4", ".dng": "image/x-adobe-dng",
}  # fmt: skip
"""Endings of files that hold a manifest themselves; others get one beside them."""
SIDECAR = ".c2pa"
ALGORITHM = "mattface.mark.1"
"""Name of the imperceptible mark in soft bindings."""
SWAP = "mattface.swap"
"""Label of our own assertion."""
UNKNOWN = "application/octet-stream"
VALID, UNTRUSTED, ALTERED, ABSENT = "valid", "untrusted", "altered", "absent"
NO_MANIFEST, NO_FILE = ("ManifestNotFound", "NotSupported"), ("Io:", "Other: asset could not be parsed")
"""Beginnings of c2pa's errors that do not speak about a manifest."""
ELSEWHERE = "Remote"
"""Beginning of its errors about a manifest that the file names by an address."""
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Neither reading a file nor taking it as an ingredient asks an address that the file names."""
UNTRUSTED_CODE = "signingCredential.untrusted"


class ManifestError(MattfaceError):
    """A manifest could not be made; the picture is written without one."""


@dataclass(frozen=True)
class Read:
    """What a file's manifest says.

    Attributes:
        state: "valid", "untrusted" (whole, signer unknown), "altered" or "absent".
        reasons: codes of what does not hold.
        manifest: the active manifest as c2pa reports it, or None.
        payload: the id that a soft binding of ours names, or None.
        detached: the manifest lies beside the file.
    """

    state: str
    reasons: tuple[str, ...] = ()
    manifest: dict[str, Any] | None = None
    payload: str | None = None
    detached: bool = False


def sign(
    source: BinaryIO, out: BinaryIO, ending: str, title: str, version: str, signer: Signer, settings: Settings,
    record: Swapped | None = None, payload: str | None = None,
) -> tuple[bytes, list[str]]:  # fmt: skip
    """Signs a file's content.

    Args:
        source: the content, opened for reading.
        out: opened for writing and reading; gets the content with its manifest, and nothing where the format holds
            none (see `TYPES`).
        ending: of the file's name; says whether it can hold a manifest.
        title: name of the file.
        version: of this tool.
        signer: who signs.
        settings: consent note, and whether all of it was generated.
        record: what the swap knows.
        payload: id of the imperceptible mark.

    Returns:
        The manifest; notes.

    Raises:
        ManifestError: it could not be made; the message says why.
    """
    import c2pa

    notes: list[str] = []
    with _explained():
        build = _builder(title, ending, version, settings, record, payload)
        parent = _parent(build, record, notes)
        build.set_intent(c2pa.C2paBuilderIntent.EDIT) if parent else build.set_intent(
            c2pa.C2paBuilderIntent.CREATE, _source_type(settings.generated)
        )
        if ending.lower() in TYPES:
            manifest = build.sign(signer.native, TYPES[ending.lower()], source, out)
        else:
            build.set_no_embed()
            manifest = build.sign(signer.native, UNKNOWN, source, io.BytesIO())
    return bytes(manifest), notes


def read(path: Path, anchors: bytes | None = None) -> Read:
    """Reads and checks the manifest of a file, or where it holds none, the one beside it.

    Args:
        path: any file.
        anchors: PEM certificates that are trusted to vouch for signers.
    """
    beside = path.with_name(path.name + SIDECAR)
    with open(path, "rb") as file:
        found = _read(file, path.suffix, anchors, None)
        if found.state != ABSENT or not beside.is_file():
            return found
        file.seek(0)
        return _read(file, path.suffix, anchors, beside.read_bytes())


def read_bytes(data: bytes, ending: str, anchors: bytes | None = None, detached: bytes | None = None) -> Read:
    """Reads and checks a manifest in bytes. Arguments as `read`; `detached` is a manifest from beside the file."""
    return _read(io.BytesIO(data), ending, anchors, detached)


def _read(file: BinaryIO, ending: str, anchors: bytes | None, detached: bytes | None) -> Read:
    require_packages()
    import c2pa

    kind = TYPES.get(ending.lower(), UNKNOWN)
    trust = {"trust": {"user_anchors": anchors.decode()}} if anchors else {}
    context = c2pa.Context.from_dict({**OFFLINE, **trust})
    try:
        reader = c2pa.Reader(kind, file, detached, context=context)
        found = json.loads(reader.json())
        state = reader.get_validation_state()
    except c2pa.C2paError as error:
        text = " ".join(str(error).split())
        if text.startswith(NO_MANIFEST):
            return Read(ABSENT)
        if text.startswith(ELSEWHERE):
            return Read(ABSENT, (f"the manifest is kept elsewhere and was not fetched: {text}",))
        if text.startswith(NO_FILE):
            return Read(ABSENT, (f"the file cannot be read: {text}",))
        return Read(ALTERED, (f"broken manifest: {text}",))
    active = found.get("manifests", {}).get(found.get("active_manifest"))
    codes = tuple(dict.fromkeys(s["code"] for s in found.get("validation_status") or ()))
    wrong = tuple(code for code in codes if code != UNTRUSTED_CODE)
    if state == "Invalid":
        named = ALTERED, wrong
    elif state == "Trusted":
        named = VALID, ()
    else:
        named = UNTRUSTED, codes
    return Read(*named, active, _payload(active), detached is not None)


def _builder(
    title: str, ending: str, version: str, settings: Settings, record: Swapped | None, payload: str | None
) -> Any:
    import c2pa

    kind = GENERATED if settings.generated else DIGITAL_SOURCE_TYPE
    own: dict[str, Any] = {"tool": TOOL, "version": version}
    if record is not None:
        own |= {"method": record.method, "weights": record.weights, "target_sha256": record.target_hash}
        own |= {"source_sha256": list(record.source_hashes)}
        card = weights.cards().get(record.weights or "")
        own["weights_sha256"] = card.sha256 if card is not None else None
    if settings.consent:
        own["consent"] = settings.consent
    own = {name: value for name, value in own.items() if value}
    action = {
        "action": "c2pa.edited" if record is not None else "c2pa.created",
        "digitalSourceType": kind,
        "softwareAgent": {"name": TOOL, "version": version},
        "parameters": {name: own[name] for name in ("method", "weights") if name in own},
    }
    assertions = [{"label": SWAP, "data": own}]
    if record is not None:
        assertions.insert(0, {"label": "c2pa.actions.v2", "data": {"actions": [action]}})
    if payload is not None:
        block = {"scope": {}, "value": payload}
        assertions.append({"label": "c2pa.soft-binding", "data": {"alg": ALGORITHM, "blocks": [block]}})
    stated = {
        "claim_generator_info": [{"name": TOOL, "version": version}],
        "title": title,
        "format": TYPES.get(ending.lower(), UNKNOWN),
        "assertions": assertions,
        "ingredients": [
            {"title": "source", "relationship": "inputTo", "instance_id": f"sha256:{one}", "format": UNKNOWN}
            for one in (record.source_hashes if record is not None else ())
        ],
    }
    context = c2pa.Context.from_dict({**OFFLINE, "builder": {"thumbnail": {"enabled": False}}})
    return c2pa.Builder.from_json(json.dumps(stated), context)


def _parent(build: Any, record: Swapped | None, notes: list[str]) -> bool:
    """Adds the target as parent, with whatever manifest it carries; by hash alone where there is no file."""
    import c2pa

    if record is None:
        return False
    stated = {"title": "target", "relationship": "parentOf"}
    if record.target_hash is not None:
        stated["instance_id"] = f"sha256:{record.target_hash}"
    kind = TYPES.get(record.target.suffix.lower()) if record.target is not None else None
    if record.target is not None and kind is not None:
        try:
            with open(record.target, "rb") as file:
                build.add_ingredient(json.dumps({**stated, "title": record.target.name}), kind, file)
            return True
        except (OSError, c2pa.C2paError) as error:
            notes.append(f"the target's own manifest could not be kept: {' '.join(str(error).split())}")
    build.add_ingredient(json.dumps(stated), UNKNOWN, io.BytesIO(b"\0"))
    return True


def _source_type(generated: bool) -> Any:
    import c2pa

    kinds = c2pa.C2paDigitalSourceType
    return kinds.TRAINED_ALGORITHMIC_MEDIA if generated else kinds.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA


def _payload(manifest: dict[str, Any] | None) -> str | None:
    for assertion in (manifest or {}).get("assertions", ()):
        data = assertion.get("data")
        if assertion.get("label", "").startswith("c2pa.soft-binding") and data.get("alg") == ALGORITHM:
            return str(data["blocks"][0]["value"])
    return None


@contextmanager
def _explained() -> Iterator[None]:
    """c2pa's errors as sentences."""
    import c2pa

    try:
        yield
    except c2pa.C2paError as error:
        text = " ".join(str(error).split())
        if ("time" in text.lower() and "stamp" in text.lower()) or "TimeStamp" in text or "ureq" in text.lower():
            text = f"the time stamp authority did not answer ({text})"
        raise ManifestError(text) from error


def checked_anchors(path: Path | None) -> bytes | None:
    """PEM certificates that are trusted, read from a file.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    if path is None:
        return None
    require_packages()
    from cryptography import x509

    try:
        data = path.read_bytes()
        x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected PEM certificates that are to be trusted; {error}.") from error
    return data
