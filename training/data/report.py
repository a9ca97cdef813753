"""What a preparation kept and dropped, and why: for report.json, and for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mattface.training.data.files import some


@dataclass(frozen=True)
class Line:
    """What became of a photo.

    Attributes:
        name: of its files, unique.
        identity: who it is.
        source: path below the folder of photos.
        dropped: "REASON" or "REASON: DETAIL" when it was left out; empty when it was kept.
        remarks: worth knowing of a kept one, in the same form.
        fingerprint: of the crop, as hexadecimal digits; empty for dropped ones.
    """

    name: str
    identity: str
    source: str
    dropped: str = ""
    remarks: tuple[str, ...] = ()
    fingerprint: str = ""


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """Counts, and photos by the reason they were dropped for or by what is worth knowing of them."""
    listed = list(lines)
    kept = [line for line in listed if not line.dropped]
    return {
        "photos": len(listed),
        "kept": len(kept),
        "identities": len({line.identity for line in kept}),
        "dropped": by_reason((line, line.dropped) for line in listed if line.dropped),
        "remarks": by_reason((line, remark) for line in kept for remark in line.remarks),
    }


def by_reason(said: Iterable[tuple[Line, str]]) -> dict[str, list[str]]:
    """Reason -> "SOURCE: DETAIL" or "SOURCE" of every photo it was said of."""
    found: dict[str, list[str]] = {}
    for line, text in said:
        reason, colon, detail = text.partition(":")
        found.setdefault(reason, []).append(line.source + colon + detail)
    return found


def reasons(report: dict[str, Any]) -> str:
    """ "no face 3, duplicate 2"."""
    return ", ".join(f"{reason} {len(names)}" for reason, names in report["dropped"].items()) or "nothing dropped"


def describe_work(report: dict[str, Any], out: Path) -> str:
    """The report for people, a line for every reason."""
    rows = [f"{report['kept']} of {report['photos']} photos kept, {report['identities']} identities: {out.resolve()}"]
    for what, key in (("dropped", "dropped"), ("kept", "remarks")):
        rows += [f"  {what}, {reason}: {len(names)} ({some(names, 3)})" for reason, names in report[key].items()]
    if "captions" in report:
        missing = report["captions"]["missing"]
        note = f", {len(missing)} missing ({some(missing, 3)})" if missing else ""
        rows.append(f"  captions: {report['captions']['written']} written{note}")
    return "\n".join(rows)
