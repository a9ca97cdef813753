"""upfirdn2d and bias_act: golden values and gradients, filters, and which implementation is chosen."""

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


X = torch.zeros(1, 3, 4, 4)


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
    assert set(report) >= {"upfirdn2d", "bias_act", "noise_bias_act", "upsample_add"}
    for entry in report.values():
        assert entry["chosen"] == "reference"
        assert "not built. Type: mattface ops build" in entry["missing"]["cpu"]
        assert re.match("this torch is built without CUDA|torch finds no GPU|not built", entry["missing"]["cuda"])


@pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
def test_built_kernels_are_chosen() -> None:
    for entry in cuda_ops.available().values():
        assert entry["chosen"] == "cpu"
        assert "cpu" not in entry["missing"]
