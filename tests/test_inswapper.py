"""The method of insightface's 128 px graph, on a stand-in graph of the same signature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mattface
from mattface import weights
from mattface.data.templates import arcface_template
from mattface.embed import Embedder
from mattface.errors import DeviceError, UsageError, WeightsError
from mattface.methods import METHODS, inswapper
from mattface.methods.contract import Method
from mattface.parse import Parser
from mattface.vocabulary import Crop
from mattface.weights.adopt import recognise
from mattface.weights.onnx_graph import session

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
CPU = torch.device("cpu")


def constant(name: str, value: np.ndarray) -> Any:
    return onnx.numpy_helper.from_array(value.astype(np.float32), name)


EMAP = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)


def swapper_graph(path: Path, names: tuple[str, str] = ("target", "source"), emap: np.ndarray = EMAP) -> Path:
    """A graph with the published signature: half the target, plus a colour that is three numbers of the identity."""
    node = onnx.helper.make_node
    nodes = [
        node("Mul", [names[0], "half"], ["dim"]),
        node("MatMul", [names[1], "pick"], ["colour"]),
        node("Reshape", ["colour", "shape"], ["plane"]),
        node("Add", ["dim", "plane"], ["output"]),
    ]
    pick = np.zeros((512, 3))
    pick[[0, 1, 2], [0, 1, 2]] = 1
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [4], [1, 3, 1, 1])
    tensors = [constant("half", np.full(1, 0.5)), constant("pick", pick), shape, constant("emap", emap)]
    value, f32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [value(names[0], f32, [1, 3, 128, 128]), value(names[1], f32, [1, 512])]
    graph = onnx.helper.make_graph(nodes, "swap", inputs, [value("output", f32, [1, 3, 128, 128])], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def identity_graph(path: Path) -> Path:
    """A graph with the signature of w600k_r50: 512 weighted means of the crop."""
    node, value, f32 = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    matrix = np.random.default_rng(1).standard_normal((3 * 16 * 16, 512)) / 28
    nodes = [
        node("AveragePool", ["input.1"], ["small"], kernel_shape=[7, 7], strides=[7, 7]),
        node("Flatten", ["small"], ["flat"]),
        node("MatMul", ["flat", "matrix"], ["683"]),
    ]
    inputs, outputs = [value("input.1", f32, [1, 3, 112, 112])], [value("683", f32, [1, 512])]
    graph = onnx.helper.make_graph(nodes, "identity", inputs, outputs, [constant("matrix", matrix)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def register(home: Path, **files: Path) -> None:
    """Writes adoptions down: these stand-ins are too small to be recognised as the published files."""
    home.mkdir(parents=True, exist_ok=True)
    entries = {name.replace("_", "-"): {"path": str(p), "size": p.stat().st_size} for name, p in files.items()}
    (home / "adopted.json").write_text(json.dumps(entries))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which both graphs are adopted; what the real one holds is found as well."""
    real = weights.home()
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MATTFACE_WEIGHTS_PATH", str(real))
    files = {
        "inswapper_128": swapper_graph(tmp_path / "a.onnx"),
        "insightface_recognition": identity_graph(tmp_path / "b.onnx"),
    }
    register(weights.home(), **files)
    return tmp_path


def crop_of(pixels: torch.Tensor) -> Crop:
    points = arcface_template(128) + 0.5
    angle = np.linspace(0, 2 * np.pi, 468)
    mesh = np.stack([64 + 40 * np.cos(angle), 64 + 44 * np.sin(angle), np.zeros(468)], 1)
    return Crop(pixels, np.eye(3), mesh, points)


def build() -> inswapper.Inswapper:
    return inswapper.build(None, CPU, torch.float32)


def test_is_a_method(here: Path) -> None:
    method = build()
    assert isinstance(method, Method) and METHODS["inswapper"].builder() is inswapper.build
    assert (method.name, method.crop.template, method.crop.size) == ("inswapper", "arcface", 128)


def test_identity_is_the_published_one(here: Path) -> None:
    """Unit vector of the 112 px crop, which is the 128 px one without 8 columns on either side and 16 rows below;
    times the last initialiser; divided by its length."""
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    method = build()
    got = method.encode(crop_of(pixels))
    plain = session(here / "b.onnx").run(None, {"input.1": pixels[:, :, :112, 8:120].numpy()})[0]
    unit = plain / np.linalg.norm(plain)
    expected = unit @ EMAP
    np.testing.assert_allclose(got.numpy(), expected / np.linalg.norm(expected), atol=1e-5)


def test_ranges_and_order(here: Path) -> None:
    """The graph sees RGB in [0, 1] and gives RGB in [0, 1]; outside we have [-1, 1]."""
    method = build()
    method.parser = Parser("mesh")  # a red square shows no face
    code = F.normalize(torch.arange(512.0)[None] % 5, dim=1)
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 128, 128)
    swap = method.swap(code, crop_of(red))
    expected = torch.tensor([0.5, 0.0, 0.0]) + code[0, :3]
    np.testing.assert_allclose(swap.pixels[0, :, 5, 5], (expected * 2 - 1).clamp(-1, 1), atol=1e-6)
    assert swap.matte.shape == (1, 1, 128, 128) and swap.matte[0, 0, 64, 64] == 1 and swap.matte[0, 0, 0, 0] == 0


def test_names_in_the_graph_do_not_matter(here: Path) -> None:
    renamed = inswapper.build(str(swapper_graph(here / "c.onnx", ("input_image", "latent"))), CPU, torch.float32)
    pixels = torch.zeros(1, 3, 128, 128)
    code = torch.zeros(1, 512)
    assert torch.equal(renamed.swap(code, crop_of(pixels)).pixels, build().swap(code, crop_of(pixels)).pixels)


def test_graph_is_recognised(here: Path) -> None:
    assert recognise(here / "a.onnx").name == "inswapper-128"
    with pytest.raises(WeightsError, match="no card has such a one"):
        recognise(identity_graph(here / "d.onnx"))


def test_whole_pictures(here: Path, need: Callable[..., None], astronaut: np.ndarray, hopper: np.ndarray) -> None:
    need("centerface", "face-mesh")
    swapper = mattface.load("inswapper", device="cpu")
    assert swapper.embedder is not None and swapper.embedder.name == "insightface"
    result = swapper.swap(swapper.prepare(hopper), astronaut)
    image = np.asarray(result.image)
    assert image.shape == astronaut.shape and len(result.faces) == 1
    outside = result.matte == 0
    assert outside.any() and np.array_equal(image[outside], astronaut[outside])
    assert np.abs(image.astype(int) - astronaut).max() > 20


# Errors


def test_rejected_by_name_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"inswapper-128.*adopt inswapper_128\.onnx"):
        build()
    register(weights.home(), inswapper_128=swapper_graph(tmp_path / "a.onnx"))
    with pytest.raises(WeightsError, match="insightface-recognition"):
        build()


def test_other_graphs_and_files(here: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a graph of an image .* Is it inswapper_128\.onnx"):
        inswapper.build(str(here / "b.onnx"), CPU, torch.float32)
    with pytest.raises(WeightsError, match="last initialiser is 512x512"):
        inswapper.build(str(swapper_graph(here / "e.onnx", emap=EMAP[:4])), CPU, torch.float32)
    (here / "f.onnx").write_text("<!DOCTYPE html>")
    with pytest.raises(WeightsError, match="ONNX"):
        inswapper.build(str(here / "f.onnx"), CPU, torch.float32)
    with pytest.raises(WeightsError, match="expected the name inswapper-128"):
        inswapper.build("no.onnx", CPU, torch.float32)


def test_options_and_formats(here: Path) -> None:
    with pytest.raises(UsageError, match="no options; got detail"):
        inswapper.build(None, CPU, torch.float32, detail="flow")
    with pytest.raises(UsageError, match=r"float32; got torch\.bfloat16"):
        inswapper.build(None, CPU, torch.bfloat16)
    with pytest.raises(DeviceError, match="onnxruntime-gpu"):
        session(here / "a.onnx", "cuda")


def test_parts_are_handed_in(here: Path) -> None:
    """The class takes parts; nothing in it looks for files."""

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(512)[:1]

    part = Embedder("fixed", Fixed(), 512, 112, lambda mesh, points: np.eye(3), device=CPU)
    signature = inswapper.read_signature(here / "a.onnx")
    graph = session(here / "a.onnx")
    method = inswapper.Inswapper(graph, signature, part, Parser("mesh"), "mine", CPU)
    row = torch.from_numpy(EMAP[0])
    torch.testing.assert_close(method.encode(crop_of(torch.zeros(1, 3, 128, 128)))[0], row / row.norm())
