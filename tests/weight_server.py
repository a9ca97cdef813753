"""A web server on this machine that misbehaves on purpose, cards that point to it, and how a pull of them ends."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mattface import weights
from mattface.errors import WeightsError
from mattface.weights import registry

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path, with ranges and an ETag, unless told otherwise.

    Attributes:
        acts: what to do instead, one for each of the next requests; then it behaves.
        asked: (path, headers) of every request.
        content, tag: what is served, and its version.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.acts: list[Callable[[Handler], None]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.content, self.tag = CONTENT, '"one"'

    @property
    def base(self) -> str:
        """Address without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{self.base}/tiny.bin"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of every request."""
        return [headers.get("Range") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    """One request: the next act, or good behaviour."""

    server: Server

    def do_GET(self) -> None:
        """Answers."""
        self.server.asked.append((self.path, dict(self.headers)))
        act = self.server.acts.pop(0) if self.server.acts else Handler.behave
        act(self)

    def behave(self) -> None:
        """The file, or the rest of it when the version is still the same."""
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        start = int(wanted[6:-1]) if wanted and version in (None, self.server.tag) else 0
        size = len(self.server.content)
        if start >= size:
            self.send_error(416)
            return
        more = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        self.answer(206 if start else 200, self.server.content[start:], ETag=self.server.tag, **more)

    def answer(self, status: int, body: bytes, sent: int | None = None, **headers: str) -> None:
        """A whole answer, of which only the first `sent` bytes are sent."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *arguments: object) -> None:
        """Silent."""


Act = Callable[[Handler], None]


def cut(at: int) -> Act:
    """Promises the file and stops after so many bytes of what was asked for."""

    def act(handler: Handler) -> None:
        tag, content = handler.server.tag, handler.server.content
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.answer(206 if start else 200, content[start:], at, ETag=tag, **more)

    return act


def answers(status: int, body: bytes = b"", **headers: str) -> Act:
    """Sends just this."""
    return lambda handler: handler.answer(status, body, **headers)


def whole(handler: Handler) -> None:
    """Sends the whole file, whatever range was asked for."""
    handler.answer(200, handler.server.content)


def wrong_range(handler: Handler) -> None:
    """Says it continues, and begins elsewhere."""
    handler.answer(206, CONTENT[100:], Content_Range=f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}")


def hang_up(handler: Handler) -> None:
    """Says nothing."""
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """Sends without saying how much, and more than anybody wants."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENT * 3)


def compressed(handler: Handler) -> None:
    """Sends the file in an encoding that was not asked for."""
    handler.answer(200, gzip.compress(CONTENT), Content_Encoding="gzip")


def page(kind: str = "text/html; charset=utf-8", title: str = "Access denied") -> Act:
    """A page for people with status 200."""
    return answers(200, f"<!DOCTYPE html><html><head><title>{title}</title></head></html>".encode(), Content_Type=kind)


def redirect(to: str) -> Act:
    """Sends elsewhere."""
    return answers(302, Location=to)


@contextmanager
def serving() -> Iterator[Server]:
    """A running server."""
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def at(url: str, **more: str) -> str:
    """A card's source on a web server."""
    return source("https", url=url, **more)


def source(kind: str, **fields: str) -> str:
    """A card's source."""
    return "\n".join([f'kind = "{kind}"', *(f'{name} = "{value}"' for name, value in fields.items())])


def write_card(folder: Path, *sources: str, sha256: str = SHA256, size: int = len(CONTENT), **more: Any) -> None:
    """A card called tiny for tiny.bin."""
    fields = {"name": "tiny", "purpose": "a test", "file": "tiny.bin", "licence": "CC0-1.0", "origin": "here", **more}
    text = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    text += f'commercial_use = true\nhow = "Type: nothing"\nsha256 = "{sha256}"\nsize = {size}\n'
    (folder / f"{fields['name']}.toml").write_text(text + "".join(f"[[sources]]\n{each}\n" for each in sources))
    registry.cards.cache_clear()


def rejected(match: str, **options: Any) -> str:
    """The one-line error of a pull of tiny."""
    with pytest.raises(WeightsError, match=match) as caught:
        weights.pull(["tiny"], progress=False, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_in(folder: Path) -> list[str]:
    """Names of the files in a folder of weights, without lock files."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
