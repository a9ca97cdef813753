"""Where weights come from: several sources, mirrors, folders, Hugging Face, Google Drive, archives, package indices."""

from __future__ import annotations

import socket
import subprocess
import zipfile
from pathlib import Path

import hostile
import pytest
import weight_server as web
from weight_server import CONTENT, Server, at, left_in, rejected, source, write_card

from mattface import weights
from mattface.errors import UsageError
from mattface.weights import fetch, https

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_next_source_when_one_fails(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(f"{server.base}/gone"), at(f"{server.base}/wrong"), at(server.url))
    server.acts = [web.answers(404), web.answers(200, bytes(len(CONTENT)))]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/gone", "/wrong", "/tiny.bin"]


def test_every_failure_is_named(own_cards: Path, cache: Path, server: Server) -> None:
    write_card(own_cards, at(f"{server.base}/gone"), at(server.url))
    server.acts = [web.answers(404), web.page()]
    said = rejected("could not be fetched")
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
    rejected("no such file there", source=str(studio))
    (studio / "tiny.bin").write_bytes(CONTENT[:-1])
    rejected("expected SHA-256", source=str(studio))
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


def test_google_drive_rejects(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "GOOGLE_DRIVE", f"{server.base}/uc")
    write_card(own_cards, source("gdrive", file_id="x"))
    server.acts = [web.page(title="Google Drive - Quota exceeded")]
    rejected(r"Quota exceeded.*fetched too often today")
    server.acts = [web.answers(200, CONFIRM.format("file:///etc/hostname").encode(), Content_Type="text/html")]
    rejected("cannot be reached|unknown url type|not an address")
    assert left_in(cache) == []


def test_member_of_a_fetched_archive(own_cards: Path, cache: Path, server: Server) -> None:
    server.content = hostile.zip_file(("models/net.bin", CONTENT), ("other", b"x"))
    write_card(own_cards, at(server.url, member="models/net.bin"))
    server.acts = [web.cut(100)]
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.bin"]
    (cache / "tiny.bin").unlink()
    write_card(own_cards, at(server.url, member="models/net.bin", archive_sha256="1" * 64))
    rejected("expected an archive with SHA-256 1111")
    write_card(own_cards, at(server.url, member="models/other.bin"))
    rejected(r"expected models/other\.bin in file; no such file")
    assert left_in(cache) == []


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
    rejected(r"offline mode .* forbids")
    rejected(r"offline mode .* forbids", source="http://127.0.0.1:9/x")
    monkeypatch.delenv("MATTFACE_OFFLINE")
    rejected(r"offline mode .* forbids", offline=True)
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
    rejected("DO NOT MATCH")
    assert left_in(cache) == []


def test_what_pip_said_is_repeated(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index))
    (index / "tinyweights-1.0-py3-none-any.whl").unlink()
    rejected(r"No matching distribution.*put the file at")
    assert left_in(cache) == []


def test_wrong_member_hash_keeps_the_older_file(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index), sha256="1" * 64)
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(b"older")
    rejected("expected SHA-256 1111")
    assert (cache / "tiny.bin").read_bytes() == b"older" and left_in(cache) == ["tiny.bin"]


def test_damaged_file_is_fetched_again(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index))
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(CONTENT[:-1] + b"!")
    weights.pull(["tiny"], progress=False)
    assert weights.verify(["tiny"]) == {"tiny": "ok"}


def test_missing_member(own_cards: Path, cache: Path, index: Path) -> None:
    write_card(own_cards, on_index(index, member="tinyweights/other.bin"))
    rejected(r"tinyweights/other\.bin")
    assert left_in(cache) == []
