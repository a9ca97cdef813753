"""Engines and exports: every engine computes what torch computes, or says why it cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mattface import pipeline
from mattface.cli import main
from mattface.devices import quick_dtype, resolve_dtype
from mattface.errors import DeviceError, InputError, MattfaceError, UsageError
from mattface.methods import mesh as mesh_method
from mattface.methods.contract import CropSpec
from mattface.parse import Parser
from mattface.realtime import engine
from mattface.realtime.engine import export, graphs, torch_runs
from mattface.realtime.engine.winograd import WinogradConv2d, eligible, packed
from mattface.realtime.methods import alphaface, alphaface_small, magicmask
from mattface.realtime.methods.aligned import AlignedMethod, save_checkpoint

CPU = torch.device("cpu")
TINY = alphaface.Config(size=64, widths=(8, 16, 32, 48), blocks=1, decoder=(40, 32, 32, 8, 5), code=16)
MAGIC = magicmask.Config(
    size=32, widths=(4, 6, 8, 12), blocks=1, decoder=(8, 6, 5), code=16, stem=(4, 4, 4, 8), layers=1, heads=2
)
needs_exporters = pytest.mark.skipif(bool(export.missing(*export.EXPORTERS)), reason="onnx or onnxscript not installed")


def method(name: str = "alphaface", dtype: torch.dtype = torch.float32) -> AlignedMethod:
    torch.manual_seed(0)
    config, module = (TINY, alphaface) if name == "alphaface" else (MAGIC, magicmask)
    network = module.build_network(config)
    for p in network.parameters():
        p.data *= 1.5  # pictures with contrast
    return AlignedMethod(name, CropSpec("arcface", config.size), network, None, Parser("mesh"), "tiny", CPU, dtype)


def swapper(one) -> pipeline.Swapper:
    return pipeline.Swapper(one, None, None, None, CPU, torch.float32)


def same(name: str, dtype: torch.dtype = torch.float32, tolerance: float = 1e-5, of: str = "alphaface") -> None:
    """Compares an engine with torch as it is, on two different inputs."""
    one = method(of)
    fast = engine.faster(one, name, CPU, dtype)
    assert fast.engine == name and fast.dtype == dtype and one.engine == "eager"
    for scale in (1.0, 0.5):
        given = tuple(x * scale for x in one.example())
        with torch.inference_mode():
            expected, got = one.run(*given), fast.run(*given)
        assert got.shape == expected.shape and got.dtype == torch.float32
        assert expected.std() > 10 * tolerance
        assert float((got - expected).abs().max()) < tolerance


@pytest.mark.parametrize("name", ["eager", "winograd"])
def test_torch_engines_agree(name: str) -> None:
    same(name)


def test_bf16_is_near() -> None:
    same("eager", torch.bfloat16, 0.005)


@pytest.mark.slow
def test_compiled_agrees_whatever_the_callers_mode() -> None:
    same("compile")
    one = method()
    fast = engine.faster(one, "compile", CPU, torch.float32)
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        torch.testing.assert_close(fast.run(*one.example()), one.run(*one.example()), atol=1e-5, rtol=0)
    with torch.inference_mode():
        fast.run(*one.example())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations


@needs_exporters
@pytest.mark.parametrize("of", ["alphaface", "magicmask"])
def test_onnxruntime_agrees(of: str) -> None:
    same("onnxruntime", of=of)


@needs_exporters
def test_openvino_agrees() -> None:
    pytest.importorskip("openvino")
    same("openvino")


def test_an_accelerated_swapper_keeps_its_parts_and_leaves_the_first_alone() -> None:
    first = swapper(method())
    fast = engine.accelerate(first, "winograd")
    assert fast is not first and fast.method is not first.method and first.method.engine == "eager"
    assert (fast.detector, fast.landmarker, fast.device) == (first.detector, first.landmarker, first.device)
    assert fast.method.name == "alphaface" and fast.method.coder is first.method.coder
    half = engine.accelerate(first, "eager", "bf16", channels_last=False)
    assert half.dtype == torch.bfloat16 and next(half.method.network.parameters()).dtype == torch.bfloat16
    assert next(first.method.network.parameters()).dtype == torch.float32
    assert half.method.network.inject[0].first.conv.weight.is_contiguous()


def test_live_networks_run_in_the_format_that_the_processor_multiplies(monkeypatch) -> None:
    for units, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda units=units: units)
        assert quick_dtype(CPU) == name and resolve_dtype(quick_dtype(CPU), CPU) in (torch.bfloat16, torch.float32)
        assert quick_dtype(torch.device("cuda")) == "fp32"


def test_what_cannot_run_says_why() -> None:
    first = swapper(method())
    for name in ("cuda-graph", "tensorrt"):
        with pytest.raises(DeviceError, match=f"the engine {name} cannot run here: it needs a CUDA device; got cpu"):
            engine.accelerate(first, name)
    with pytest.raises(DeviceError, match="its transforms need fp32"):
        engine.accelerate(first, "winograd", "bf16")
    with pytest.raises(DeviceError, match="CUDA device for fp16"):
        engine.accelerate(first, "eager", "fp16")
    with pytest.raises(UsageError, match="expected an engine, one of eager, winograd"):
        engine.accelerate(first, "warp")
    with pytest.raises(UsageError, match=r"loaded in torch\.bfloat16"):
        engine.accelerate(pipeline.Swapper(method(), None, None, None, CPU, torch.bfloat16), "eager", "fp32")
    mesh = mesh_method.MeshMethod(mesh_method.Config(), Parser("mesh"), CPU)
    with pytest.raises(UsageError, match="mesh has no network"):
        engine.accelerate(swapper(mesh), "eager")
    with pytest.raises(UsageError, match="takes more than tensors"):
        engine.faster(SimpleNamespace(name="other", network=nn.Identity()), "onnxruntime", CPU, torch.float32)
    states = {name: (usable, reason) for name, usable, reason in engine.available(CPU)}
    assert list(states) == list(engine.ENGINES)
    assert states["eager"] == (True, "") and not states["tensorrt"][0] and "CUDA" in states["tensorrt"][1]


def test_other_methods_with_a_network_run_in_another_number_format() -> None:
    class Other:
        name, dtype = "other", torch.float32

        def __init__(self) -> None:
            self.network = nn.Conv2d(4, 4, 3)

    one = Other()
    fast = engine.faster(one, "eager", CPU, torch.bfloat16)
    assert (fast.dtype, fast.engine) == (torch.bfloat16, "eager") and one.dtype == torch.float32
    assert fast.network.weight.is_contiguous(memory_format=torch.channels_last)
    assert one.network.weight.is_contiguous() and torch.equal(fast.network.weight, one.network.weight)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_runs.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler.*Install"):
        engine.faster(method(), "compile", CPU, torch.float32)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(DeviceError, match=r"not installed. Type: pip install 'mattface\[realtime\]'"):
            engine.faster(method(), name, CPU, torch.float32)
    with pytest.raises(UsageError, match="ONNX cannot be written here"):
        export.export_onnx(method(), "x.onnx")


@needs_exporters
def test_a_provider_that_falls_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PROVIDERS", {"cpu": "CUDAExecutionProvider"})
    with pytest.raises(DeviceError, match="this onnxruntime has no CUDAExecutionProvider"):
        engine.faster(method(), "onnxruntime", CPU, torch.float32)
    monkeypatch.setattr(graphs, "_provider_missing", lambda provider: "")
    with pytest.raises(DeviceError, match="onnxruntime rejects CUDAExecutionProvider"):
        engine.faster(method(), "onnxruntime", CPU, torch.float32)


# Winograd


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padding", "mode"),
    [
        (32, 40, (16, 16), 1, "zeros"),
        (40, 32, (13, 22), 1, "reflect"),
        (32, 32, (19, 11), 0, "zeros"),
        (64, 33, (3, 3), 0, "zeros"),
    ],
)
def test_winograd_is_the_convolution(inputs: int, outputs: int, size: tuple, padding: int, mode: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 3, padding=padding, padding_mode=mode, bias=outputs != 33)
    assert eligible(conv)
    x = torch.randn(2, inputs, *size)
    with torch.no_grad():
        exact = conv.double()(x.double())
        got = WinogradConv2d(conv.float())(x)
    assert got.shape == exact.shape
    assert float((got - exact).abs().max() / exact.abs().max()) < 1e-5


def test_packing_replaces_wide_convolutions_and_shares_the_rest() -> None:
    network = method().network
    twin = packed(network)
    replaced = [name for name, m in twin.named_modules() if isinstance(m, WinogradConv2d)]
    assert replaced == [
        *("inject.0.first.conv", "inject.0.second.conv"),
        *("decoder.convs.0", "decoder.convs.1", "decoder.convs.2"),
    ]
    assert not any(isinstance(m, WinogradConv2d) for m in network.modules())
    assert twin.inject[0].first.style.weight is network.inject[0].first.style.weight
    for conv in (nn.Conv2d(64, 64, 3, 2, 1), nn.Conv2d(64, 64, 5), nn.Conv2d(64, 64, 3, groups=2), nn.Conv2d(8, 64, 3)):
        assert not eligible(conv)


# Exports


@needs_exporters
@pytest.mark.parametrize("name", ["alphaface", "magicmask"])
def test_onnx_runs_any_batch_as_torch_does(name: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    one, path = method(name), tmp_path / "network.onnx"
    report = export.export_onnx(swapper(one), path)
    assert report["difference"] < 1e-5 < report["tolerance"]
    assert list(report["inputs"]) == list(one.network.input_names)
    about = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert about["method"] == name and about["size"] == str(one.crop.size)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = one.example(3)
    got = session.run(["picture"], {k: x.numpy() for k, x in zip(one.network.input_names, given, strict=True)})[0]
    np.testing.assert_allclose(got, one.run(*given).numpy(), atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.onnx"]


@pytest.mark.parametrize("name", ["alphaface", "magicmask"])
def test_torchscript_runs_any_batch_as_torch_does(name: str, tmp_path: Path) -> None:
    one, path = method(name), tmp_path / "network.pt"
    assert export.export_torchscript(one, path)["difference"] < 1e-5
    extra = {"mattface.json": ""}
    loaded = torch.jit.load(str(path), _extra_files=extra)
    assert json.loads(extra["mattface.json"])["method"] == name
    given = one.example(3)
    torch.testing.assert_close(loaded(*given), one.run(*given), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fold", [1, 4])
def test_an_exports_report_states_the_shape_that_the_file_gives(fold: int, tmp_path: Path) -> None:
    one, path = method(), tmp_path / "network.pt"
    if fold > 1:
        config = alphaface_small.Config(size=64, widths=(8, 16), blocks=1, decoder=(8,), code=16, fold=fold)
        network = alphaface_small.build_network(config)
        one = AlignedMethod("alphaface-small", one.crop, network, None, Parser("mesh"), "tiny", CPU, torch.float32)
    told = export.export_torchscript(one, path)["output"]["picture"]
    assert told == ("batch", *torch.jit.load(str(path))(*one.example()).shape[1:])
    assert told[1] == (4 if fold > 1 else 3), "a folded network predicts its matte"


def test_exports_reject_what_they_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        export.export_torchscript(method(), path)
    with pytest.raises(InputError, match="expected a folder"):
        export.export_torchscript(method(), tmp_path / "none" / "network.pt")
    mesh = mesh_method.MeshMethod(mesh_method.Config(), Parser("mesh"), CPU)
    with pytest.raises(UsageError, match="aligned-crop network; got mesh"):
        export.export_torchscript(mesh, tmp_path / "mesh.pt")
    monkeypatch.setattr(export, "_difference", lambda *args: 0.5)
    with pytest.raises(MattfaceError, match=r"differs by 0\.5"):
        export.export_torchscript(method(), path, overwrite=True)
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


def test_export_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr("mattface.cli.loading.load", lambda name, **_: swapper(method(name)))
    weights, out = tmp_path / "own.safetensors", tmp_path / "out.pt"
    save_checkpoint(weights, "alphaface", TINY, method().network)
    assert main(["export", "--method", "alphaface", "--weights", str(weights), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "target: batch x 3 x 64 x 64" in said and "code: batch x 16" in said and str(out) in said
    assert main(["export", "--method", "alphaface", "-o", str(out)]) == InputError.exit_code
    assert main(["export", "--method", "alphaface", "-o", str(tmp_path / "out.bin")]) == UsageError.exit_code
    assert "--overwrite" in capsys.readouterr().err


# The benchmark's yardstick


def test_the_plain_transcription_computes_the_same() -> None:
    from mattface.benchmarks.realtime import PlainAlphaFace, by_engine, ratios, work

    one = method()
    plain = PlainAlphaFace(one.network).eval()
    given = one.example()
    with torch.inference_mode():
        torch.testing.assert_close(plain(*given), one.run(*given), atol=1e-4, rtol=0)
        numbers = work(one)
        rows = by_engine(one, ["eager", "tensorrt"], "fp32", runs=1)
        held = ratios(one, numbers | {"milliseconds": {"fp32": rows}}, "fp32")
    assert numbers["parameters"] == sum(p.numel() for p in one.network.parameters())
    conv = one.network.inject[0].first.conv  # two of these at 16x16, the rest is less than forty times as much
    assert 4 * conv.weight.numel() * 256 < 1e9 * numbers["convolution GFLOP"] < 1e9 * numbers["GFLOP"]
    assert rows["eager"]["median"] > 0 and "needs a CUDA device" in rows["tensorrt"]
    assert held["plain / engine"]["eager"] == rows["plain"]["fastest"] / rows["eager"]["fastest"]


def test_eager_takes_any_memory_order() -> None:
    one = method()
    target, code = one.example()
    last = target.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one.run(last, code), one.run(target, code))
