"""Graphs in ONNX files: what is in them, and the ArcFace networks taken out of them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded import largest_error, seeded_input, seeded_state

from mattface.embed.arcface import IResNet, iresnet50, iresnet_for
from mattface.errors import WeightsError
from mattface.weights import layouts, load_strictly
from mattface.weights.content import open_any
from mattface.weights.convert import onnx_layout, to_ours
from mattface.weights.layouts import arcface
from mattface.weights.layouts.arcface_onnx import arcface_onnx, reads_bytes
from mattface.weights.onnx_read import Graph, Node, Value, read_graph

GOLDEN = Path(__file__).parent / "golden"


class Plain(torch.nn.Module):
    """An ArcFace ResNet without its last normalisation, as the published graphs are."""

    def __init__(self, net: IResNet, raw: bool = False) -> None:
        super().__init__()
        self.net, self.raw = net, raw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.raw:
            x = (x - 127.5) * 0.0078125
        x = self.net.norm(self.net.stages(self.net.stem(x)))
        return self.net.norm_out(self.net.linear(x.flatten(1)))


SIZES = ((1, 2, 1, 1), (8, 8, 16, 16), 32)


def seeded_arcface() -> IResNet:
    net = IResNet(*SIZES).eval()
    net.load_state_dict(seeded_state({k: v.shape for k, v in net.state_dict().items()}, False))
    return net


def exported(module: torch.nn.Module) -> bytes:
    """An ONNX file in which batch norms behind convolutions are folded, as the published ones are."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(1, 3, 112, 112),), out, dynamo=False)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("raw", [False, True])
def test_arcface_graph_becomes_our_network(raw: bool) -> None:
    """Same vectors, with a gradient; a graph that scales by itself reads 0..255."""
    net = seeded_arcface()
    graph = read_graph(exported(Plain(net, raw)))
    folded = sum(node.op == "BatchNormalization" for node in graph.nodes)
    assert folded == 5 + 2 and reads_bytes(graph) == raw
    state = arcface_onnx(graph)
    again = IResNet(*SIZES).eval()
    load_strictly(again, state, "the graph")
    pixels = seeded_input("iresnet_img", (2, 3, 112, 112)).requires_grad_()
    seen = (pixels * 127.5 + 127.5 - 127.5) * 0.0078125 if raw else pixels
    expected = net(seen)
    got = again(pixels)
    assert (got - expected).abs().max() < 1e-5
    got[0, 0].backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0


def test_arcface_graph_runs_the_same() -> None:
    """onnxruntime on the graph and PyTorch on the tensors taken out of it."""
    from mattface.embed import OnnxIdentity

    for raw in (False, True):
        model = exported(Plain(seeded_arcface(), raw))
        net = IResNet(*SIZES).eval()
        load_strictly(net, arcface_onnx(read_graph(model)), "the graph")
        image = seeded_input("iresnet_img", (2, 3, 112, 112))
        with torch.no_grad():
            got = F.normalize(OnnxIdentity(model)(image), dim=1)
            assert (got - net(image)).abs().max() < 1e-5


@pytest.mark.slow
def test_arcface_graph_golden(tmp_path: Path) -> None:
    """The public size: exported, recognised, unfolded, compared with the original network's output."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    net = iresnet50().eval()
    load_strictly(net, layouts.arcface_torch(seeded_state(arcface.arcface_shapes(), False)), "a ResNet-50")
    path = tmp_path / "any name"
    path.write_bytes(exported(Plain(net)))
    ours, layout = to_ours(open_any(path))
    assert layout == "arcface-onnx"
    again = iresnet_for(ours).eval()
    load_strictly(again, ours, "the graph")
    expected = F.normalize(torch.from_numpy(np.load(GOLDEN / "arcface_iresnet50.npz")["embedding"])).numpy()
    with torch.no_grad():
        error = largest_error(again(seeded_input("iresnet_img", (2, 3, 112, 112))), expected)
    print(f"arcface_iresnet50 out of ONNX: {error:.1e}")
    assert error < 1e-4


def test_other_graphs_are_rejected() -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).relu()

    graph = read_graph(exported(Other()))
    with pytest.raises(WeightsError, match=r"expected an ArcFace ResNet: PRelu behind .*; got Relu"):
        arcface_onnx(graph)
    with pytest.raises(WeightsError, match="one input and one output"):
        arcface_onnx(Graph((), (), (), {}))
    assert onnx_layout(graph) == ""


# Graphs as they are read


def test_onnx_tensors_are_what_onnx_reads() -> None:
    """Every tensor, node and input of a graph as the onnx package sees them."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = exported(Plain(seeded_arcface()))
    theirs, ours = onnx.load_from_string(model).graph, read_graph(model)
    assert [n.op_type for n in theirs.node] == [n.op for n in ours.nodes]
    assert [list(n.input) for n in theirs.node] == [list(n.inputs) for n in ours.nodes]
    assert [t.name for t in theirs.initializer] == list(ours.tensors)
    for tensor in theirs.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), ours.tensors[tensor.name])
    assert ours.inputs == (Value(theirs.input[0].name, (1, 3, 112, 112)),)
    gemm = next(node for node in ours.nodes if node.op == "Gemm")
    assert isinstance(gemm, Node) and gemm.attributes["transB"] == 1


@pytest.mark.parametrize("data_type", ["FLOAT", "FLOAT16", "DOUBLE", "INT64"])
@pytest.mark.parametrize("raw", [True, False])
def test_onnx_number_formats(data_type: str, raw: bool) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import helper

    if data_type == "FLOAT16" and not raw:
        pytest.skip("half precision is always stored raw by the exporters")
    kind = getattr(onnx.TensorProto, data_type)
    values = np.arange(-3, 3).reshape(2, 3).astype(helper.tensor_dtype_to_np_dtype(kind))
    tensor = helper.make_tensor("t", kind, (2, 3), values.tobytes() if raw else values.ravel().tolist(), raw=raw)
    graph = helper.make_graph([helper.make_node("Identity", ["t"], ["o"])], "g", [], [], [tensor])
    found = read_graph(helper.make_model(graph).SerializeToString()).tensors["t"]
    np.testing.assert_array_equal(found, values)


def test_onnx_shapes_must_fit_their_data() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1 << 40], raw_data=b"\0" * 8)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    with pytest.raises(WeightsError, match=r"shape \[1099511627776\] does not fit its 2 numbers"):
        read_graph(onnx.helper.make_model(graph).SerializeToString())
