"""Fetching weights from servers that misbehave: downloads that break off, answers that lie, servers that are silent."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import weight_server as web
from weight_server import CONTENT, SHA256, Server, at, left_in, rejected, write_card

from mattface import weights
from mattface.weights import https

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_pull(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    assert weights.pull(["tiny"]) == {"tiny": cache / "tiny.bin"}
    assert (cache / "tiny.bin").read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.bin"]
    weights.pull(["tiny"])
    assert len(server.asked) == 1, "what is here is not fetched again"


def test_interrupted_download_is_continued_at_once(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.cut(4000), web.cut(1000), web.hang_up]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=4000-", "bytes=5000-", "bytes=5000-"]
    assert server.asked[1][1]["If-Range"] == server.tag
    assert left_in(cache) == ["tiny.bin"]


def test_interrupted_download_is_continued_by_the_next_command(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.cut(4000)] + [web.cut(0)] * 4
    rejected(r"expected 10240 bytes; got 4000; the same command continues the download")
    assert left_in(cache) == [".tiny.bin.part", ".tiny.bin.part.from"]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=4000-"
    assert left_in(cache) == ["tiny.bin"]


def test_file_that_changed_meanwhile_is_fetched_whole(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.content, server.tag = bytes(len(CONTENT)), '"old"'
    server.acts = [web.cut(4000)] + [web.hang_up] * 4
    rejected("ended early")
    server.content, server.tag = CONTENT, '"new"'
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT


def test_part_without_a_mark_is_continued_only_when_the_hash_is_known(
    own_cards: Path, cache: Path, server: Server
) -> None:
    server.tag = ""
    for sha256, wanted in ((SHA256, "bytes=4000-"), ("", None)):
        write_card(own_cards, at(server.url), sha256=sha256)
        server.acts = [web.cut(4000)] + [web.hang_up] * 4
        rejected("ended early")
        weights.pull(["tiny"])
        assert server.ranges[-1] == wanted
        (cache / "tiny.bin").unlink()


def test_server_that_ignores_ranges(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.cut(4000), web.whole]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT


def test_server_that_continues_elsewhere(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.cut(4000), web.wrong_range]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=4000-", None]


def test_part_that_is_too_long_or_of_another_source(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    cache.mkdir(parents=True)
    for size, origin in ((len(CONTENT) + 5, server.url), (100, "http://elsewhere/x")):
        (cache / ".tiny.bin.part").write_bytes(bytes(size))
        (cache / ".tiny.bin.part.from").write_text(f"{origin}\n{server.tag}\n")
        assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
        (cache / "tiny.bin").unlink()
    assert server.ranges == [None, None]


BAD: dict[str, tuple[web.Act, str]] = {
    "page": (web.page(), r"web page \(Access denied\) instead of a file"),
    "page that says it is a file": (web.page("application/octet-stream"), "web page"),
    "page without a kind": (web.page(""), "web page"),
    "not found": (web.answers(404), "answered 404"),
    "forbidden": (web.answers(403, b"<html>no</html>"), "answered 403"),
    "no content": (web.answers(204), "answered 204"),
    "shorter file": (web.answers(200, CONTENT[:-1]), "expected a file of 10240 bytes; the server sends 10239"),
    "longer file": (web.answers(200, CONTENT + b"x"), "the server sends 10241"),
    "endless file": (web.endless, "expected 10240 bytes; the server sends more"),
    "compressed": (web.compressed, "another encoding|the server sends"),
    "other content": (web.answers(200, bytes(len(CONTENT))), f"expected SHA-256 {SHA256}; what was fetched has"),
    "to a file": (web.redirect("file:///etc/hostname"), "file:///etc/hostname"),
    "to ftp": (web.redirect("ftp://127.0.0.1/x"), "only https"),
    "to another host in the clear": (web.redirect("http://localhost:9/x"), "only https addresses"),
    "to nonsense": (web.redirect("http://[x"), "redirect|address|302"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_answers_keep_the_older_file_and_leave_nothing(
    own_cards: Path, cache: Path, server: Server, case: str
) -> None:
    act, said = BAD[case]
    write_card(own_cards, at(server.url))
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(b"older")
    server.acts = [act] * 5
    rejected(said)
    assert left_in(cache) == ["tiny.bin"] and (cache / "tiny.bin").read_bytes() == b"older"


def test_server_that_always_hangs_up(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.hang_up] * 5
    rejected("ended early")
    assert len(server.asked) == 5 and left_in(cache) == []


def test_nobody_listens(own_cards: Path, cache: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        write_card(own_cards, at(f"http://127.0.0.1:{taken.getsockname()[1]}/tiny.bin"))
        rejected("cannot be reached")


def test_silent_server(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "TIMEOUT", 0.1)
    monkeypatch.setattr(https, "PAUSES", (0.0,))
    write_card(own_cards, at(server.url))
    server.acts = [lambda handler: time.sleep(0.4)] * 2
    rejected("timed out")


def test_pauses_grow_and_the_server_may_ask_for_more(
    own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(https, "PAUSES", (1.0, 2.0, 4.0, 8.0))
    monkeypatch.setattr(https.time, "sleep", slept.append)
    write_card(own_cards, at(server.url))
    busy = web.answers(503)
    server.acts = [busy, busy, web.answers(429, Retry_After="30"), web.answers(503, Retry_After="999999")]
    weights.pull(["tiny"])
    assert 0.5 <= slept[0] <= 1 <= slept[1] <= 2 and slept[2:] == [30, https.LONGEST_PAUSE]


def test_redirect_on_the_same_host(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.redirect("/elsewhere")]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.asked[1][0] == "/elsewhere"


def test_only_web_addresses_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for url in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/x", "data:,x"):
        with pytest.raises(OSError, match=r"unknown url type|cannot be reached|not an address"):
            https.download(https.Wanted(url, tmp_path / "part", url))
    assert left_in(tmp_path) == ["secret"]


def test_proxy_of_the_environment(
    own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.base)
    write_card(own_cards, at("http://weights.invalid/tiny.bin"))
    weights.pull(["tiny"])
    assert server.asked[0][0] == "http://weights.invalid/tiny.bin"
