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


@pytest.mark.parametrize("kernel", [pytest.param("native", marks=native), "reference"])
def test_overwrite_only_where_it_is_safe(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was given away takes the result, unless gradients are wanted or it is not dense."""
    if kernel == "reference":
        monkeypatch.setattr(fused, "runs_native", lambda x: False)
    p = parts(2, 3, torch.float32)
    base = torch.zeros(2, 3, 18, 22)
    with torch.no_grad():
        x = p["x"].clone()
        assert noise_bias_act(x, p["b"], overwrite=True) is x
        assert noise_bias_act(x, p["b"], impl="reference", overwrite=True) is not x
        assert upsample_add(x, BLUR, base) is base
        wide = p["x"].repeat(1, 1, 1, 2)[..., ::2]
        before = wide.clone()
        assert noise_bias_act(wide, p["b"], overwrite=True) is not wide
        assert torch.equal(wide, before)
        row = torch.zeros(1, 3, 18, 22).expand(2, -1, -1, -1)
        assert torch.equal(upsample_add(x, BLUR, row), upsample_add(x, BLUR, torch.zeros(2, 3, 18, 22)))
        assert not row.any()
    source = p["x"].clone().requires_grad_()
    x = source.exp()  # its value is needed by its own gradient
    before = x.detach().clone()
    y = noise_bias_act(x, p["b"], noise=torch.ones(1, 1, 9, 11), overwrite=True)
    assert torch.equal(x, before)
    y.sum().backward()
    assert source.grad is not None
    target = torch.zeros(2, 3, 18, 22)
    upsample_add(source, BLUR, target)
    assert not target.any()


def test_overwriting_what_a_gradient_needs_is_an_error() -> None:
    source = torch.randn(1, 3, 4, 4, requires_grad=True)
    x = source.exp()
    with torch.no_grad():
        noise_bias_act(x.detach(), torch.zeros(3), overwrite=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()
