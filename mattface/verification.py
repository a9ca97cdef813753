"""Reads every layer of provenance out of a picture or video, ours or others'."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mattface import picture_io, provenance
from mattface.errors import InputError, MattfaceError
from mattface.pixels import eight_bit
from mattface.provenance import journal, manifest
from mattface.provenance.laying import settled
from mattface.provenance.manifest import ABSENT, ALTERED, UNTRUSTED, VALID

if TYPE_CHECKING:
    from mattface.provenance.watermark import Found

VIDEOS = (".mp4", ".mov", ".mkv", ".m4v", ".webm", ".avi")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
FRAMES = 12
"""Frames of a video that are looked at, evenly spread."""
FACES = 4
"""Faces of a frame that are looked at, largest first."""
BORDER = 0.25
"""Where no face is found, the picture is looked at again with a border of this part of its size."""


def verify(
    path: str | os.PathLike[str], anchors: str | os.PathLike[str] | None = None, mark: bool = True
) -> dict[str, Any]:
    """Says what a file's own marks tell about its origin.

    Args:
        path: a picture or video of any origin.
        anchors: PEM file of certificates that are trusted to vouch for signers; without it no signer is known.
        mark: look for the imperceptible mark, too, which needs the face detector.

    Returns:
        {"file": ..., "layers": {"xmp": ..., "c2pa": ..., "mark": ...}, "log": ..., "notes": [...]}. Every layer has a
        "state": "valid" (signed by somebody trusted; a mark that the manifest or the local log names), "untrusted"
        (present and whole, but nobody known vouches for it), "altered" or "absent". "log" is what this machine noted
        when it gave out the id, or None.

    Raises:
        InputError: there is no such file, or it is neither a picture nor a video that can be read.
        WeightsError: the detector's weights are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a picture or video; there is no file of that name. Check the path.")
    trusted = manifest.checked_anchors(None if anchors is None else Path(anchors))
    notes: list[str] = []
    signed = manifest.read(path, trusted)
    video = path.suffix.lower() in VIDEOS
    frames, tag = _video(path) if video else _picture(path, signed, notes)
    seen = _looked(frames) if mark else []
    found = _common(seen)
    payload = None if found is None else f"{found.payload:012x}"
    entry = journal.find(payload or signed.payload or "")
    return {
        "file": str(path),
        "layers": {
            "xmp": _told(tag),
            "c2pa": _signed(signed),
            "mark": _marked(payload, found, seen, signed.payload, entry) if mark else {"state": "not looked for"},
        },
        "log": None if entry is None else {name: value for name, value in entry.items() if name != "manifest"},
        "notes": notes,
    }


def worst(results: Sequence[dict[str, Any]]) -> str:
    """"altered" when any layer of any file is, else "found" when any layer is there, else "absent"."""
    states = {layer["state"] for result in results for layer in result["layers"].values()}
    return "altered" if ALTERED in states else "found" if states & {VALID, UNTRUSTED} else "absent"


def files(path: Path) -> list[Path]:
    """The file itself, or all pictures and videos below a folder."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in (*PICTURES, *VIDEOS) and p.is_file())


def _picture(path: Path, signed: manifest.Read, notes: list[str]) -> tuple[list[np.ndarray], Any]:
    try:
        picture = picture_io.read(path, allow_huge=True)
    except InputError as error:
        if signed.state == ABSENT:
            raise
        notes.append(f"the pixels cannot be read: {error}")
        return [], None
    return [eight_bit(picture.pixels)], provenance.find_mark(picture.metadata.get("xmp"))


def _video(path: Path) -> tuple[Iterator[np.ndarray], Any]:
    """Frames evenly spread over a video, and its tag."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"{path}: reading videos needs the package av. Type: pip install 'mattface[realtime]'"
        ) from error
    try:
        with av.open(str(path)) as file:
            tags = {key.lower(): value for key, value in file.metadata.items()}
            count = file.streams.video[0].frames if file.streams.video else 0
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: expected a video; it cannot be read ({error}).") from error
    kind = tags.get("digitalsourcetype")
    tag = provenance.Mark(kind, tags.get("aisystemused"), tags.get("aisystemversionused")) if kind else None
    return _frames(path, max(1, count // FRAMES)), tag


def _frames(path: Path, step: int) -> Iterator[np.ndarray]:
    import av

    with av.open(str(path)) as file:
        given = 0
        try:
            for k, frame in enumerate(file.decode(video=0)):
                if k % step == 0 and given < FRAMES:
                    given += 1
                    yield frame.to_ndarray(format="rgb24")
        except (av.error.FFmpegError, IndexError):
            return


@cache
def parts() -> tuple[Any, Any]:
    """The detector and the landmarker that look for marked faces."""
    from mattface import perception

    return perception.load("detector"), perception.load("landmarks")


def _looked(frames: Sequence[np.ndarray] | Iterator[np.ndarray]) -> list[Found]:
    """What every face of every frame shows."""
    return [one for rgb in frames for one in look(rgb)]


def look(rgb: np.ndarray) -> list[Found]:
    """Searches every face of a picture, and of its mirror image, for the mark.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        One answer for every face.
    """
    best: list[Found] = []
    for mirrored in (False, True):
        shown = np.ascontiguousarray(rgb[:, ::-1]) if mirrored else rgb
        seen = _faces(shown)
        if any(one.payload is not None for one in seen):
            return seen
        best = best or seen
    return best


def _faces(rgb: np.ndarray) -> list[Found]:
    import cv2

    from mattface.provenance import watermark

    find, locate = parts()
    faces = find(rgb)
    if not faces:  # a face that fills the picture is found once there is something around it
        height, width = (int(n * BORDER) for n in rgb.shape[:2])
        rgb = cv2.copyMakeBorder(rgb, height, height, width, width, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        faces = find(rgb)
    return [watermark.search(rgb, settled(locate, rgb, face)) for face in faces[:FACES]]


def _common(seen: Sequence[Found]) -> Found | None:
    """The surest sight of the payload that most faces show."""
    counts = Counter(one.payload for one in seen if one.payload is not None)
    if not counts:
        return None
    payload = counts.most_common(1)[0][0]
    return max((one for one in seen if one.payload == payload), key=lambda one: one.correlation)


def _told(tag: Any) -> dict[str, Any]:
    if tag is None:
        return {"state": ABSENT}
    says = {"digital_source_type": tag.digital_source_type, "tool": tag.tool, "version": tag.version}
    return {"state": UNTRUSTED, "why": "a tag is not signed", **says}


def _signed(signed: manifest.Read) -> dict[str, Any]:
    told: dict[str, Any] = {"state": signed.state}
    if signed.reasons:
        told["why"] = ", ".join(signed.reasons)
    if signed.manifest is None:
        return told
    by, tools = signed.manifest.get("signature_info") or {}, signed.manifest.get("claim_generator_info") or [{}]
    told["signer"] = by.get("common_name") or by.get("issuer")
    told["time"] = by.get("time")
    told["tool"] = " ".join(str(tools[0][name]) for name in ("name", "version") if tools[0].get(name))
    told["id"] = signed.payload
    told["beside the file"] = signed.detached
    told["assertions"] = signed.manifest.get("assertions", [])
    told["ingredients"] = signed.manifest.get("ingredients", [])
    return told


def _marked(
    payload: str | None, found: Found | None, seen: Sequence[Found], named: str | None, entry: dict[str, Any] | None
) -> dict[str, Any]:
    if found is None or payload is None:
        why = "no face carries it" if seen else "no face was found"
        return {"state": ABSENT, "why": why, "faces": len(seen)}
    told: dict[str, Any] = {"id": payload, "correlation": round(found.correlation, 3), "chance": found.chance}
    told |= {"faces": len(seen), "faces that agree": sum(one.payload == found.payload for one in seen)}
    if named is not None and named != payload:
        return {"state": ALTERED, "why": f"the manifest names another id, {named}", **told}
    if named == payload or entry is not None:
        return {"state": VALID, **told}
    return {"state": UNTRUSTED, "why": "neither a manifest nor the local log names this id", **told}


def unreadable(path: Path, error: MattfaceError) -> dict[str, Any]:
    """The result of a file of a folder that cannot be read."""
    layers = {name: {"state": "unreadable"} for name in provenance.LAYERS}
    return {"file": str(path), "layers": layers, "log": None, "notes": [str(error)]}
