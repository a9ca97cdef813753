"""modulated_conv2d: the definition, both modulations, the folded up-convolution, gradients, what is kept, errors."""

from __future__ import annotations

import gc
import math

import pytest
import torch
import torch.nn.functional as F
from seeded import seeded_input

from mattface.cuda_ops import _implementations, _packing, modulated_conv2d, setup_filter, upfirdn2d

UNBUILT = _implementations.missing("cpu")
SEPARABLE = setup_filter([1, 3, 3, 1], separable=True)


def definition(x, weight, style, b, noise, strength, clamp, up, f, demodulate):  # type: ignore[no-untyped-def]
    """Equations 1 to 3 sample by sample, then filter, noise, bias, leaky ReLU, gain and clamp one after the other."""
    out = []
    for one, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up == 1:
            out.append(F.conv2d(one[None], w, padding=w.shape[-1] // 2))
        else:
            y = F.conv_transpose2d(one[None], w.transpose(0, 1), stride=2)
            out.append(upfirdn2d(y, f, padding=1, gain=4, impl="reference"))
    y = torch.cat(out) + noise * strength + b[:, None, None]
    return (F.leaky_relu(y, 0.2) * math.sqrt(2)).clamp(-clamp, clamp)


def operands(batch: int, up: int, side: int, outputs: int = 20, size: tuple[int, int] = (5, 7)) -> dict:
    """Seeded float64 arguments."""
    channels = 6
    shape = (size[0] * up, size[1] * up)
    return {
        "x": seeded_input("x", (batch, channels, *size)).double(),
        "weight": seeded_input("w", (outputs, channels, side, side)).double(),
        "style": seeded_input("s", (batch, channels)).double() + 1,
        "b": seeded_input("b", (outputs,)).double(),
        "noise": seeded_input("n", (1, 1, *shape)).double(),
        "strength": torch.tensor(0.3).double(),
        "clamp": 1.5,
        "up": up,
        "f": SEPARABLE.double() if up == 2 else None,
    }


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("up", "side"), [(1, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize(("batch", "modulate"), [(1, "auto"), (1, "weight"), (1, "input"), (3, "auto"), (3, "input")])
def test_is_its_definition(batch, modulate, up, side, demodulate, last, impl) -> None:  # type: ignore[no-untyped-def]
    given = operands(batch, up, side)
    expected = definition(**given, demodulate=demodulate)
    if last:
        given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    got = modulated_conv2d(**given, act="lrelu", demodulate=demodulate, modulate=modulate, impl=impl)
    assert error(got, expected) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("outputs", [16, 20, 3])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 70)])
def test_types_and_sizes(dtype: torch.dtype, outputs: int, size: tuple[int, int], demodulate: bool) -> None:
    """Channels beside whole vectors, strips beside whole spans; styles stay exact whatever the input's type."""
    given = operands(1, 2, 3, outputs, size) | {"clamp": 1.5 if demodulate else 1e3}
    expected = definition(**given, demodulate=demodulate)
    few = {k: v.to(dtype) if k in ("x", "weight", "b") else v for k, v in given.items()}
    few["x"] = few["x"].contiguous(memory_format=torch.channels_last)
    got = modulated_conv2d(**few, act="lrelu", demodulate=demodulate)
    assert got.dtype == dtype
    assert error(got.double(), expected) < 8 * torch.finfo(dtype).eps


@pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two strips meet in one result; here every strip has two rows, the last one."""
    from mattface.cuda_ops import _upconv

    given = operands(2, 2, 3, size=(9, 5))
    given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    whole = modulated_conv2d(**given, act="lrelu")
    monkeypatch.setattr(_upconv, "STRIP_BYTES", 1)
    assert error(modulated_conv2d(**given, act="lrelu"), whole) < 1e-12


def test_part_of_a_larger_map() -> None:
    given = operands(1, 2, 3)
    expected = modulated_conv2d(**given, act="lrelu")
    around = torch.randn(1, 6, 11, 12).double().contiguous(memory_format=torch.channels_last)
    around[:, :, 2:7, 3:10] = given["x"]
    given["x"] = around[:, :, 2:7, 3:10]
    assert error(modulated_conv2d(**given, act="lrelu"), expected) < 1e-12


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("up", "side"), [(1, 3), (1, 1), (2, 3)])
def test_gradients_of_any_order(batch: int, up: int, side: int) -> None:
    given = operands(batch, up, side, outputs=3, size=(3, 2))
    leaves = [given[name].requires_grad_() for name in ("x", "weight", "style", "b", "strength")]

    def run(x, weight, style, b, strength):  # type: ignore[no-untyped-def]
        changed = {**given, "x": x, "weight": weight, "style": style, "b": b, "strength": strength, "clamp": None}
        return modulated_conv2d(**changed, act="swish")

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def test_gradients_of_inputs_alone_take_what_is_kept() -> None:
    given = operands(1, 2, 3)
    expected = torch.autograd.grad(definition(**{**given, "x": given["x"].requires_grad_()}, demodulate=True).sum(),
                                   given["x"])[0]  # fmt: skip
    with torch.inference_mode():
        modulated_conv2d(**{**given, "x": given["x"].detach()}, act="lrelu")
    (got,) = torch.autograd.grad(modulated_conv2d(**given, act="lrelu").sum(), given["x"])
    assert error(got, expected) < 1e-12


def test_what_is_kept_follows_the_weights() -> None:
    given = operands(1, 1, 3)
    given["weight"] = torch.nn.Parameter(given["weight"], requires_grad=False)
    modulated_conv2d(**given)
    kept = _packing.packed(given["weight"], torch.float64, True)
    assert _packing.packed(given["weight"], torch.float64, True) is kept
    given["weight"].mul_(2).add_(0.1)
    assert _packing.packed(given["weight"], torch.float64, True) is not kept
    expected = definition(**given, demodulate=True)
    assert error(modulated_conv2d(**given, act="lrelu"), expected) < 1e-12
    gc.collect()
    before = len(_packing._KEPT)
    given.clear()
    gc.collect()
    assert len(_packing._KEPT) == before - 1


def test_autocast_takes_its_type() -> None:
    given = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in operands(1, 1, 3).items()}
    weight = given["weight"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = modulated_conv2d(**given, act="lrelu")
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().square().sum(), weight)
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() > 0
    assert error(y.float(), modulated_conv2d(**given, act="lrelu")) < 0.02


@pytest.mark.parametrize("up", [1, 2])
def test_compiles_as_one_graph(up: int) -> None:
    given = operands(1, up, 3)
    compiled = torch.compile(modulated_conv2d, fullgraph=True, backend="aot_eager")
    assert error(compiled(**given, act="lrelu"), modulated_conv2d(**given, act="lrelu")) < 1e-12


def test_empty_batch() -> None:
    given = operands(2, 2, 3)
    given |= {"x": given["x"][:0], "style": given["style"][:0]}
    assert modulated_conv2d(**given, act="lrelu").shape == (0, 20, 10, 14)


WRONG = [
    ({"x": torch.zeros(6, 5, 7)}, "x must have 4 dimensions"),
    ({"weight": torch.zeros(20, 6, 2, 2)}, "odd K; got"),
    ({"weight": torch.zeros(20, 5, 3, 3)}, r"weight must be \(O, 6, K, K\)"),
    ({"style": torch.zeros(2, 6)}, r"style must be \(1, 6\); got \(2, 6\)"),
    ({"up": 3}, "up must be 1 without f, or 2"),
    ({"up": 2, "weight": torch.zeros(20, 6, 1, 1)}, "up must be 1 without f, or 2 with a 3x3 weight"),
    ({"f": SEPARABLE}, "up must be 1 without f"),
    ({"modulate": "both"}, "modulate must be"),
    ({"style": torch.zeros(1, 6, device="meta")}, "style must be on the device of x"),
    ({"noise": torch.zeros(1, 1, 4, 4)}, "noise must have shape"),
    ({"b": torch.zeros(3)}, "b must have shape"),
    ({"act": "gelu"}, "act must be one of"),
    ({"clamp": -1.0}, "clamp must be"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_errors_are_one_line(case: int) -> None:
    wrong, words = WRONG[case]
    given = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in operands(1, 1, 3).items()}
    with pytest.raises(ValueError, match=words) as caught:
        modulated_conv2d(**{**given, **wrong})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("modulate", ["weight", "input"])
def test_kept_layouts_serve_every_size(modulate, dtype, last, pooled, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """oneDNN's blocked weights are made for the first size; results with memory of their own hold what was there."""
    if pooled:
        monkeypatch.setattr(_packing, "POOLED_FROM", 0)
        monkeypatch.setattr(_packing, "empty", lambda shape, kind, layout, device: torch.full(
            shape, math.nan, dtype=kind, device=device).contiguous(memory_format=layout))  # fmt: skip
    weight = torch.nn.Parameter(torch.randn(32, 16, 3, 3).to(dtype), requires_grad=False)
    for size in ((16, 16), (5, 21), (40, 3)):
        x, style = torch.randn(1, 16, *size).to(dtype), torch.rand(1, 16) + 0.5
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        got = modulated_conv2d(x, weight, style, modulate=modulate)
        expected = modulated_conv2d(x.double(), weight.double(), style.double())
        assert error(got.double(), expected) < 16 * torch.finfo(dtype).eps


def test_bf16_runs_where_onednn_rejects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors without AVX-512: torch's own convolution takes its place, and says the same."""
    given = operands(1, 1, 3, 16, (9, 7))
    few = {k: v.to(torch.bfloat16) if k in ("x", "weight", "b") else v for k, v in given.items()}
    monkeypatch.setattr(_packing, "multiplies_bf16", lambda: False)
    for name in ("_convolution_pointwise", "_reorder_convolution_weight"):
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda *_: pytest.fail("oneDNN was asked"))
    for modulate in ("weight", "input"):
        got = modulated_conv2d(**few, act="lrelu", modulate=modulate)
        assert error(got.double(), definition(**given, demodulate=True)) < 8 * torch.finfo(torch.bfloat16).eps
