"""Types, layouts, views, sizes and special values: native kernels and reference agree, and nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mattface.cuda_ops import (
    _implementations,
    _upfirdn2d,
    bias_act,
    downsample2d,
    filter2d,
    noise_bias_act,
    setup_filter,
    upfirdn2d,
    upsample2d,
    upsample_add,
)

UNBUILT = _implementations.missing("cpu")
native = pytest.mark.skipif(UNBUILT is not None, reason=f"CPU kernels: {UNBUILT}")
IMPLS = ["reference", pytest.param("cpu", marks=native)]
TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
BLUR = setup_filter([1, 3, 3, 1])
Op = Callable[[torch.Tensor, str], torch.Tensor]


def values(x: torch.Tensor, *shape: int) -> torch.Tensor:
    """Reproducible values of x's type that every type holds exactly."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 16).round().div(16).to(x.dtype)


def fuse(x: torch.Tensor, impl: Any, **options: Any) -> torch.Tensor:
    samples, channels, height, width = x.shape
    cut = 1 if "f" in options else 0
    noise = values(x, samples, 1, height - cut, width - cut)
    scale, strength = values(x, samples, channels), torch.tensor(0.25, dtype=x.dtype)
    return noise_bias_act(x, values(x, channels), scale, noise, strength, clamp=2.0, impl=impl, **options)


def add(x: torch.Tensor, impl: Any) -> torch.Tensor:
    base = values(x, *x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    return upsample_add(x, BLUR, base.contiguous(memory_format=_upfirdn2d.layout_of(x)), impl=impl)


EVERY: dict[str, Op] = {
    "upfirdn2d": lambda x, impl: upfirdn2d(x, BLUR, up=[2, 3], down=[3, 2], padding=[3, 2, 4, 1], impl=impl),
    "long filter": lambda x, impl: upfirdn2d(x, torch.arange(9.0) / 36, padding=4, impl=impl),
    "filter2d": lambda x, impl: filter2d(x, torch.tensor([[1.0, 2, -1], [0, 3, 1]]), impl=impl),
    "upsample2d": lambda x, impl: upsample2d(x, BLUR, impl=impl),
    "downsample2d": lambda x, impl: downsample2d(x, BLUR, impl=impl),
    "bias_act": lambda x, impl: bias_act(x, values(x, x.shape[1]), act="lrelu", clamp=1.0, impl=impl),
    "noise_bias_act": lambda x, impl: fuse(x, impl),
    "filter and noise_bias_act": lambda x, impl: fuse(x, impl, f=BLUR, padding=1, filter_gain=4.0),
    "upsample_add": add,
}


@pytest.mark.parametrize("op", EVERY)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_type_and_layout_are_kept_with_one_rounding(op: str, impl: str, dtype: torch.dtype, layout: Any) -> None:
    x = values(torch.empty(0, dtype=dtype), 2, 5, 12, 10).contiguous(memory_format=layout)
    before = x.clone()
    with torch.no_grad():
        y, exact = EVERY[op](x, impl), EVERY[op](x.double(), "reference")
    single = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert (
        (y.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps / 2 + 40 * single * exact.abs().max()
    ).all()
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


@native
@pytest.mark.parametrize("op", EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_implementations_differ_by_one_rounding(op: str, dtype: torch.dtype) -> None:
    x = values(torch.empty(0, dtype=dtype), 2, 5, 12, 10)
    one, other = (EVERY[op](x, impl).double() for impl in ("cpu", "reference"))
    assert ((one - other).abs() <= other.abs() * torch.finfo(dtype).eps + 1e-5).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_kept_in_single_precision(impl: str, dtype: torch.dtype) -> None:
    """A sum in half precision would stop growing: 4096 + 1 is 4096 in float16."""
    ones = torch.ones(1, 1, 70, 70, dtype=dtype)
    total = upfirdn2d(ones, torch.ones(65, 65), impl=impl)
    assert torch.equal(total, torch.full_like(total, 65.0 * 65))
    loud = torch.full((1, 2, 3, 3), 60000.0, dtype=torch.float16)
    y = bias_act(loud, torch.full((2,), 60000.0, dtype=torch.float16), act="swish", gain=0.1, impl=impl)
    assert torch.allclose(y, torch.tensor(12000.0, dtype=torch.float16))


def views(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The same kinds of values in memory of other orders."""
    b, c, h, w = shape
    return {
        "sliced": torch.randn(b, c, h, 2 * w)[..., ::2],
        "part": torch.randn(b, c + 2, h + 1, w + 3)[:, 1:-1, 1:, 2:-1],
        "part of channels last": torch.randn(b, h, w, c + 2)[..., 1:-1].permute(0, 3, 1, 2),
        "transposed": torch.randn(b, c, w, h).mT,
        "batch last": torch.randn(c, h, w, b).permute(3, 0, 1, 2),
        "expanded pixels": torch.randn(b, c, 1, 1).expand(shape),
        "expanded batch": torch.randn(1, c, h, w).expand(shape),
        "one value": torch.randn(1, 1, 1, 1).expand(shape),
    }


@pytest.mark.parametrize("op", EVERY)
@pytest.mark.parametrize("impl", IMPLS)
def test_views_equal_dense_memory(op: str, impl: str) -> None:
    for name, x in views((2, 4, 7, 6)).items():
        expected = EVERY[op](x.contiguous(), impl)
        assert torch.allclose(EVERY[op](x, impl), expected, atol=1e-5), name


@pytest.mark.parametrize("impl", IMPLS)
def test_operands_may_be_views(impl: Any) -> None:
    x, wide = torch.randn(2, 4, 6, 6), torch.randn(4, 8)
    views = {"sliced": wide[0, ::2], "column": wide[:, 3], "expanded": wide[0, :1].expand(4)}
    for b in views.values():
        assert torch.equal(bias_act(x, b, impl=impl), bias_act(x, b.clone(), impl=impl))
        noise, scale = torch.randn(2, 1, 5, 14)[..., ::2], wide[:2, ::2]
        got = noise_bias_act(x, b, scale, noise, wide[1, 1], f=BLUR.T, padding=[2, 1], impl=impl)
        expected = noise_bias_act(
            x, b.clone(), scale.clone(), noise.clone(), wide[1, 1].clone(), f=BLUR, padding=[2, 1], impl=impl
        )  # fmt: skip
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_filters_of_any_type(impl: Any) -> None:
    x = torch.randn(1, 2, 8, 8)
    for dtype in TYPES:
        assert torch.allclose(filter2d(x, BLUR.to(dtype), impl=impl), filter2d(x, BLUR, impl=impl), atol=1e-6)


@native
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_path_copies_nothing(layout: Any, dtype: torch.dtype) -> None:
    """What is allocated is the result (nothing, in place), and nothing is cloned or converted."""
    kind = torch.empty(0, dtype=dtype)
    x, base = (values(kind, 2, 5, s, s).contiguous(memory_format=layout) for s in (12, 24))
    b, scale, noise = values(kind, 5), values(kind, 2, 5), torch.randn(1, 1, 12, 12)
    small = noise[..., 1:, 1:].contiguous()
    calls: dict[str, tuple[Callable[[], torch.Tensor], torch.Tensor | None]] = {
        "upfirdn2d": (lambda: upfirdn2d(x, BLUR, up=[2, 3], down=[3, 2], padding=[3, 2, 4, 1]), None),
        "filter2d": (lambda: filter2d(x, BLUR), None),
        "upsample2d": (lambda: upsample2d(x, BLUR), None),
        "downsample2d": (lambda: downsample2d(x, BLUR), None),
        "bias_act": (lambda: bias_act(x, b, act="lrelu"), None),
        "noise_bias_act": (lambda: noise_bias_act(x, b, scale, noise), None),
        "with a filter": (lambda: noise_bias_act(x, b, scale, small, f=BLUR, padding=1), None),
        "overwrite": (lambda: noise_bias_act(x, b, scale, noise, overwrite=True), x),
        "upsample_add": (lambda: upsample_add(x, BLUR, base), base),
    }
    for name, (call, target) in calls.items():
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.no_grad(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            y = call()
        events = profile.events()
        assert not {e.name for e in events} & {"aten::clone", "aten::_to_copy", "aten::copy_", "aten::contiguous"}, name
        allocated = sum(max(0, e.self_cpu_memory_usage) for e in events if e.name != "[memory]")
        assert allocated <= (y.nbytes if target is None else 0) + 256, name
        assert target is None or y is target, name
