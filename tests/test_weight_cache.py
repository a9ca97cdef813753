"""The folder of fetched weights: pinned hashes, several processes at once, full disks, links that lead elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hostile
import pytest
import weight_server as web
from weight_server import CONTENT, SHA256, Server, at, left_in, rejected, write_card

from mattface import weights
from mattface.errors import WeightsError
from mattface.weights import folders

pytestmark = pytest.mark.usefixtures("no_pauses")


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


# unverified weights


def test_first_hash_is_pinned(own_cards: Path, cache: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_card(own_cards, at(server.url), sha256="", size=0)
    weights.pull(["tiny"], progress=False)
    assert f"unverified: its card states no hash. {cache / 'tiny.bin'} has SHA-256 {SHA256}" in capsys.readouterr().err
    assert (cache / "tiny.bin.sha256").read_text() == f"{SHA256}  tiny.bin\n"
    assert weights.verify(["tiny"]) == {"tiny": f"as pinned: {SHA256}"}
    server.content = bytes(len(CONTENT))
    (cache / "tiny.bin").unlink()
    rejected(r"expected SHA-256 .* it is not what was fetched first; if you trust it, remove .*tiny\.bin\.sha256")
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
    rejected("MATTFACE_HOME")


def test_no_room(own_cards: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(own_cards, at(server.url))
    usage = shutil.disk_usage(cache.anchor)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage._replace(free=5000))
    rejected(r"expected 0\.0 MB of free space in .* are free\. Make room or point MATTFACE_HOME elsewhere")
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
        assert ".lock" in str(error)  # the lock itself may reject to be a link
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
