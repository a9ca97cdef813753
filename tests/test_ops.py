"""upfirdn2d and bias_act: golden values and gradients, gradients of gradients, registration, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_input

from mattface import cuda_ops
from mattface.cuda_ops import (
    _build,
    _implementations,
    bias_act,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "ops_cases.json").read_text())
VALUES = np.load(GOLDEN / "ops.npz")
UNBUILT = _implementations.missing("cpu")
NATIVE = pytest.param("cpu", marks=pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}"))
IMPLS = ("auto", "reference", NATIVE)


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(VALUES[name]).double()


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.abs().max().clamp_min(1e-30))


def leaf(tag: str, shape: list[int]) -> torch.Tensor:
    return seeded_input(tag, shape).double().requires_grad_()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", CASES["upfirdn2d"], ids=lambda case: str(case["id"]))
def test_upfirdn2d_golden(case: dict, impl: str) -> None:
    k = case["id"]
    f = None if case["filter"] == "none" else torch.from_numpy(VALUES[f"filter_{case['filter']}"])
    x = leaf(f"up{k}", case["shape"])
    y = upfirdn2d(x, f, case["up"], case["down"], case["padding"], case["flip_filter"], case["gain"], impl=impl)
    (gx,) = torch.autograd.grad(y, x, seeded_input(f"upg{k}", y.shape).double())
    assert error(y, golden(f"upfirdn_{k}_y")) < 1e-5
    assert error(gx, golden(f"upfirdn_{k}_gx")) < 1e-5


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", CASES["bias_act"], ids=lambda case: f"{case['id']}-{case['act']}")
def test_bias_act_golden(case: dict, impl: str) -> None:
    k, dim = case["id"], case["dim"]
    x, b = leaf(f"ba{k}", case["shape"]), leaf(f"bb{k}", [case["shape"][dim]])
    y = bias_act(x, b, dim, case["act"], gain=case["gain"], clamp=case["clamp"], impl=impl)
    gx, gb = torch.autograd.grad(y, (x, b), seeded_input(f"bag{k}", y.shape).double(), create_graph=True)
    (g2,) = torch.autograd.grad(gx.square().sum(), x, allow_unused=True) if gx.requires_grad else (None,)
    g2 = torch.zeros_like(x) if g2 is None else g2
    for name, value in (("y", y), ("gx", gx), ("gb", gb), ("g2", g2)):
        assert error(value, golden(f"biasact_{k}_{name}")) < 1e-5, name


RESAMPLE = [
    {},
    {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0},
    {"down": 2, "padding": [1, 1, 2, 0]},
    {"up": [2, 3], "down": [3, 2], "padding": [-1, 3, 2, -1], "flip_filter": True, "gain": -0.5},
]
FILTERS = {"four": [1.0, 3, 3, 1], "nine": list(range(1, 10)), "square": [[1.0, 2, -1], [0, 3, 1]]}


def make_filter(name: str) -> torch.Tensor:
    return torch.tensor(FILTERS[name], dtype=torch.float32)


@pytest.mark.parametrize("options", RESAMPLE)
@pytest.mark.parametrize("taps", FILTERS)
def test_upfirdn2d_gradients_of_any_order(taps: str, options: dict) -> None:
    x = seeded_input("x", (1, 2, 9, 10)).double().requires_grad_()
    run = lambda t: upfirdn2d(t, make_filter(taps) / 8, **options).square()  # noqa: E731
    assert torch.autograd.gradcheck(run, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, x, fast_mode=True)


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"])
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (-0.7, 0.5), (0.0, None)])
def test_bias_act_gradients_of_any_order(act: str, gain: float | None, clamp: float | None) -> None:
    x = seeded_input(f"x{act}", (2, 3, 4)).double().requires_grad_()
    b = seeded_input("b", (3,)).double().requires_grad_()
    run = lambda t, u: bias_act(t, u, act=act, gain=gain, clamp=clamp) * t  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, b))
    assert torch.autograd.gradgradcheck(run, (x, b))


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_stated_gradients_equal_autograd_of_the_reference(act: str) -> None:
    """The kernel is opaque to autograd: without its own formula it would lose the second gradient without a word."""
    f, second = setup_filter([1, 3, 3, 1]), {}
    for impl in ("auto", "reference"):
        x = seeded_input("x", (1, 2, 8, 8)).double().requires_grad_()
        b = seeded_input("b", (2,)).double().requires_grad_()
        y = bias_act(upfirdn2d(x, f, up=2, padding=[2, 1], impl=impl), b, act=act, impl=impl)
        first = torch.autograd.grad(y.pow(3).sum(), (x, b), create_graph=True)
        total = first[0].square().sum() + first[1].square().sum()
        second[impl] = torch.autograd.grad(total, (x, b))
    for one, other in zip(second["auto"], second["reference"], strict=True):
        assert one.abs().max() > 0
        assert error(one, other) < 1e-12


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("grad", [False, True])
def test_upfirdn2d_opcheck(layout: torch.memory_format, grad: bool) -> None:
    x = torch.randn(2, 3, 8, 6).contiguous(memory_format=layout).requires_grad_(grad)
    for f, up, down in (
        (setup_filter([1, 3, 3, 1]), [2, 2], [1, 1]),
        (None, [1, 1], [1, 2]),
        (make_filter("nine"), [1, 1], [2, 2]),
    ):
        args = (x, f, up, down, [4, 5, 4, 4], False, 2.0)
        torch.library.opcheck(torch.ops.mattface.upfirdn2d.default, args)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("act", ["linear", "lrelu", "softplus"])
@pytest.mark.parametrize("bias", [False, True])
def test_bias_act_opcheck(layout: torch.memory_format, act: str, bias: bool) -> None:
    x = torch.randn(2, 3, 8, 6).contiguous(memory_format=layout).requires_grad_()
    b = torch.randn(3, requires_grad=True) if bias else None
    for clamp in (None, 0.5):
        torch.library.opcheck(torch.ops.mattface.bias_act.default, (x, b, 1, act, 0.2, 1.5, clamp))


def test_compiles_as_one_graph() -> None:
    f = setup_filter([1, 3, 3, 1])

    def run(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act(upfirdn2d(x, f, up=2, padding=[2, 1]), b, act="lrelu", clamp=1.0)

    x, b = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(2, requires_grad=True)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(run(x, b).square().sum(), (x, b))
    got = torch.autograd.grad(compiled(x, b).square().sum(), (x, b))
    assert torch.equal(compiled(x, b), run(x, b))
    assert all(torch.allclose(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_type_and_layout_are_kept(impl: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randn(2, 8, 12, 10).to(dtype).contiguous(memory_format=layout)
    b = torch.randn(8).to(dtype)
    f = setup_filter([1, 3, 3, 1])
    exact = upfirdn2d(x.double(), f, up=2, padding=[2, 1], gain=4)
    y = upfirdn2d(x, f, up=2, padding=[2, 1], gain=4, impl=impl)
    z = bias_act(x, b, act="lrelu", impl=impl)
    for value in (y, z):
        assert value.dtype == dtype
        assert value.is_contiguous(memory_format=layout)
    assert error(y.double(), exact) < 8 * torch.finfo(dtype).eps
    assert error(z.double(), bias_act(x.double(), b.double(), act="lrelu")) < 8 * torch.finfo(dtype).eps


def test_inputs_are_left_alone() -> None:
    x, b = torch.randn(2, 3, 4, 4), torch.randn(3)
    before = x.clone(), b.clone()
    for act in ("linear", "relu", "lrelu", "swish"):
        bias_act(x, None, act=act, gain=1.0, clamp=0.1)
        bias_act(x, b, act=act, clamp=0.1)
    y = upfirdn2d(x, None)
    y.zero_()
    assert torch.equal(x, before[0])
    assert torch.equal(b, before[1])


def test_common_resamplings() -> None:
    """A constant picture stays constant away from the border, sizes are whole multiples, even in x or y alone."""
    x, f = torch.ones(1, 1, 8, 8), setup_filter([1, 3, 3, 1])
    for y, size in (
        (filter2d(x, f), (8, 8)),
        (upsample2d(x, f), (16, 16)),
        (upsample2d(x, setup_filter([1, 1, 1]), up=[3, 1]), (8, 24)),
        (downsample2d(x, f), (4, 4)),
        (downsample2d(x, f, down=[1, 2]), (4, 8)),
    ):
        assert y.shape[2:] == size
        assert torch.allclose(y[:, :, size[0] // 2, size[1] // 2], torch.ones(1, 1))


def test_upsampling_is_linear_interpolation() -> None:
    """Taps 1, 3, 3, 1 up by two are bilinear interpolation inside the picture."""
    x = torch.randn(1, 2, 8, 8)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(upsample2d(x, setup_filter([1, 3, 3, 1]))[inner], expected[inner], atol=1e-6)


def test_setup_filter() -> None:
    assert setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert setup_filter([1.0] * 8).shape == (8,)
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter([1, 3], normalize=False, flip_filter=True, gain=2).tolist() == [[18, 6], [6, 2]]
    assert float(setup_filter([1, 3, 3, 1], separable=True, gain=4).sum()) == pytest.approx(2)
    with pytest.raises(ValueError, match="sum of 0"):
        setup_filter([1, -1])
    with pytest.raises(ValueError, match="separable"):
        setup_filter([[1, 1]], separable=True)


X = torch.zeros(1, 3, 4, 4)
REFUSED = [
    (lambda: upfirdn2d(X[0], None), ValueError, r"x must be \(B, C, H, W\); got shape \(3, 4, 4\)"),
    (lambda: upfirdn2d(X.int(), None), TypeError, "x must be a floating point tensor; got torch.int32"),
    (lambda: upfirdn2d([1], None), TypeError, "got list"),
    (lambda: upfirdn2d(X, torch.ones(2).int()), TypeError, "f must be a floating point tensor; got torch.int32"),
    (lambda: upfirdn2d(X, torch.ones(1, 1, 1)), ValueError, r"f must be \(K,\) or \(KH, KW\)"),
    (lambda: upfirdn2d(X, torch.ones(0)), ValueError, "at least one tap"),
    (lambda: upfirdn2d(X, torch.ones(5)), ValueError, "padded image of 4x4; got 5x5"),
    (lambda: upfirdn2d(X, torch.ones(2, device="meta")), ValueError, r"device of x \(cpu\); got meta"),
    (lambda: upfirdn2d(X, torch.ones(2, requires_grad=True)), ValueError, "Detach"),
    (lambda: upfirdn2d(X, None, up=0), ValueError, "up must be an integer of at least 1"),
    (lambda: upfirdn2d(X, None, down=[2, -1]), ValueError, "down must be"),
    (lambda: upfirdn2d(X, None, padding=[1, 2, 3]), ValueError, "padding must be 1, 2 or 4 integers"),
    (lambda: upfirdn2d(X, None, gain=float("nan")), ValueError, "gain must be finite; got nan"),
    (lambda: upfirdn2d(X, None, impl="cuda"), RuntimeError, 'impl="cuda" cannot run'),
    (lambda: upfirdn2d(X, None, impl="fast"), ValueError, "impl must be"),
    (lambda: bias_act(X.long()), TypeError, "x must be a floating point tensor; got torch.int64"),
    (lambda: bias_act(X, torch.zeros(4)), ValueError, r"b must have shape \(3,\) for dim 1; got \(4,\)"),
    (lambda: bias_act(X, torch.zeros(1, 3)), ValueError, r"got \(1, 3\)"),
    (lambda: bias_act(X, torch.zeros(3).double()), TypeError, "b must be torch.float32 like x; got torch.float64"),
    (lambda: bias_act(X, torch.zeros(3, device="meta")), ValueError, "device of x"),
    (lambda: bias_act(X, dim=4), ValueError, "dim must be a dimension of x, which has 4; got 4"),
    (lambda: bias_act(X, act="gelu"), ValueError, "act must be one of linear"),
    (lambda: bias_act(X, gain=float("inf")), ValueError, "gain and alpha must be finite"),
    (lambda: bias_act(X, clamp=-1), ValueError, "clamp must be None or at least 0; got -1"),
    (lambda: bias_act(X, impl="cuda"), RuntimeError, 'impl="cuda" cannot run'),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refusals_are_one_line(case: int) -> None:
    call, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_available_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setattr(_build, "PREBUILT", tmp_path / "none")
    _implementations.missing.cache_clear()
    try:
        report = cuda_ops.available()
        with pytest.raises(RuntimeError, match="mattface ops build"):
            bias_act(X, impl="cpu")
        assert torch.equal(bias_act(X), X)
    finally:
        _implementations.missing.cache_clear()
    assert set(report) == {"upfirdn2d", "bias_act"}
    for entry in report.values():
        assert entry["chosen"] == "reference"
        assert "not built. Type: mattface ops build" in entry["missing"]["cpu"]
        assert re.match("this torch is built without CUDA|torch finds no GPU|not built", entry["missing"]["cuda"])


@pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
def test_built_kernels_are_chosen() -> None:
    for entry in cuda_ops.available().values():
        assert entry["chosen"] == "cpu"
        assert "cpu" not in entry["missing"]
