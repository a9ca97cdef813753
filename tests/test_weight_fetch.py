"""Fetching weights from servers that misbehave, package archives, Google Drive, Hugging Face and folders."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
import weight_server as web
from weight_server import CONTENT, SHA256, Server, at, left_in, source, write_card

from mattface import weights
from mattface.errors import UsageError, WeightsError
from mattface.weights import fetch, folders, https

NO_PAUSES = (0.0,) * 4


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "PAUSES", NO_PAUSES)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with web.serving() as made:
        yield made


def refused(match: str, **options: Any) -> str:
    """The one-line error of a pull."""
    with pytest.raises(WeightsError, match=match) as caught:
        weights.pull(["tiny"], progress=False, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_process(cards: Path, body: str = "", **environment: str) -> subprocess.Popen[str]:
    """Another process that pulls the same weight; `body` runs before."""
    code = "import sys; from pathlib import Path; from mattface import weights; from mattface.weights import registry\n"
    code += f"registry.CARDS = Path({str(cards)!r})\n{body}\n"
    code += "try:\n    print(weights.pull(['tiny'])['tiny'])\n"
    code += "except weights.registry.WeightsError as error:\n    sys.exit(str(error))\n"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# good behaviour, interruptions, lies


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
    refused(r"expected 10240 bytes; got 4000; the same command continues the download")
    assert left_in(cache) == [".tiny.bin.part", ".tiny.bin.part.from"]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=4000-"
    assert left_in(cache) == ["tiny.bin"]


def test_file_that_changed_meanwhile_is_fetched_whole(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.content, server.tag = bytes(len(CONTENT)), '"old"'
    server.acts = [web.cut(4000)] + [web.hang_up] * 4
    refused("ended early")
    server.content, server.tag = CONTENT, '"new"'
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT


def test_part_without_a_mark_is_continued_only_when_the_hash_is_known(
    own_cards: Path, cache: Path, server: Server
) -> None:
    server.tag = ""
    for sha256, wanted in ((SHA256, "bytes=4000-"), ("", None)):
        write_card(own_cards, at(server.url), sha256=sha256)
        server.acts = [web.cut(4000)] + [web.hang_up] * 4
        refused("ended early")
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
    refused(said)
    assert left_in(cache) == ["tiny.bin"] and (cache / "tiny.bin").read_bytes() == b"older"


def test_server_that_always_hangs_up(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    server.acts = [web.hang_up] * 5
    refused("ended early")
    assert len(server.asked) == 5 and left_in(cache) == []


def test_nobody_listens(own_cards: Path, cache: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        write_card(own_cards, at(f"http://127.0.0.1:{taken.getsockname()[1]}/tiny.bin"))
        refused("cannot be reached")


def test_silent_server(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "TIMEOUT", 0.1)
    monkeypatch.setattr(https, "PAUSES", (0.0,))
    write_card(own_cards, at(server.url))
    server.acts = [lambda handler: time.sleep(0.4)] * 2
    refused("timed out")


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


# several sources


def test_next_source_when_one_fails(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(f"{server.base}/gone"), at(f"{server.base}/wrong"), at(server.url))
    server.acts = [web.answers(404), web.answers(200, bytes(len(CONTENT)))]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/gone", "/wrong", "/tiny.bin"]


def test_every_failure_is_named(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(f"{server.base}/gone"), at(server.url))
    server.acts = [web.answers(404), web.page()]
    said = refused("could not be fetched")
    assert "404" in said and "Access denied" in said and str(cache / "tiny.bin") in said


def test_mirror_goes_first(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_MIRROR", f"{server.base}/mirror/")
    write_card(own_cards, at(server.url))
    weights.pull(["tiny"])
    assert [path for path, _ in server.asked] == ["/mirror/tiny.bin"]


def test_chosen_source(own_cards: Path, cache: Path, server: Server, tmp_path: Path) -> None:
    write_card(own_cards, at(f"{server.base}/a"), source("gdrive", file_id="x"))
    weights.pull(["tiny"], source="https")
    (cache / "tiny.bin").unlink()
    weights.pull(["tiny"], source=f"{server.base}/given")
    assert [path for path, _ in server.asked] == ["/a", "/given"]
    with pytest.raises(UsageError, match=r"\(https, gdrive\), an address, or a file or folder that exists; got 'ipfs'"):
        weights.pull(["tiny"], source="ipfs")


def test_copy_from_a_folder_or_file(own_cards: Path, cache: Path, tmp_path: Path) -> None:
    write_card(own_cards, at("http://127.0.0.1:9/never"))
    studio = tmp_path / "studio"
    studio.mkdir()
    refused("no such file there", source=str(studio))
    (studio / "tiny.bin").write_bytes(CONTENT[:-1])
    refused("expected SHA-256", source=str(studio))
    (studio / "tiny.bin").write_bytes(CONTENT)
    for given in (studio, studio / "tiny.bin"):
        assert weights.pull(["tiny"], source=str(given), offline=True)["tiny"].read_bytes() == CONTENT
        assert left_in(cache) == ["tiny.bin"]
        (cache / "tiny.bin").unlink()


def test_another_folder(own_cards: Path, cache: Path, server: Server, tmp_path: Path) -> None:
    write_card(own_cards, at(server.url))
    assert weights.pull(["tiny"], folder=tmp_path / "there") == {"tiny": tmp_path / "there" / "tiny.bin"}
    assert left_in(tmp_path / "there") == ["tiny.bin"] and not cache.exists()


def test_hugging_face(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.base)
    monkeypatch.setenv("HF_TOKEN", "secret")
    write_card(own_cards, source("huggingface", repository="owner/name", revision="v 1", path="sub/tiny.bin"))
    weights.pull(["tiny"])
    path, headers = server.asked[0]
    assert path == "/owner/name/resolve/v%201/sub/tiny.bin"
    assert "Authorization" not in headers, "no token over a connection in the clear"


def test_headers_do_not_follow_redirects(tmp_path: Path, server: Server) -> None:
    server.acts = [web.redirect("/elsewhere")]
    https.download(https.Wanted(server.url, tmp_path / "part", "x", headers=(("Authorization", "Bearer secret"),)))
    assert ["Authorization" in headers for _, headers in server.asked] == [True, False]


CONFIRM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form action="/search"><input name="q" value="no"></form>
<form id="download-form" action="{}" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="the id"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="1-2"></form><input name="later" value="no"></body></html>"""


def test_google_drive_asks_for_confirmation(
    own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "GOOGLE_DRIVE", f"{server.base}/uc")
    write_card(own_cards, source("gdrive", file_id="the id"))
    form = web.answers(200, CONFIRM.format(f"{server.base}/download").encode(), Content_Type="text/html")
    server.acts = [form, web.cut(4000)]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    first, second, third = (path for path, _ in server.asked)
    assert (first, second) == ("/uc?export=download&id=the+id", "/download?id=the+id&confirm=t&uuid=1-2")
    assert third == second and server.ranges[2] == "bytes=4000-"


def test_google_drive_refuses(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "GOOGLE_DRIVE", f"{server.base}/uc")
    write_card(own_cards, source("gdrive", file_id="x"))
    server.acts = [web.page(title="Google Drive - Quota exceeded")]
    refused(r"Quota exceeded.*fetched too often today")
    server.acts = [web.answers(200, CONFIRM.format("file:///etc/hostname").encode(), Content_Type="text/html")]
    refused("cannot be reached|unknown url type|not an address")
    assert left_in(cache) == []


def test_member_of_a_fetched_archive(own_cards: Path, cache: Path, server: Server) -> None:
    server.content = hostile.zip_file(("models/net.bin", CONTENT), ("other", b"x"))
    write_card(own_cards, at(server.url, member="models/net.bin"))
    server.acts = [web.cut(100)]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.bin"]
    (cache / "tiny.bin").unlink()
    write_card(own_cards, at(server.url, member="models/net.bin", archive_sha256="1" * 64))
    refused("expected an archive with SHA-256 1111")
    write_card(own_cards, at(server.url, member="models/other.bin"))
    refused(r"expected models/other\.bin in file; no such file")
    assert left_in(cache) == []


# unverified weights


def test_first_hash_is_pinned(own_cards: Path, cache: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_card(own_cards, at(server.url), sha256="", size=0)
    weights.pull(["tiny"], progress=False)
    assert f"unverified: its card states no hash. {cache / 'tiny.bin'} has SHA-256 {SHA256}" in capsys.readouterr().err
    assert (cache / "tiny.bin.sha256").read_text() == f"{SHA256}  tiny.bin\n"
    assert weights.verify(["tiny"]) == {"tiny": f"as pinned: {SHA256}"}
    server.content = bytes(len(CONTENT))
    (cache / "tiny.bin").unlink()
    refused(r"expected SHA-256 .* it is not what was fetched first; if you trust it, remove .*tiny\.bin\.sha256")
    assert left_in(cache) == ["tiny.bin.sha256"]
    (cache / "tiny.bin.sha256").unlink()
    assert weights.pull(["tiny"])["tiny"].read_bytes() == bytes(len(CONTENT))


def test_pinned_file_that_was_damaged_is_fetched_again(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url), sha256="", size=0)
    weights.pull(["tiny"])
    (cache / "tiny.bin").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match=f"expected SHA-256 {SHA256}"):
        weights.verify(["tiny"])
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT


# several processes


def test_two_processes_fetch_once(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))

    def slowly(handler: web.Handler) -> None:
        time.sleep(1.5)
        handler.behave()

    server.acts = [slowly]
    both = [in_process(own_cards), in_process(own_cards)]
    said = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in said] == [str(cache / "tiny.bin")] * 2, said
    assert server.ranges == [None]
    assert any("Another process is fetching tiny.bin; waiting for it." in err for _, err in said)
    assert weights.verify(["tiny"]) == {"tiny": "ok"} and left_in(cache) == ["tiny.bin"]


def test_threads_fetch_once(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    threads = [threading.Thread(target=weights.pull, args=(["tiny"],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None] and left_in(cache) == ["tiny.bin"]


def test_killed_process_leaves_nothing_in_the_way(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(server.url))
    half = threading.Event()

    def stall(handler: web.Handler) -> None:
        handler.answer(200, CONTENT, 5000, ETag=server.tag)
        handler.wfile.flush()
        half.set()
        time.sleep(20)

    server.acts = [stall]
    process = in_process(own_cards)
    assert half.wait(60)
    part = cache / ".tiny.bin.part"
    for _ in range(200):
        if part.is_file() and part.stat().st_size:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert any(name.startswith(".fetch-") for name in left_in(cache))
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.bin"]


# this machine's own limits


def test_folder_that_cannot_be_made(own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "file"))
    write_card(own_cards, at("http://127.0.0.1:9/x"))
    refused("MATTFACE_HOME")


def test_no_room(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(own_cards, at(server.url))
    usage = shutil.disk_usage(cache.anchor)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage._replace(free=5000))
    refused(r"expected 0\.0 MB of free space in .* are free\. Make room or point MATTFACE_HOME elsewhere")
    assert left_in(cache) == []


@pytest.mark.parametrize("archive", [False, True])
def test_disk_full_while_writing(own_cards: Path, cache: Path, server: Server, archive: bool) -> None:
    """The system ends every write beyond 4000 bytes, as a full disk or a quota does."""
    if archive:
        server.content = hostile.zip_file(("net.bin", CONTENT))  # small; its member is not
        assert len(server.content) < 4000
    write_card(own_cards, at(server.url, **({"member": "net.bin"} if archive else {})), at(server.url))
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(b"older")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    process = in_process(own_cards, limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.count("\n") == 1, said
    assert os.strerror(errno.EFBIG) in said and "Nothing was kept" in said
    assert left_in(cache) == ["tiny.bin"] and (cache / "tiny.bin").read_bytes() == b"older"
    assert len(server.asked) == 1, "no other source is tried"


def test_links_lead_nowhere(own_cards: Path, cache: Path, server: Server, tmp_path: Path) -> None:
    """Links planted in the cache: what they point to stays as it is."""
    write_card(own_cards, at(server.url), sha256="", size=0)
    cache.mkdir(parents=True)
    outside = {
        name: tmp_path / f"outside-{i}" for i, name in enumerate(("", ".sha256", ".part", ".part.from", ".lock"))
    }
    for name, path in outside.items():
        path.write_bytes(b"mine")
        dot = "." if name.startswith((".part", ".lock")) else ""
        (cache / f"{dot}tiny.bin{name}").symlink_to(path)
    (cache / "tiny.bin").unlink()
    try:
        weights.pull(["tiny"])
    except WeightsError as error:
        assert ".lock" in str(error)  # the lock itself may refuse to be a link
        (cache / ".tiny.bin.lock").unlink()
        weights.pull(["tiny"])
    assert all(path.read_bytes() == b"mine" for path in outside.values())
    assert (cache / "tiny.bin").read_bytes() == CONTENT and not (cache / "tiny.bin").is_symlink()


def test_damaged_link_is_replaced_not_followed(own_cards: Path, cache: Path, server: Server, tmp_path: Path) -> None:
    write_card(own_cards, at(server.url))
    cache.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine")
    (cache / "tiny.bin").symlink_to(tmp_path / "mine")
    weights.pull(["tiny"])
    assert (tmp_path / "mine").read_bytes() == b"mine" and not (cache / "tiny.bin").is_symlink()


# without a network


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to speak to anybody fails the test."""

    def forbidden(*arguments: object, **options: object) -> None:
        pytest.fail("the network was touched")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)


SOURCES = [
    at("http://127.0.0.1:9/x"),
    source("huggingface", repository="a/b", path="c"),
    source("gdrive", file_id="x"),
    source("pypi", package="tiny", version="1", archive_sha256="1" * 64, member="x"),
]


@pytest.mark.usefixtures("no_network")
def test_offline(own_cards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_OFFLINE", "1")
    write_card(own_cards, *SOURCES)
    refused(r"offline mode .* forbids")
    refused(r"offline mode .* forbids", source="http://127.0.0.1:9/x")
    monkeypatch.delenv("MATTFACE_OFFLINE")
    refused(r"offline mode .* forbids", offline=True)
    assert not cache.exists()
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(CONTENT)
    assert weights.pull(["tiny"], offline=True) == {"tiny": cache / "tiny.bin"}
    assert weights.verify(["tiny"]) == {"tiny": "ok"}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_the_watch_on_the_network_sees_every_source(own_cards: Path, cache: Path, number: int) -> None:
    write_card(own_cards, SOURCES[number])
    with pytest.raises(pytest.fail.Exception, match="the network was touched"):
        weights.pull(["tiny"])


# from a package index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinyweights-1.0-py3-none-any.whl", "w") as box:
        about = "tinyweights-1.0.dist-info"
        box.writestr("tinyweights/data.bin", CONTENT)
        box.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n")
        box.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        box.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def on_index(index: Path, archive_sha256: str = "", member: str = "tinyweights/data.bin") -> str:
    sha = archive_sha256 or weights.registry.sha256_of(index / "tinyweights-1.0-py3-none-any.whl")
    return source("pypi", package="tinyweights", version="1.0", archive_sha256=sha, member=member)


def test_pull_from_index(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index))
    assert weights.pull(["tiny"], progress=False) == {"tiny": cache / "tiny.bin"}
    assert (cache / "tiny.bin").read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.bin"]


def test_wrong_archive_hash_stops_pip(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index, "0" * 64))
    refused("DO NOT MATCH")
    assert left_in(cache) == []


def test_what_pip_said_is_repeated(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index))
    (index / "tinyweights-1.0-py3-none-any.whl").unlink()
    refused(r"No matching distribution.*put the file at")
    assert left_in(cache) == []


def test_wrong_member_hash_keeps_the_older_file(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index), sha256="1" * 64)
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(b"older")
    refused("expected SHA-256 1111")
    assert (cache / "tiny.bin").read_bytes() == b"older" and left_in(cache) == ["tiny.bin"]


def test_damaged_file_is_fetched_again(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index))
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(CONTENT[:-1] + b"!")
    weights.pull(["tiny"], progress=False)
    assert weights.verify(["tiny"]) == {"tiny": "ok"}


def test_missing_member(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index, member="tinyweights/other.bin"))
    refused(r"tinyweights/other\.bin")
    assert left_in(cache) == []
