"""AlphaFace's public files: the original's outputs, their layouts, how they open and convert."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded import repeated_state, seeded_input, seeded_state, summary
from tiny_swappers import CPU, crop

import mattface
from mattface import weights
from mattface.embed.arcface import iresnet50
from mattface.errors import UsageError, WeightsError
from mattface.methods.contract import CropSpec
from mattface.realtime.methods import alphaface
from mattface.weights import layouts
from mattface.weights.adopt import adopt
from mattface.weights.convert import convert
from mattface.weights.layouts.arcface import folded_arcface_shapes

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.slow
def test_alphaface_computes_what_the_original_computes() -> None:
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    net = alphaface.build_network(alphaface.Config())
    weights.load_strictly(net, layouts.alphaface_swapper(seeded_state(shapes, False)), "AlphaFace's swapper")
    net = net.eval().to(memory_format=torch.channels_last)
    target = torch.sigmoid(seeded_input("alphaface_target", (1, 3, 256, 256))) * 2 - 1
    code = F.normalize(seeded_input("alphaface_id", (1, 512)), dim=1)
    with torch.inference_mode():
        fused = net.fuse(target, code)
        image = (net.decoder(fused) + 1) / 2
    expected = np.load(GOLDEN / "alphaface_swapper.npz")
    got = {"fused": fused[:, ::8, ::4, ::4], "image": image[:, :, ::2, ::2], "image_mean": image.mean((2, 3))}
    for key, value in got.items():
        reference = torch.from_numpy(expected[key])
        assert value.shape == reference.shape
        assert float((value - reference).abs().max() / reference.abs().max()) < 1e-4, key


def test_the_public_layout_fits_the_official_network_and_nothing_else() -> None:
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    with torch.device("meta"):
        own = {k: tuple(v.shape) for k, v in alphaface.build_network(alphaface.Config()).state_dict().items()}
        state = {k: torch.empty(s) for k, s in shapes.items()}
    assert {k: tuple(v.shape) for k, v in layouts.alphaface_swapper(state).items()} == own
    assert sum(np.prod(s) for s in own.values()) == 138_578_691
    with pytest.raises(WeightsError, match="unknown keys"):
        layouts.alphaface_swapper(state | {"E.batch_norm_0.weight": torch.empty(3)})


def test_the_folded_identity_network_is_the_unfolded_one() -> None:
    """AlphaFace's copy of ArcFace, made here from seeded weights by folding the batch norms behind convolutions."""
    shapes = json.loads((GOLDEN / "arcface_iresnet50_keys.json").read_text())
    folded = fold(seeded_state(shapes, False))
    assert len(folded) == 263
    net = iresnet50().eval()
    weights.load_strictly(net, layouts.folded_arcface(folded), "the ArcFace w600k ResNet-50")
    with torch.inference_mode():
        got = net(seeded_input("iresnet_img", (2, 3, 112, 112)))
    expected = F.normalize(torch.from_numpy(np.load(GOLDEN / "arcface_iresnet50.npz")["embedding"]))
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


def fold(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """arcface_torch's names with every batch norm that follows a convolution folded into it."""
    out = dict(state)
    pairs = [("conv1", "bn1", "conv1")]
    for unit in sorted({k.rsplit(".", 2)[0] for k in state if ".conv1." in k}):
        pairs += [(f"{unit}.conv1", f"{unit}.bn2", f"{unit}.conv1"), (f"{unit}.conv2", f"{unit}.bn3", f"{unit}.conv2")]
        if f"{unit}.downsample.0.weight" in state:
            pairs.append((f"{unit}.downsample.0", f"{unit}.downsample.1", f"{unit}.downsample"))
    for conv, norm, name in pairs:
        weight = out.pop(f"{conv}.weight")
        gamma, beta, mean, variance = (
            out.pop(f"{norm}.{k}") for k in ("weight", "bias", "running_mean", "running_var")
        )
        out.pop(f"{norm}.num_batches_tracked", None)
        gain = gamma / torch.sqrt(variance + 1e-5)
        out[f"{name}.weight"], out[f"{name}.bias"] = weight * gain[:, None, None, None], beta - mean * gain
    renamed = {"fc.": "fc5.", "features.": "bn3."}
    for old, new in renamed.items():
        for key in [k for k in out if k.startswith(old)]:
            out[new + key.removeprefix(old)] = out.pop(key)
    return out


# The files


def test_missing_public_files_are_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"alphaface_demo\.pt.*download"):
        mattface.load("alphaface")
    with pytest.raises(UsageError, match="has the option injection"):
        mattface.load("alphaface", norm="in")
    with pytest.raises(UsageError, match="injection must be one of"):
        mattface.load("alphaface", injection="sideways")
    with pytest.raises(WeightsError, match="alphaface-identity"):
        alphaface.public_identity(CPU)
    with pytest.raises(WeightsError, match="alphaface-emap"):
        alphaface.identity_map(CPU)
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save({"generator": {}}, folder / "alphaface_demo.pt")
    with pytest.raises(WeightsError, match=r"alphaface.* in .*expected AlphaFace's swapper"):
        mattface.load("alphaface")
    np.save(folder / "emp.npy", np.eye(3))
    with pytest.raises(WeightsError, match="expected a 512x512 float array"):
        alphaface.identity_map(CPU)
    np.save(folder / "emp.npy", np.eye(512, dtype=np.float32) * 2)
    assert torch.equal(alphaface.identity_map(CPU), torch.eye(512) * 2)


@pytest.mark.slow
def test_the_public_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with every public name and shape, each tensor one repeated number, so that they are small on disk."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    state = repeated_state(shapes)
    torch.save({"swapper": state, "epoch": 3, "global_step": 5}, folder / "alphaface_demo.pt")
    arcface = json.loads((GOLDEN / "arcface_iresnet50_keys.json").read_text())
    torch.save(fold(seeded_state(arcface, False)), folder / "arcface_w600k_r50_pytorch.pt")
    np.save(folder / "emp.npy", np.eye(512, dtype=np.float32))
    built = alphaface.build(None, CPU, torch.float32, injection="one-directional")
    assert built.weights == "alphaface" and built.crop == CropSpec("arcface", 256)
    assert not built.network.inject[0].first.crossed
    assert layouts.alphaface_swapper(state).keys() == built.network.state_dict().keys()
    code = built.encode(crop(256))
    assert code.shape == (1, 512) and float(code.norm()) == pytest.approx(1, abs=1e-5)
    before = summary(built.network.state_dict())
    assert all(before[key][1:] == 2 * (float(value.max()),) for key, value in layouts.alphaface_swapper(state).items())
    for name, file in (("alphaface", "alphaface_demo.pt"), ("alphaface-identity", "arcface_w600k_r50_pytorch.pt")):
        convert(folder / file, tmp_path / f"{name}.safetensors")
        (folder / file).unlink()
        assert adopt(tmp_path / f"{name}.safetensors").name == name
    again = alphaface.build(None, CPU, torch.float32, injection="one-directional")
    assert summary(again.network.state_dict()) == before
    assert torch.equal(again.encode(crop(256)), code)


def test_a_converted_identity_file_works_as_the_original_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    file = tmp_path / "official.pt"
    torch.save(repeated_state(folded_arcface_shapes()), file)
    assert adopt(file).name == "alphaface-identity"
    before = summary(alphaface.public_identity(CPU).network.state_dict())
    convert(file, tmp_path / "converted.safetensors")
    assert adopt(tmp_path / "converted.safetensors").name == "alphaface-identity"
    file.unlink()
    assert summary(alphaface.public_identity(CPU).network.state_dict()) == before
