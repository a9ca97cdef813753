"""Downloads one file over https: continued where it stopped, tried again after a pause, never more than was stated."""

from __future__ import annotations

import http.client
import os
import random
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from mattface.weights.folders import CannotWrite, need_space, write

CHUNK = 1 << 18
TIMEOUT = 30.0
"""Seconds without any byte before an attempt is given up."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts, each shortened by chance to no less than half."""

LONGEST_PAUSE = 60.0
"""Seconds that a server may ask for with Retry-After."""

LARGEST = 16 << 30
"""Bytes a file may have when nobody stated a size."""

WORTH = 1 << 20
"""An attempt that brought this many bytes does not count as a failure."""

TEMPORARY = {408, 416, 425, 429, 500, 502, 503, 504}
"""Answers after which trying again makes sense."""


class WebPage(OSError):
    """The server sent a page for people instead of a file; `text` is how it begins."""

    def __init__(self, url: str, text: str) -> None:
        title = re.search(r"<title[^>]*>([^<]{1,80})", text, re.IGNORECASE)
        said = f" ({' '.join(title[1].split())})" if title else ""
        super().__init__(f"{url} sent a web page{said} instead of a file")
        self.url, self.text = url, text


class _Again(OSError):
    """This attempt failed in a way that another may not; `pause` is what the server asked for, in seconds."""

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause


@dataclass(frozen=True)
class Wanted:
    """One download.

    Attributes:
        url: http or https address.
        part: file that grows; on success it holds everything. A failure that may pass leaves it for the next run.
        origin: what the bytes are; a part that was begun for another origin is not continued.
        size: bytes expected, 0 for unknown.
        checked: whether the caller knows the hash, so that a part may be continued even if the server cannot say that
            the file is still the same.
        headers: more request headers; they are not sent on to where a redirect points.
        label: name shown beside the progress bar; empty for none.
    """

    url: str
    part: Path
    origin: str
    size: int = 0
    checked: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    label: str = ""


def download(wanted: Wanted) -> None:
    """Downloads a file. Proxies are taken from the environment (https_proxy, no_proxy, ...).

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written; no part is left.
        WebPage: a page came instead of a file.
        OSError: the server cannot be reached, denies access, stops before the end, or redirects to where it must not.
    """
    pauses = list(PAUSES)
    while True:
        before = _size(wanted.part)
        try:
            return _attempt(wanted)
        except CannotWrite:
            forget(wanted.part)
            raise
        except _Again as error:
            if _size(wanted.part) - before < WORTH:
                if not pauses:
                    more = "; the same command continues the download" if _size(wanted.part) else ""
                    raise OSError(f"{error}{more}") from error
                time.sleep(max(min(error.pause, LONGEST_PAUSE), pauses.pop(0) * random.uniform(0.5, 1.0)))


def forget(part: Path) -> None:
    """Removes an unfinished download."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    """The file beside a part that says what it is: origin, and the server's mark of the version."""
    return part.with_name(part.name + ".from")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() and not part.is_symlink() else 0


def _attempt(wanted: Wanted) -> None:
    have, mark = _left_over(wanted)
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "mattface", "Accept-Encoding": "identity"})
    for name, value in wanted.headers:
        request.add_unredirected_header(name, value)
    if have:
        request.add_header("Range", f"bytes={have}-")
        if mark:
            request.add_header("If-Range", mark)
    try:
        with _opener().open(request, timeout=TIMEOUT) as answer:
            have = _continues(answer, have, wanted)
            _reject_pages(answer, wanted.url)
            total = _total(answer, have, wanted)
            _receive(answer, wanted, have, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is here cannot be continued
            forget(wanted.part)
        text = f"{wanted.url}: the server answered {error.code} {error.reason}"
        raise (_Again(text, _asked(error.headers)) if error.code in TEMPORARY else OSError(text)) from error
    except urllib.error.URLError as error:
        text = f"{wanted.url} cannot be reached ({error.reason})"
        raise (OSError(text) if _lasting(error.reason) else _Again(text)) from error
    except ValueError as error:
        raise OSError(f"{wanted.url}: not an address that can be followed ({error})") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Again(f"{wanted.url}: the connection ended early ({error!r})") from error
    _note(wanted.part).unlink(missing_ok=True)


def _lasting(reason: Any) -> bool:
    """Whether trying again is no use: a wrong certificate, or a name that nobody knows."""
    unknown = isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
    return unknown or isinstance(reason, ssl.SSLCertVerificationError)


def _left_over(wanted: Wanted) -> tuple[int, str]:
    """(bytes that can be continued, the server's mark of the version they belong to)."""
    have = _size(wanted.part)
    try:
        origin, mark = _note(wanted.part).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        origin, mark = "", ""
    fits = 0 < have < (wanted.size or LARGEST)
    if fits and origin == wanted.origin and (mark or wanted.checked):
        return have, mark
    forget(wanted.part)
    return 0, ""


def _continues(answer: Any, have: int, wanted: Wanted) -> int:
    """Where the answer's first byte belongs: a server may send the rest, or everything."""
    if answer.status == 200:
        return 0
    if answer.status == 206 and have and (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
        return have
    forget(wanted.part)
    raise _Again(f"{wanted.url}: expected the file or the rest of it; the server answered {answer.status}")


def _reject_pages(answer: Any, url: str) -> None:
    kind = answer.headers.get_content_type()
    begins = answer.peek(512)[:512].lstrip().lower() if hasattr(answer, "peek") else b""
    if kind in ("text/html", "application/xhtml+xml") or begins.startswith((b"<!doctype html", b"<html")):
        raise WebPage(url, answer.read(1 << 20).decode("utf-8", "replace"))
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise OSError(f"{url}: the server sends the file in another encoding than asked for")


def _total(answer: Any, have: int, wanted: Wanted) -> int:
    """Bytes the whole file will have; 0 when nobody says."""
    length = answer.headers.get("Content-Length") or ""
    stated = have + int(length) if length.isascii() and length.isdigit() else 0
    if wanted.size and stated and stated != wanted.size:
        forget(wanted.part)
        raise OSError(f"{wanted.url}: expected a file of {wanted.size} bytes; the server sends {stated}")
    total = wanted.size or stated
    if total > LARGEST:
        raise OSError(f"{wanted.url}: expected at most {LARGEST} bytes; the server sends {total}")
    need_space(wanted.part.parent, total - have)
    return total


def _receive(answer: Any, wanted: Wanted, have: int, total: int) -> None:
    from tqdm import tqdm

    tag = answer.headers.get("ETag", "")
    mark = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    bar = tqdm(
        total=total or None, initial=have, unit="B", unit_scale=True, desc=wanted.label, disable=not wanted.label
    )
    with bar, _open(wanted, have, mark) as out:
        while chunk := answer.read(CHUNK):
            have += len(chunk)
            if have > (total or LARGEST):
                forget(wanted.part)
                raise OSError(f"{wanted.url}: expected {total or f'at most {LARGEST}'} bytes; the server sends more")
            write(out, chunk)
            bar.update(len(chunk))
    if total and have != total:
        raise _Again(f"{wanted.url}: expected {total} bytes; got {have}")


def _open(wanted: Wanted, have: int, mark: str) -> IO[bytes]:
    """The part, opened so that a link in its place leads nowhere."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_APPEND if have else os.O_TRUNC)
    try:
        _note(wanted.part).unlink(missing_ok=True)
        _note(wanted.part).write_text(f"{wanted.origin}\n{mark}\n", encoding="utf-8")
        return os.fdopen(os.open(wanted.part, flags | getattr(os, "O_BINARY", 0), 0o666), "wb", buffering=0)
    except OSError as error:
        raise CannotWrite(f"{wanted.part.parent} cannot be written ({error})") from error


def _asked(headers: Message) -> float:
    """Seconds of a Retry-After header; dates are not read."""
    value = headers.get("Retry-After") or ""
    return float(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0.0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and from http to the same host; never to files or other hosts in the clear."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme != "https" and (new.scheme, new.netloc) != ("http", old.netloc if old.scheme == "http" else None):
            raise OSError(f"{req.full_url} redirects to {newurl[:200]}; only https addresses are followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks http and https and nothing else."""
    opener = urllib.request.OpenerDirector()
    web = urllib.request
    for handler in (web.ProxyHandler, web.HTTPHandler, web.HTTPSHandler, web.HTTPDefaultErrorHandler, _Redirects):
        opener.add_handler(handler())
    for last in (web.HTTPErrorProcessor, web.UnknownHandler):
        opener.add_handler(last())
    return opener
