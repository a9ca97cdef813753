"""Autocast, special values, empty tensors and tensors of more than 2^31 elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mattface.cuda_ops import (
    _bias_act,
    _implementations,
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
IMPLS: list[Any] = ["reference", pytest.param("cpu", marks=native)]
TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BLUR = setup_filter([1, 3, 3, 1])
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_runs_in_the_type_of_x(half: torch.dtype, impl: Any) -> None:
    """Parameters are cast to it; their gradients arrive in their own type."""
    b, scale = torch.randn(3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    noise, strength = torch.randn(1, 1, 8, 8), torch.tensor(0.3, requires_grad=True)
    weight = torch.randn(3, 3, 1, 1, requires_grad=True)
    source = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", half):
        x = torch.nn.functional.conv2d(source, weight)
        y = noise_bias_act(x, b, scale, noise, strength, impl=impl)
        z = upsample_add(
            filter2d(bias_act(y, b, act="swish", impl=impl), BLUR, impl=impl), BLUR, torch.ones(2, 3, 16, 16)
        )
        total = z.sum() + y.float().sum()
    assert (x.dtype, y.dtype, z.dtype) == (half, half, torch.float32)  # upsample_add keeps the type of its base
    leaves = (b, scale, strength, weight, source)
    for leaf, grad in zip(leaves, torch.autograd.grad(total, leaves), strict=True):
        assert grad.dtype == leaf.dtype
        assert grad.shape == leaf.shape
        assert grad.abs().sum() > 0


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_leaves_single_precision_alone(impl: Any) -> None:
    """The convolutions and activations inside the reference would be cast otherwise."""
    x, b = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(3)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        y = bias_act(downsample2d(upsample2d(x, BLUR, impl=impl), BLUR, impl=impl), b, act="softplus", impl=impl)
        y = noise_bias_act(y, b, impl=impl)
        return y, torch.autograd.grad(y.sum(), x)[0]

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_autocast_forward_equals_explicit_casts() -> None:
    x, b = torch.randn(2, 3, 8, 8).bfloat16(), torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        got = bias_act(x, b, act="lrelu"), noise_bias_act(x, b), upsample_add(x, BLUR, torch.zeros(2, 3, 16, 16))
    with torch.no_grad():
        zeros = torch.zeros(2, 3, 16, 16)
        expected = (
            bias_act(x, b.bfloat16(), act="lrelu"),
            noise_bias_act(x, b.bfloat16()),
            upsample_add(x.float(), BLUR, zeros),
        )
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@native
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("act", _bias_act.ACTIVATIONS)
def test_special_values_pass_activations_alike(act: str, dtype: torch.dtype) -> None:
    special = [NAN, INF, -INF, 0.0, -0.0, -1e4, 1e4, -100, 100, -90, 90, 1e-4, -1e-4, 60000, -60000, 1e-7, 6e-8]
    x = torch.tensor(special * 3, dtype=dtype)  # more than one vector
    for options in ({}, {"clamp": 0.5}, {"gain": 0.0}, {"gain": -1.0}, {"alpha": 0.0}, {"clamp": 1e6}, {"clamp": 0.0}):
        one, other = (bias_act(x, None, 0, act, impl=impl, **options) for impl in ("cpu", "reference"))
        loose = torch.finfo(torch.promote_types(dtype, torch.float32)).eps * 8 + torch.finfo(dtype).eps
        assert torch.allclose(one, other, rtol=loose, atol=loose, equal_nan=True), options
    assert bias_act(x, None, 0, act, clamp=0.5)[0].isnan()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_a_clamp_beyond_the_type_has_gradients(act: str, half: torch.dtype) -> None:
    x = torch.randn(2, 3).to(half).requires_grad_()
    limited, free = (torch.autograd.grad(bias_act(x, act=act, clamp=c).sum(), x)[0] for c in (1e6, None))
    assert torch.equal(limited, free)


@native
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_special_values_spread_alike(value: float, layout: torch.memory_format) -> None:
    """To exactly those outputs whose taps meet them."""
    x = torch.randn(1, 3, 16, 17)
    x[0, 1, 5, 7] = x[0, 2, 0, 0] = value
    x = x.contiguous(memory_format=layout)
    for f in (
        BLUR,
        setup_filter(range(1, 10)),
        torch.tensor([[1.0, 2, -1], [0, 3, 1]]),
        torch.tensor([[0.0, 1], [0, 0]]),
    ):
        for op in (filter2d, upsample2d, downsample2d):
            one, other = (op(x, f, impl=impl) for impl in ("cpu", "reference"))
            assert torch.allclose(one, other, atol=1e-5, equal_nan=True)
        one, other = (upfirdn2d(x, f, [2, 3], [3, 2], [3, 2, 4, 2], impl=impl) for impl in ("cpu", "reference"))
        assert torch.allclose(one, other, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_empty_tensors(shape: tuple[int, ...], impl: Any, layout: torch.memory_format) -> None:
    """An image without pixels becomes zeros where padding gives it some; otherwise the filter does not fit."""
    x, b = (
        torch.zeros(shape).contiguous(memory_format=layout).requires_grad_(),
        torch.zeros(shape[1], requires_grad=True),
    )
    y = bias_act(x, b, act="swish", clamp=1.0, impl=impl)
    z = noise_bias_act(x, b, torch.zeros(shape[:2]), torch.zeros(1, 1, *shape[2:]), impl=impl)
    padded = upfirdn2d(x, BLUR, up=2, padding=4, impl=impl)
    assert y.shape == z.shape == x.shape
    assert padded.shape == (*shape[:2], 2 * shape[2] + 5, 2 * shape[3] + 5)
    assert not padded.any()
    for value in (y, z, padded):
        gx, gb = torch.autograd.grad(value.sum(), (x, b), allow_unused=value is padded)
        assert gx.shape == x.shape
        assert value is padded or not gb.any()
    with torch.no_grad():
        assert noise_bias_act(x.clone(), b, overwrite=True, impl=impl).shape == x.shape
    if shape[2] and shape[3]:
        base = torch.zeros(*shape[:2], 8, 8)
        assert upsample_add(x, BLUR, base, impl=impl).shape == base.shape
    else:
        with pytest.raises(ValueError, match="f must fit into the padded image"):
            filter2d(x, BLUR, impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_any_number_of_dimensions(act: str, impl: Any) -> None:
    assert bias_act(torch.tensor(1.0), act=act, gain=1.0, impl=impl).shape == ()
    for shape in ((4,), (3, 4), (2, 3, 4), (2, 3, 4, 5, 6)):
        x = torch.randn(shape)
        for dim in range(-len(shape), len(shape)):
            b = torch.randn(shape[dim])
            wide = b.reshape([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
            expected = bias_act(x + wide, act=act, impl="reference")
            assert torch.allclose(bias_act(x, b, dim, act, impl=impl), expected, atol=1e-6)


def free_gigabytes() -> float:
    """Memory that this machine can give."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20


@pytest.mark.slow
@native
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("op", ["bias_act", "filter2d", "noise_bias_act"])
def test_more_than_two_to_the_31_elements(op: str, layout: torch.memory_format) -> None:
    """Rows at the beginning, around element 2^31 and at the end equal the reference on those rows alone."""
    if not Path("/proc/meminfo").exists() or free_gigabytes() < 14:
        pytest.skip("expected 14 GB of free memory")
    height, width, channels = 32769, 16384, 4
    x = torch.zeros(1, channels, height, width, dtype=torch.bfloat16).contiguous(memory_format=layout)
    rows = [slice(0, 8), slice(height // 2, height // 2 + 8), slice(height - 8, height)]
    for part in rows:
        x[:, :, part, -64:] = torch.randn(1, channels, 8, 64)
    b, scale = torch.randn(channels).bfloat16(), torch.randn(1, channels)
    run = {
        "bias_act": lambda t, impl: bias_act(t, b, act="lrelu", impl=impl),
        "filter2d": lambda t, impl: filter2d(t, BLUR, impl=impl),
        "noise_bias_act": lambda t, impl: noise_bias_act(t, b, scale, overwrite=True, impl=impl),
    }[op]
    cuts = [x[:, :, part, -64:].clone() for part in rows]
    with torch.no_grad():
        y = run(x, "cpu")
    assert y.numel() > 2**31
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2)) if op == "filter2d" else (slice(None),) * 4
    for part, cut in zip(rows, cuts, strict=True):
        expected = run(cut, "reference")
        assert torch.allclose(y[:, :, part, -64:][inner].float(), expected[inner].float(), rtol=1e-2, atol=1e-5)
