"""Gradients of any order of every op and helper, with the kernels opaque to autograd.

A kernel whose backward is opaque passes first-order checks and returns no second gradient without a word. Here the
reference inside the ops runs on detached tensors, so that only stated gradients can be right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from seeded import seeded_input
from torch.autograd.gradcheck import GradcheckError

from mattface.cuda_ops import (
    _bias_act,
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

ACTS = ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"]
BLUR = setup_filter([1, 3, 3, 1])
FILTERS = {
    "four": torch.tensor([1.0, 3, 3, 1]),
    "nine": torch.arange(1.0, 10),
    "square": torch.tensor([[1.0, 2, -1], [0, 3, 1]]),
}
RESAMPLE = [
    {},
    {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0},
    {"down": 2, "padding": [1, 1, 2, 0]},
    {"up": [2, 3], "down": [3, 2], "padding": [-1, 3, 2, -1], "flip_filter": True, "gain": -0.5},
]


def leaf(tag: str, *shape: int) -> torch.Tensor:
    return seeded_input(tag, shape).double().requires_grad_()


def detach(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def make_opaque(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference on detached tensors under no_grad takes the place of the kernels."""
    for module in (_bias_act, _upfirdn2d):
        reference = module._reference

        def detached(*args: Any, reference: Callable = reference) -> torch.Tensor:
            with torch.no_grad():
                return reference(*map(detach, args))

        monkeypatch.setattr(module, "_reference", detached)
        monkeypatch.setattr(module, "runs_native", lambda x: False)
    monkeypatch.setattr(fused, "runs_native", lambda x: False)


@pytest.fixture(params=["kernels", "detached reference"])
def opaque(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with what is built, and with the detached reference."""
    if request.param != "kernels":
        make_opaque(monkeypatch)


def check(run: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    """First and second gradients agree with differences, and every first gradient has a graph.

    gradgradcheck alone would leave out a first gradient without a graph. No function here is linear.
    """
    firsts = torch.autograd.grad(run(*inputs).sum(), inputs, create_graph=True)
    assert all(first.requires_grad for first in firsts)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.usefixtures("opaque")
@pytest.mark.parametrize("options", RESAMPLE)
@pytest.mark.parametrize("taps", FILTERS)
def test_upfirdn2d(taps: str, options: dict) -> None:
    check(lambda t: upfirdn2d(t, FILTERS[taps] / 8, **options).square(), leaf("x", 1, 2, 9, 10))


@pytest.mark.usefixtures("opaque")
@pytest.mark.parametrize("taps", FILTERS)
@pytest.mark.parametrize("helper", [filter2d, upsample2d, downsample2d])
def test_helpers(helper: Callable, taps: str) -> None:
    check(lambda t: helper(t, FILTERS[taps] / 8, padding=[1, 0], gain=-0.7).pow(3), leaf("x", 1, 2, 9, 10))


@pytest.mark.usefixtures("opaque")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (-0.7, 0.5), (0.0, None)])
def test_bias_act(act: str, gain: float | None, clamp: float | None) -> None:
    x, b = leaf(f"x{act}", 2, 3, 4), leaf("b", 3)
    check(lambda t, u: bias_act(t, u, act=act, gain=gain, clamp=clamp) * t, x, b)


@pytest.mark.usefixtures("opaque")
@pytest.mark.parametrize("act", ["lrelu", "softplus"])
def test_bias_act_wants_gradients_of_one_input_only(act: str) -> None:
    x, b = leaf("x", 2, 3, 4), leaf("b", 4)
    check(lambda u: bias_act(x.detach(), u, dim=2, act=act).pow(3), b)
    check(lambda t: bias_act(t, b.detach(), dim=-1, act=act).pow(3), x)
    line = seeded_input("line", (4,)).double()
    check(lambda u: bias_act(line, u, dim=0, act=act).pow(3), b)  # one dimension: nothing to sum over


@pytest.mark.usefixtures("opaque")
@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("noises", [0, 1, 2])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_noise_bias_act(act: str, blur: bool, noises: int, scaled: bool, overwrite: bool) -> None:
    options: dict[str, Any] = {"f": BLUR, "padding": 1, "filter_gain": 4.0} if blur else {}
    size = (4, 5) if blur else (5, 6)
    x, b, scale = leaf("x", 2, 2, 5, 6), leaf("b", 2), leaf("s", 2, 2)
    noise, strength = leaf("n", max(noises, 1), 1, *size), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, b: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        left = list(rest)
        s = left.pop(0) if scaled else None
        n, k = left if noises else (None, None)
        return noise_bias_act(x * 1, b, s, n, k, act, 1.5, overwrite=overwrite, **options).square()

    rest = [scale] * scaled + [noise, strength] * bool(noises)
    check(run, x, b, *rest)


@pytest.mark.usefixtures("opaque")
def test_upsample_add() -> None:
    check(lambda t, u: upsample_add(t, BLUR, u * 1).pow(3), leaf("x", 1, 2, 4, 5), leaf("u", 1, 2, 8, 10))
    check(lambda t: upsample_add(t, BLUR, torch.ones(1, 2, 8, 10).double()).pow(3), leaf("x", 1, 2, 4, 5))


@pytest.mark.usefixtures("opaque")
def test_third_gradient() -> None:
    x, b = leaf("x", 1, 2, 5, 5), leaf("b", 2)
    y = bias_act(upfirdn2d(x, BLUR, up=2, padding=[2, 1]), b, act="swish").square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.square().sum(), x)
    assert third.abs().max() > 0


@pytest.mark.parametrize("module", [_bias_act, _upfirdn2d])
def test_an_opaque_gradient_is_found(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above would fail if a backward lost its graph: this one does, and its first gradient stays right."""
    stated = module._op._backward_fn

    def opaque_backward(ctx: Any, grad: torch.Tensor) -> tuple:
        with torch.no_grad():
            return tuple(detach(g) for g in stated(ctx, grad.detach()))

    monkeypatch.setattr(module._op, "_backward_fn", opaque_backward)
    x, b = leaf("x", 1, 2, 5, 5), leaf("b", 2)
    run = lambda t, u: bias_act(filter2d(t, BLUR), u, act="swish").square()  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, b), fast_mode=True)
    with pytest.raises((AssertionError, GradcheckError)):
        check(run, x, b)


def network(x: torch.Tensor, p: dict[str, torch.Tensor], impl: str) -> torch.Tensor:
    """Some layers of a generator and of a discriminator."""
    convolve = torch.nn.functional.conv2d
    y = convolve(upsample2d(x, BLUR, impl=impl), p["w"], padding=1)
    y = noise_bias_act(y, p["b"], p["s"], p["n"], p["k"], "lrelu", 2.0, BLUR, 1, 2.0, impl=impl)
    y = upsample_add(downsample2d(y, BLUR, impl=impl), BLUR, y[:, :, :6, :6] * 1, impl=impl)
    y = bias_act(filter2d(y, BLUR, impl=impl), p["c"], act="swish", impl=impl)
    return y


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("loss", ["R1", "path length"])
def test_regularisers_equal_plain_pytorch(loss: str, detached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mescheder et al. 2018, R1; Karras et al. 2020, equation 4: gradients of a gradient's norm, by every parameter."""
    results = {}
    for impl in ("reference", "auto"):
        if impl == "auto" and detached:
            make_opaque(monkeypatch)
        x = leaf("x", 2, 2, 4, 4)
        p = {"w": leaf("w", 2, 2, 3, 3), "b": leaf("b", 2), "s": leaf("s", 2, 2), "n": leaf("n", 1, 1, 7, 7)}
        p |= {"k": torch.tensor(0.4, dtype=torch.float64, requires_grad=True), "c": leaf("c", 2)}
        y = network(x, p, impl)
        seed = y if loss == "R1" else y * seeded_input("image", y.shape).double()
        (grad,) = torch.autograd.grad(seed.sum(), x, create_graph=True)
        norms = grad.square().sum([1, 2, 3])
        value = norms.mean() if loss == "R1" else (norms.sqrt() - 1).square().mean()
        results[impl] = [value, *torch.autograd.grad(value, list(p.values()))]
    for one, other in zip(results["auto"], results["reference"], strict=True):
        assert one.abs().max() > 0
        assert (one - other).abs().max() < 1e-10 * other.abs().max()
