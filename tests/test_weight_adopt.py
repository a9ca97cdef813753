"""Files of any name are recognised by what is in them, used where they lie, and converted to our names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import Module, nvidia_pickle
from safetensors.torch import load_file, save_file
from seeded import seeded_state

from mattface import weights
from mattface.cli import main
from mattface.errors import UsageError, WeightsError
from mattface.weights.adopt import adopt, recognise
from mattface.weights.content import kind_of, open_any
from mattface.weights.convert import convert, official, to_ours
from mattface.weights.layouts import known
from mattface.weights.layouts.estimators import bisenet_shapes, deep3d_shapes
from mattface.weights.layouts.loss_networks import lpips_shapes
from mattface.weights.layouts.stylegan2 import nvidia_generator_shapes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return tmp_path / "home" / "weights"


def heads() -> dict[str, torch.Tensor]:
    """A small file's tensors."""
    return {key: torch.rand(shape) for key, shape in lpips_shapes().items()}


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


# Adopt


def test_by_keys_and_shapes_whatever_the_name(home: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "download (3).bin", heads())
    found = adopt(path)
    assert (found.name, found.path, found.why) == ("lpips-vgg", path, "keys and shapes of lpips-vgg")
    assert "the published file has SHA-256 a78928a0" in found.note
    assert weights.find("lpips-vgg") == path and weights.status("lpips-vgg")["adopted"]
    assert weights.verify(["lpips-vgg"]) == {"lpips-vgg": f"as adopted: {found.sha256}"}
    assert sorted(p.name for p in home.iterdir() if not p.name.startswith(".")) == ["adopted.json"], "not copied"


@pytest.mark.parametrize("legacy", [False, True])
def test_both_formats_of_torch(home: Path, tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"state": heads(), "epoch": 2}, path, _use_new_zipfile_serialization=not legacy)
    assert kind_of(path) == "torch" and recognise(path).name == "lpips-vgg"


def test_by_hash(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published file needs no layout."""
    path = tmp_path / "x"
    path.write_bytes(b"anything at all")
    from mattface.weights import adopt as module

    monkeypatch.setattr(module, "sha256_of", lambda _: weights.card("identity-resnet").sha256)
    assert (recognise(path).name, recognise(path).note) == ("identity-resnet", "")
    monkeypatch.setattr(module, "sha256_of", lambda _: "11f355bf06" + "0" * 54)
    assert recognise(path).name == "face-alignment-2dfan4", "its name carries the first digits"


def test_changed_after_adoption(home: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", heads())
    adopt(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="expected SHA-256"):
        weights.verify(["lpips-vgg"])
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"expected {len(data)} bytes"):
        weights.find("lpips-vgg")
    path.unlink()
    with pytest.raises(WeightsError, match="pull lpips-vgg"):
        weights.find("lpips-vgg")
    home.joinpath("lpips_vgg.pth").write_bytes(b"x" * weights.card("lpips-vgg").size)
    assert not weights.status("lpips-vgg")["adopted"], "what was adopted is gone, another file took its place"


def test_adoptions_stay_beside_each_other_and_survive_a_damaged_record(home: Path, tmp_path: Path) -> None:
    adopt(saved(tmp_path / "a.pt", heads()))
    adopt(saved(tmp_path / "b.pt", {key: torch.zeros(shape) for key, shape in bisenet_shapes().items()}))
    assert set(json.loads((home / "adopted.json").read_text())) == {"lpips-vgg", "bisenet"}
    for damage in ("", "[1]", "{", '{"lpips-vgg": 3}', '{"lpips-vgg": {"path": 7}}'):
        (home / "adopted.json").write_text(damage)
        assert not weights.present("lpips-vgg")
    adopt(tmp_path / "a.pt")
    assert weights.present("lpips-vgg")


def test_nearly(home: Path, tmp_path: Path) -> None:
    """The card it nearly is, and what is wrong; nothing is registered."""
    state = heads()
    state["lin4.model.1.weight"] = torch.rand(1, 256, 1, 1)
    with pytest.raises(WeightsError, match=r"nearly lpips-vgg \(80% of the keys\), but 1 of another shape, first lin4"):
        adopt(saved(tmp_path / "x.pt", state))
    del state["lin4.model.1.weight"]
    with pytest.raises(WeightsError, match=r"nearly lpips-vgg .* 1 of 5 keys missing, first lin4"):
        adopt(saved(tmp_path / "x.pt", state))
    with pytest.raises(WeightsError, match=r"nearly lpips-vgg .* 1 unknown keys, first extra"):
        adopt(saved(tmp_path / "x.pt", heads() | {"extra": torch.zeros(1)}))
    assert not (home / "adopted.json").exists()


def test_strangers(home: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="its keys belong to no card"):
        adopt(saved(tmp_path / "x.pt", {"conv.weight": torch.zeros(3)}))
    (tmp_path / "x.html").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    with pytest.raises(WeightsError, match="no kind of file that a card describes"):
        adopt(tmp_path / "x.html")
    save_file({"a": torch.zeros(1)}, tmp_path / "own.safetensors", {"method": "magicmask"})
    with pytest.raises(WeightsError, match=r"checkpoint of the method magicmask .* --weights own\.safetensors"):
        adopt(tmp_path / "own.safetensors")
    with pytest.raises(WeightsError, match="expected a file"):
        adopt(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((3, 3)))
    with pytest.raises(WeightsError, match=r"NumPy arrays \(array \(3, 3\)\) that no card describes"):
        adopt(tmp_path / "x.npy")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 3000])
def test_truncated(home: Path, tmp_path: Path, size: int) -> None:
    data = saved(tmp_path / "x.pt", heads()).read_bytes()
    (tmp_path / "short.pt").write_bytes(data[:size])
    with pytest.raises(WeightsError):
        adopt(tmp_path / "short.pt")
    assert not (home / "adopted.json").exists()


def test_arrays(home: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((512, 512), np.float32))
    assert recognise(tmp_path / "m.npy").name == "alphaface-emap"
    arrays = {"neutral": np.zeros((26719, 3), np.float32), "identity_deltas": np.zeros((100, 26719, 3), np.float16)}
    arrays |= {name: np.zeros(3) for name in ("uv", "quads", "part")}
    np.savez_compressed(tmp_path / "m.npz", **arrays)  # type: ignore[arg-type]
    assert recognise(tmp_path / "m.npz").name == "ict-face-model"
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(WeightsError, match="it holds none"):
        recognise(tmp_path / "objects.npz")


def test_readable_folder_of_a_studio(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adopting writes into the cache folder, never beside the file."""
    folder = tmp_path / "studio"
    folder.mkdir()
    path = saved(folder / "x.pt", heads())
    before = sorted(folder.iterdir())
    adopt(path)
    assert sorted(folder.iterdir()) == before and weights.find("lpips-vgg") == path


def test_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="MATTFACE_HOME"):
        adopt(saved(tmp_path / "x.pt", heads()))


# NVIDIA's pickles


def nested(state: dict[str, torch.Tensor]) -> Module:
    """Modules within modules that hold these tensors, as the original pickles them."""
    inner: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
    own = {key: value for key, value in state.items() if "." not in key}
    return Module("SynthesisLayer", {}, own, {name: nested(part) for name, part in inner.items()})


def test_nvidia_pickle(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator of a pickle, at a resolution of 8 px; whatever else lies in the file."""
    layout = known.LAYOUTS["stylegan2-nvidia"]
    small = replace(layout, shapes=lambda: nvidia_generator_shapes(8))
    monkeypatch.setitem(known.LAYOUTS, layout.name, small)
    state = {key: torch.rand(shape) for key, shape in small.shapes().items()}
    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(nvidia_pickle(G_ema=nested(state)))
    assert kind_of(path) == "nvidia" and adopt(path).name == "stylegan2-ffhq-nvidia"
    ours = official("stylegan2-ffhq-nvidia")
    assert all(torch.equal(ours[key], state[key]) for key in ours) and len(ours) < len(state)
    assert convert(path, tmp_path / "g.safetensors") == "stylegan2-nvidia"
    assert load_file(tmp_path / "g.safetensors").keys() == ours.keys()
    assert adopt(tmp_path / "g.safetensors").name == "stylegan2-ffhq-nvidia"


# Convert


def test_convert_and_read_back(home: Path, tmp_path: Path) -> None:
    """The converted file is recognised, and loads like the official one."""
    state = seeded_state(bisenet_shapes(), False)
    path = saved(tmp_path / "79999_iter.pth", state)
    out = tmp_path / "b.safetensors"
    assert convert(path, out) == "bisenet"
    ours = load_file(out)
    assert not any(key.startswith("conv_out16") for key in ours)
    assert all(torch.equal(ours[key], state[key]) for key in ours)
    adopt(path)
    before = official("bisenet")
    assert adopt(out).name == "bisenet" and weights.find("bisenet") == out
    after = official("bisenet")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_converted_names_are_ours(tmp_path: Path) -> None:
    state = seeded_state(deep3d_shapes(), False)
    small = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    ours, layout = to_ours(open_any(saved(tmp_path / "e.pth", {"net_recon": small})))
    assert layout == "deep3d" and "backbone.layer1.0.conv1.weight" in ours
    assert torch.equal(ours["heads.1.weight"], state["final_layers.1.weight"])


def test_convert_errors(home: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", heads())
    with pytest.raises(UsageError, match=r"ending in \.safetensors"):
        convert(path, tmp_path / "x.bin")
    with pytest.raises(UsageError, match="new file"):
        convert(tmp_path / "x.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"nearly of this kind|Known files"):
        convert(path, tmp_path / "y.safetensors", layout="bisenet")
    with pytest.raises(WeightsError, match="cannot be written"):
        convert(path, tmp_path / "no" / "y.safetensors")
    (tmp_path / "x.html").write_text("<!DOCTYPE html>")
    with pytest.raises(WeightsError):
        convert(tmp_path / "x.html", tmp_path / "y.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.html", "x.pt"], "nothing half-written stays"


def test_official_of_another_kind(home: Path, tmp_path: Path) -> None:
    home.mkdir(parents=True)
    saved(home / weights.card("arcface-r50").file, heads())
    with pytest.raises(WeightsError, match="expected an arcface_torch ResNet-50"):
        official("arcface-r50")


# The command


def test_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    saved(folder / "a.pt", heads())
    (folder / "notes.txt").write_text("x" * 2000)
    assert main(["weights", "adopt", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "a.pt: lpips-vgg (keys and shapes of lpips-vgg)" in out and "notes.txt: no kind of file" in out
    assert "of use only with vgg16" in out
    assert main(["weights", "list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "adopted" in listed["lpips-vgg"] and " yes " in listed["lpips-vgg"] and "BSD-2-Clause" in listed["lpips-vgg"]
    assert "missing" in listed["bisenet"] and "53.3 MB" in listed["bisenet"] and " no " in listed["bisenet"]
    out_file = tmp_path / "out.safetensors"
    assert main(["weights", "convert", str(folder / "a.pt"), "-o", str(out_file)]) == 0
    assert "read as lpips-vgg" in capsys.readouterr().out and out_file.is_file()
    assert main(["weights", "show", "psp-ffhq"]) == 0
    shown = capsys.readouterr().out
    assert "unverified: none is published" in shown and "FFHQ" in shown and "Google Drive" in shown
    assert main(["weights", "adopt", str(folder / "notes.txt")]) == 5
    assert main(["weights", "adopt", str(tmp_path / "nothing")]) == 5
    assert main(["weights", "convert", str(folder / "a.pt"), "-o", "x.pt"]) == 2
