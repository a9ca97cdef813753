"""Cards, finding and checking of weights. Nothing here leaves this machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from weight_server import CONTENT, SHA256, at, source, write_card

from mattface import weights
from mattface.errors import UsageError, WeightsError
from mattface.weights import folders

EMBEDDED = {"centerface", "face-mesh", "identity-resnet", "mobile-ffhq"}


def test_embedded_group() -> None:
    assert set(weights.expand(["embedded"])) == EMBEDDED
    assert weights.expand(["face-mesh", "embedded"]).count("face-mesh") == 1


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="centerface"):
        weights.card("centreface")


def test_missing_weights_say_what_to_type(cache: Path) -> None:
    with pytest.raises(WeightsError, match="mattface weights pull centerface") as caught:
        weights.find("centerface")
    assert caught.value.exit_code == 5
    assert "pull centerface" in weights.status("centerface")["note"]
    assert not cache.exists(), "looking must not create anything"


def test_wrong_size_is_rejected(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "centerface.onnx").write_bytes(b"short")
    with pytest.raises(WeightsError, match=r"expected 7304518 bytes .* got 5"):
        weights.find("centerface")


def test_user_supplied_weights_are_not_fetched(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be fetched.*backbone\.pth"):
        weights.pull(["arcface-r50"])


def test_user_supplied_weights_are_found(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "model.pt").write_bytes(b"anything")
    assert weights.find("arcface-r50") == cache / "model.pt"
    assert weights.pull(["arcface-r50"]) == {"arcface-r50": cache / "model.pt"}
    assert weights.verify()["arcface-r50"].endswith(hashlib.sha256(b"anything").hexdigest())


def test_card_with_unknown_source_is_rejected(own_cards: Path) -> None:
    write_card(own_cards, source("ftp", url="ftp://x"))
    with pytest.raises(WeightsError, match="kind 'ftp'"):
        weights.card("tiny")


@pytest.mark.parametrize("name", ["../tiny.bin", "/tiny.bin", "a/b", "..", ""])
def test_card_whose_file_would_leave_the_cache_is_rejected(own_cards: Path, name: str) -> None:
    write_card(own_cards, at("https://x"), file=name)
    with pytest.raises(WeightsError, match="a file name without folders"):
        weights.card("tiny")


def test_read_only_folders_are_searched_after_the_cache(
    own_cards: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setenv("MATTFACE_WEIGHTS_PATH", f"{one}{os.pathsep}{two}")
    write_card(own_cards, at("http://127.0.0.1:9/never"))
    assert not weights.present("tiny")
    for folder in (two, one, cache):
        folder.mkdir(parents=True)
        (folder / "tiny.bin").write_bytes(CONTENT)
        assert weights.find("tiny") == folder / "tiny.bin"
    (cache / "tiny.bin").write_bytes(bytes(len(CONTENT)))
    assert weights.pull(["tiny"], offline=True) == {"tiny": one / "tiny.bin"}, "a damaged copy is passed over"


def test_cache_folder_by_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MATTFACE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.home().parts[-2:] == ("mattface", "weights")
    assert not list(tmp_path.iterdir())


def test_pins(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    assert folders.pinned(path) == ""
    folders.pin(path, SHA256)
    assert folders.pinned(path) == SHA256
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin.sha256"]
    for nonsense in (b"", b"short", b"g" * 64, b"\xff" * 64):
        folders.pin_file(path).write_bytes(nonsense)
        assert folders.pinned(path) == ""


def test_offline_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("1", True), ("0", False), ("", False), ("yes", True)):
        monkeypatch.setenv("MATTFACE_OFFLINE", value)
        assert folders.offline() is expected
    monkeypatch.delenv("MATTFACE_OFFLINE")
    assert not folders.offline()
