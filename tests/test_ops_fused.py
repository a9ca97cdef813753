"""Fused forms equal their parts: values with and without native kernels, layouts, gradients of any order."""

from __future__ import annotations

import pytest
import torch
from seeded import seeded_input

from mattface.cuda_ops import _implementations, fused, noise_bias_act, setup_filter, upsample2d, upsample_add
from mattface.cuda_ops._bias_act import bias_act
from mattface.cuda_ops._upfirdn2d import upfirdn2d

UNBUILT = _implementations.missing("cpu")
native = pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
BLUR = setup_filter([1, 3, 3, 1])
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def parts(samples: int, channels: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        "x": seeded_input("x", (samples, channels, 9, 11)).to(dtype),
        "b": seeded_input("b", (channels,)).to(dtype),
        "scale": seeded_input("s", (samples, channels)).to(dtype),
        "strength": torch.tensor(0.3, dtype=dtype),
    }


def plain(p: dict[str, torch.Tensor], noise: torch.Tensor | None, act: str, blur: bool) -> torch.Tensor:
    """The definition, op by op in double precision."""
    x = p["x"].double()
    y = upfirdn2d(x, BLUR, padding=1, gain=4, impl="reference") if blur else x
    y = y * p["scale"].double()[:, :, None, None]
    y = y if noise is None else y + noise.double() * p["strength"].double()
    return bias_act(y, p["b"].double(), act=act, clamp=0.8, impl="reference")


@pytest.mark.parametrize("kernel", [pytest.param("native", marks=native), "composed"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("channels", "noises", "act"), [(3, 0, "lrelu"), (35, 1, "lrelu"), (16, 2, "swish")])
@pytest.mark.parametrize("blur", [False, True])
def test_values(channels, noises, act, blur, dtype, layout, kernel, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    if kernel == "composed":
        monkeypatch.setattr(fused, "runs_native", lambda x: False)
    p = parts(2, channels, dtype)
    noise = seeded_input("n", (noises, 1, 8, 10) if blur else (noises, 1, 9, 11)).to(dtype) if noises else None
    options = {"f": BLUR, "padding": 1, "filter_gain": 4.0} if blur else {}
    expected = plain(p, noise, act, blur)
    x = p["x"].contiguous(memory_format=layout)
    for overwrite in (False, True):
        given = x.clone()
        y = noise_bias_act(given, p["b"], p["scale"], noise, p["strength"], act, 0.8, overwrite=overwrite, **options)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout)
        assert float((y.double() - expected).abs().max()) < 30 * torch.finfo(dtype).eps
        assert overwrite or torch.equal(given, x)


@pytest.mark.parametrize("blur", [False, True])
def test_gradients_of_any_order(blur: bool) -> None:
    p = {k: v.requires_grad_() for k, v in parts(2, 2, torch.float64).items()}
    noise = seeded_input("n", (1, 1, 8, 10) if blur else (1, 1, 9, 11)).double()

    def run(x: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        options = {"f": BLUR, "padding": 1} if blur else {}
        return noise_bias_act(x, b, scale, noise, strength, "swish", **options)

    assert torch.autograd.gradcheck(run, tuple(p.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tuple(p.values()), fast_mode=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_upsample_add(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = seeded_input("x", (2, 3, 6, 5)).to(dtype).contiguous(memory_format=layout)
    base = seeded_input("y", (2, 3, 12, 10)).to(dtype).contiguous(memory_format=layout)
    expected = base.double() + upsample2d(x.double(), BLUR, impl="reference")
    assert float((upsample_add(x, BLUR, base.clone()).double() - expected).abs().max()) < 8 * torch.finfo(dtype).eps
    graded = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(upsample_add(graded, BLUR, base.clone()).sum(), graded)
    assert gradient.abs().sum() > 0


@native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: torch.memory_format) -> None:
    p = {k: v.contiguous(memory_format=layout) if v.ndim == 4 else v for k, v in parts(2, 3, torch.float32).items()}
    noise = torch.randn(1, 1, 9, 11)
    ops = torch.ops.mattface
    rest = (p["scale"], noise, p["strength"], "lrelu", 1.0)
    torch.library.opcheck(ops.noise_bias_act_.default, (p["x"].clone(), p["b"], *rest))
    rest = (p["scale"], noise[:, :, 1:, 1:], *rest[2:])
    torch.library.opcheck(ops.upfirdn2d_noise_bias_act.default, (p["x"], BLUR, [1] * 4, 4.0, p["b"], *rest))
    torch.library.opcheck(ops.upsample_add_.default, (torch.zeros(2, 3, 18, 22), p["x"], BLUR))


def test_compiles_as_one_graph() -> None:
    p = parts(1, 3, torch.float32)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = noise_bias_act(x, p["b"], f=BLUR, padding=2, overwrite=True)
        return upsample_add(x, BLUR, torch.ones(1, 3, 18, 22)) + y.sum()

    with torch.no_grad():
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(p["x"].clone()), run(p["x"].clone()), rtol=1e-4, atol=1e-4)


def test_refusals() -> None:
    p = parts(2, 3, torch.float32)
    with pytest.raises(ValueError, match=r"b \(C,\); got"):
        noise_bias_act(p["x"], p["b"][:2])
    with pytest.raises(ValueError, match="scale must be"):
        noise_bias_act(p["x"], p["b"], p["scale"][:1])
    with pytest.raises(ValueError, match="act must be one of"):
        noise_bias_act(p["x"], p["b"], act="gelu")
