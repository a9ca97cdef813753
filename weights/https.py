"""Downloads one file over http(s), continuing an interrupted download where it stopped."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

CHUNK = 1 << 18
TIMEOUT = 60.0
"""Seconds without any byte before a download is given up."""


def download(url: str, part: Path, size: int = 0, progress: bool = False, label: str = "") -> None:
    """Downloads to `part`; bytes already there are kept and only the rest is asked for.

    Args:
        url: http or https address.
        part: file that grows; on success it holds everything. After a failure it stays, for the next attempt.
        size: bytes expected, 0 for unknown.
        progress: draw a progress bar on the standard error stream.
        label: name shown beside the bar.

    Raises:
        OSError: the server cannot be reached, refuses, or stops before the end.
    """
    from tqdm import tqdm

    have = part.stat().st_size if part.is_file() else 0
    if size and have >= size:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "mattface", **_range(have)})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:  # the server sends the whole file
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else size or None
            bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=not progress)
            with part.open("ab" if have else "wb") as out, bar:
                while chunk := answer.read(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is here cannot be continued
            part.unlink(missing_ok=True)
        raise
    except http.client.HTTPException as error:
        raise OSError(f"{url}: the connection ended early ({error!r}); run the same command to continue") from error
    got = part.stat().st_size
    if total and got != total:
        raise OSError(f"{url}: expected {total} bytes; got {got}; run the same command to continue")


def _range(have: int) -> dict[str, str]:
    return {"Range": f"bytes={have}-"} if have else {}
