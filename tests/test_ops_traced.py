"""Ops under torch.library.opcheck, torch.compile and torch.export: one graph, one node per op, the same result."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from mattface.cuda_ops import (
    _bias_act,
    _implementations,
    _upfirdn2d,
    bias_act,
    downsample2d,
    filter2d,
    fused,
    noise_bias_act,
    setup_filter,
    upfirdn2d,
    upsample2d,
    upsample_add,
)

UNBUILT = _implementations.missing("cpu")
native = pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
OPS = torch.ops.mattface
BLUR = setup_filter([1, 3, 3, 1])
LAYOUTS = ["contiguous", "channels_last", "sliced", "transposed", "expanded"]


@pytest.fixture(params=[pytest.param("native", marks=native), "reference"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with native kernels and without."""
    if request.param == "reference":
        for module in (_bias_act, _upfirdn2d, fused):
            monkeypatch.setattr(module, "runs_native", lambda x: False)


def stored(layout: str, *shape: int) -> torch.Tensor:
    """Random values in one of several ways to lie in memory."""
    b, c, h, w = shape
    if layout == "sliced":
        return torch.randn(b, c, h, 2 * w)[..., ::2]
    if layout == "transposed":
        return torch.randn(b, c, w, h).mT
    if layout == "expanded":
        return torch.randn(b, 1, h, 1).expand(shape)
    return torch.randn(shape).contiguous(memory_format=getattr(torch, layout + "_format" * (layout == "contiguous")))


def arguments(op: str, layout: str) -> list[tuple]:
    """Several calls of an op."""
    x, b, scale = stored(layout, 2, 3, 8, 6), torch.randn(3), torch.randn(2, 3)
    noise, strength = torch.randn(2, 1, 8, 6), torch.tensor(0.3)
    if op == "upfirdn2d":
        nine = torch.arange(9.0)
        return [
            (x, BLUR, [2, 2], [1, 1], [4, 5, 4, 4], False, 2.0),
            (x, None, [1, 1], [1, 2], [0] * 4, False, 1.0),
            (x, nine, [1, 1], [2, 2], [4, 5, 4, 4], True, -1.0),
        ]
    if op == "bias_act":
        kinds = [("linear", None), ("lrelu", 0.5), ("softplus", 0.5)]
        return [(x, bias, 1, act, 0.2, 1.5, clamp) for act, clamp in kinds for bias in (None, b)]
    if op == "noise_bias_act":
        return [
            (x, b, scale, noise, strength, "lrelu", 1.0, None, [0] * 4, 1.0),
            (x, b, None, noise[:1, :, 1:, 1:], None, "swish", None, BLUR, [1] * 4, 4.0),
        ]
    if op == "noise_bias_act_":
        return [(x, b, scale, noise, strength, "lrelu", None)]
    base = torch.randn(2, 3, 16, 12)
    return [(base, x, BLUR)]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "op", ["upfirdn2d", "bias_act", "noise_bias_act", "noise_bias_act_", "upsample_add", "upsample_add_"]
)
def test_opcheck(op: str, layout: str) -> None:
    if op == "noise_bias_act_" and layout not in LAYOUTS[:2]:
        pytest.skip("writes into dense memory only")
    for args in arguments(op, layout):
        torch.library.opcheck(getattr(OPS, op).default, args)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("op", ["upfirdn2d", "bias_act"])
def test_opcheck_with_gradients(op: str, layout: str) -> None:
    for args in arguments(op, layout):
        graded = [a.requires_grad_() if isinstance(a, torch.Tensor) and a is not args[1] else a for a in args]
        if op == "bias_act" and args[1] is not None:
            args[1].requires_grad_()
        torch.library.opcheck(getattr(OPS, op).default, tuple(graded))


class Everything(torch.nn.Module):
    """All ops, named implementation included."""

    def __init__(self, impl: str) -> None:
        super().__init__()
        self.impl: Any = impl

    def forward(self, x: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        impl = self.impl
        y = bias_act(upsample2d(x, BLUR, impl=impl), b, act="swish", clamp=2.0, impl=impl)
        y = downsample2d(filter2d(y, BLUR, impl=impl), BLUR, gain=2, impl=impl)
        y = upfirdn2d(y, BLUR, padding=[2, 1], impl=impl)
        noise = torch.ones(1, 1, y.shape[2] - 1, y.shape[3] - 1)
        z = noise_bias_act(y, b, scale, noise, strength, f=BLUR, padding=1, filter_gain=4.0, impl=impl)
        y = noise_bias_act(y, b, overwrite=True, impl=impl)
        base = torch.zeros(y.shape[0], y.shape[1], 2 * y.shape[2], 2 * y.shape[3])
        return upsample_add(y, BLUR, base, impl=impl) + z.mean()


NODES = {"upfirdn2d": 4, "bias_act": 1, "noise_bias_act": 2, "upsample_add": 1}


def inputs(samples: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(samples + height)
    return torch.randn(samples, 3, height, width), torch.randn(3), torch.randn(samples, 3), torch.tensor(0.3)


def nodes(graph: torch.fx.Graph) -> Counter:
    """How often each op stands in a graph."""
    found = (n.target.name() for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload))
    return Counter(name.removeprefix("mattface::") for name in found if name.startswith("mattface::"))


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """No test inherits the graphs of another."""
    torch.compiler.reset()


@pytest.mark.parametrize("impl", ["auto", "reference", pytest.param("cpu", marks=native)])
def test_compiles_as_one_graph(impl: str) -> None:
    model = Everything(impl)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    with torch.no_grad():
        assert torch.allclose(compiled(*inputs(2, 8, 9)), model(*inputs(2, 8, 9)), atol=1e-6)


@pytest.mark.slow
def test_one_graph_serves_all_sizes() -> None:
    model = Everything("auto")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        compiled(*inputs(2, 8, 9))
        with torch.compiler.set_stance("fail_on_recompile"):
            for sizes in ((2, 8, 9), (3, 12, 7)):
                assert torch.allclose(compiled(*inputs(*sizes)), model(*inputs(*sizes)), atol=1e-6)


def test_gradients_compile_as_one_graph() -> None:
    model = Everything("auto")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    args = [a.requires_grad_() for a in inputs(2, 8, 9)]
    expected, got = (torch.autograd.grad(run(*args).square().sum(), args) for run in (model, compiled))
    assert all(torch.allclose(one, other, rtol=1e-4) for one, other in zip(got, expected, strict=True))


def test_every_op_is_one_node_where_nothing_wants_gradients() -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(nodes(graph.graph))
        return make_boxed_func(graph)

    with torch.no_grad():
        torch.compile(Everything("auto"), fullgraph=True, backend=aot_autograd(fw_compiler=keep))(*inputs(2, 8, 9))
    assert graphs == [NODES]


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_batch_and_size(strict: bool) -> None:
    model, dim = Everything("auto"), torch.export.Dim
    batch, height, width = dim("batch"), dim("height", min=4, max=4096), dim("width", min=4, max=4096)
    shapes = ({0: batch, 2: height, 3: width}, None, {0: batch}, None)
    with torch.no_grad():
        program = torch.export.export(model, inputs(2, 8, 9), dynamic_shapes=shapes, strict=strict)
        assert nodes(program.graph) == NODES
        for sizes in ((2, 8, 9), (3, 12, 7), (1, 5, 30)):
            assert torch.equal(program.module()(*inputs(*sizes)), model(*inputs(*sizes)))


def test_export_with_gradients_wanted_takes_the_parts() -> None:
    """Parameters want gradients unless the export is under no_grad; the program is then trainable."""
    args = tuple(a.requires_grad_() for a in inputs(2, 8, 9))
    program = torch.export.export(Everything("auto"), args)
    assert nodes(program.graph) == {"upfirdn2d": 6, "bias_act": 3}
    assert torch.allclose(program.module()(*args), Everything("auto")(*args), atol=1e-6)


@pytest.mark.slow
def test_inductor() -> None:
    """The default backend, which compiles C++ for what stands between the ops."""
    model = Everything("auto")
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(*inputs(2, 8, 9)), model(*inputs(2, 8, 9)), atol=1e-5)
    args = [a.requires_grad_() for a in inputs(2, 8, 9)]
    expected, got = (torch.autograd.grad(run(*args).square().sum(), args) for run in (model, compiled))
    assert all(torch.allclose(one, other, rtol=1e-4) for one, other in zip(got, expected, strict=True))
