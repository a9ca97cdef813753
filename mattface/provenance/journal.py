"""The local log: which id was given to which file, with the manifest, so that a stripped one can be found again."""

from __future__ import annotations

import base64
import json
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mattface.provenance.settings import Swapped, folder


def place(payload: str) -> Path:
    """File of an id."""
    return folder() / "log" / payload[:2] / f"{payload}.json"


def write(payload: str, output: str, record: Swapped | None, manifest: bytes | None, layers: dict[str, str]) -> str:
    """Notes an id.

    Args:
        payload: 12 hexadecimal digits.
        output: name of the file that was written.
        record: what the swap knows.
        manifest: as it was signed, or None.
        layers: what was laid.

    Returns:
        A sentence when it could not be noted, else "".
    """
    entry: dict[str, Any] = {"id": payload, "time": datetime.now(UTC).isoformat(timespec="seconds"), "output": output}
    entry["layers"] = layers
    if record is not None:
        entry |= {"target_sha256": record.target_hash, "source_sha256": list(record.source_hashes)}
        entry |= {"method": record.method, "weights": record.weights}
    if manifest is not None:
        entry["manifest"] = base64.b64encode(manifest).decode()
    path = place(payload)
    temporary = path.with_name(f".{payload}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entry, file, indent=1)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        return f"the id was not logged: {path.parent} cannot be written ({error.strerror or error})"
    return ""


def find(payload: str) -> dict[str, Any] | None:
    """The entry of an id; None when this machine does not know it, or the entry is damaged."""
    try:
        entry = json.loads(place(payload).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None
