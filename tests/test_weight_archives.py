"""Archives, arrays and safetensors that mean harm: bombs, links, paths that lead out, shapes that lie."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_files import HUGE, MEBIBYTE, rejected
from weight_server import CONTENT

from mattface import weights
from mattface.weights import archives, arrays
from mattface.weights.archives import extract_member
from mattface.weights.arrays import read_arrays

# safetensors


def test_tensors_and_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "x.safetensors", metadata={"method": "mattface"})
    tensors, metadata = weights.load_tensors(tmp_path / "x.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2]
    assert metadata == {"method": "mattface"}


def test_foreign_tensor_files_are_rejected(tmp_path: Path) -> None:
    for name in ("none.safetensors", "x.pkl"):
        with rejected(r"expected a weight name or a \.safetensors file"):
            weights.load_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4398046511104]}}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}',
        b"[" * 100_000,
    ],
)
def test_safetensors_that_lie_are_rejected(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with rejected("damaged"):
        weights.load_tensors(tmp_path / "x.safetensors")


def test_safetensors_with_a_huge_header_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with rejected("damaged"):
        weights.load_tensors(tmp_path / "x.safetensors")


# archives


def extracted(data: bytes, tmp_path: Path, member: str = "net.dat", size: int = 0) -> bytes:
    """The member of an archive; whatever happens, no other file may appear and none may stay after an error."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True, exist_ok=True)
    (inner / "archive").write_bytes(data)
    try:
        return extract_member(inner / "archive", member, inner / "out", size).read_bytes()
    finally:
        assert {p.name for p in tmp_path.rglob("*") if not p.is_dir()} <= {"archive", "out"}
        if sys.exc_info()[0]:
            assert not (inner / "out").exists()


def test_source_archive_without_its_top_folder(tmp_path: Path) -> None:
    data = hostile.tar_file(("tiny-1.0/models/net.dat", CONTENT))
    assert extracted(data, tmp_path, "models/net.dat", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("name", ["../../escape.dat", "/escape.dat", "..\\..\\escape.dat"])
def test_member_path_decides_nothing(tmp_path: Path, name: str) -> None:
    for data in (hostile.tar_file((name, CONTENT)), hostile.zip_file((name, CONTENT))):
        assert extracted(data, tmp_path, name, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_pipes_are_no_members(tmp_path: Path, kind: bytes) -> None:
    with rejected("no such file"):
        extracted(hostile.tar_file(("net.dat", b""), kind=kind), tmp_path)


def test_zipped_links_are_no_members(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as box:
        info = zipfile.ZipInfo("net.dat")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        box.writestr(info, "/etc/hostname")
    with rejected("no such file"):
        extracted(out.getvalue(), tmp_path)


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_member_of_another_size(tmp_path: Path, size: int) -> None:
    for data in (hostile.tar_file(("net.dat", CONTENT)), hostile.zip_file(("net.dat", CONTENT))):
        with rejected(f"expected {size} bytes"):
            extracted(data, tmp_path, size=size)


def test_zip_bomb(tmp_path: Path) -> None:
    bomb = hostile.zip_file(("net.dat", bytes(100 * MEBIBYTE)))
    with rejected("expected at most"):
        extracted(bomb, tmp_path)


def test_zip_bomb_that_understates_itself(tmp_path: Path) -> None:
    data = hostile.zip_file(("net.dat", bytes(20 * MEBIBYTE)))
    lie = data.replace((20 * MEBIBYTE).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lie != data
    with rejected("damaged"):
        extracted(lie, tmp_path, size=1000)


def test_tar_bomb_before_the_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", 10 * MEBIBYTE)
    bomb = hostile.tar_file(("a", bytes(8 * MEBIBYTE)), ("b", bytes(8 * MEBIBYTE)), ("net.dat", CONTENT))
    with rejected("too much comes before it"):
        extracted(bomb, tmp_path)


def test_tar_of_countless_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 20)
    with rejected("too much comes before it"):
        extracted(hostile.tar_file(*[("a", b"")] * 30, ("net.dat", CONTENT)), tmp_path)


def test_tar_with_a_huge_header(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("header")
        info.type, info.size = tarfile.XHDTYPE, 100 * MEBIBYTE
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with rejected("damaged"):
        extracted(out.getvalue(), tmp_path)


def test_encrypted_and_foreign_compression(tmp_path: Path) -> None:
    data = hostile.zip_file(("net.dat", CONTENT))
    at = data.index(b"PK\x01\x02")
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[at + 8] |= 1
    for bad in (bytes(encrypted), hostile.zip_file(("net.dat", CONTENT), compression=zipfile.ZIP_LZMA)):
        with rejected("damaged"):
            extracted(bad, tmp_path)


# arrays and graphs


def test_arrays_are_read(written: Callable[..., Path]) -> None:
    for data in (hostile.arrays_file(), hostile.arrays_file(compressed=True)):
        found = read_arrays(written(data))
        assert found["a"].tolist() == list(range(40)) and found["b"].shape == (2, 3)
    columns = np.asfortranarray(np.arange(6).reshape(2, 3))
    out = io.BytesIO()
    np.save(out, columns)
    assert np.array_equal(read_arrays(written(out.getvalue()))[""], columns)


ARRAY_LIES: dict[str, Callable[[], bytes]] = {
    "shape": lambda: hostile.array_file(shape=(HUGE,)),
    "less than follows": lambda: hostile.array_file(shape=(39,)),
    "negative": lambda: hostile.array_file(shape=(-40,)),
    "objects": lambda: hostile.array_file(descr="|O"),
    "long header": lambda: hostile.array_file(fortran_order=bytes(5_000)),
    "calls": lambda: b"\x93NUMPY\x01\x00" + (40).to_bytes(2, "little") + b"__import__('os').system('touch harm')  ",
    "pickled": lambda: hostile.zip_file(("a.npy", pickle.dumps({}))),
    "other member": lambda: hostile.zip_file(("a.txt", b"x")),
    "bomb": lambda: hostile.zip_file(*[("a.npy", hostile.array_file(np.zeros(MEBIBYTE)))] * 4),
}


@pytest.mark.parametrize("lie", ARRAY_LIES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_arrays_that_lie_are_rejected(written: Callable[..., Path], lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LARGEST", 16 * MEBIBYTE)
    bad = ARRAY_LIES[lie]()
    with rejected("expected NumPy arrays"):
        read_arrays(written(bad))
