"""modulated_depthwise and inverse_haar: values against plain arithmetic, layouts, types, gradients, bad calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mattface.cuda_ops import inverse_haar, modulated_depthwise


def plain(x, weight, style, bands):  # type: ignore[no-untyped-def]
    """The definition in float64, pixel by pixel of the blocks."""
    x, weight, style = x.double(), weight.double(), style.double()
    if bands is not None:
        a, b, c, d = (x * bands.double()[:, :, None, None]).chunk(4, 1)
        y = torch.zeros(len(x), len(weight), 2 * x.shape[2], 2 * x.shape[3], dtype=torch.float64)
        y[:, :, ::2, ::2], y[:, :, ::2, 1::2] = (a + b + c + d) / 2, (a + b - c - d) / 2
        y[:, :, 1::2, ::2], y[:, :, 1::2, 1::2] = (a - b + c - d) / 2, (a - b - c + d) / 2
        x = y
    return F.conv2d(x * style[:, :, None, None], weight, padding=1, groups=len(weight))


def case(channels: int, size: tuple[int, int], batch: int, transform: bool, dtype=torch.float32):  # type: ignore[no-untyped-def]
    rng = torch.Generator().manual_seed(channels)
    inputs = channels * (4 if transform else 1)
    x = torch.randn(batch, inputs, *size, generator=rng).to(dtype)
    weight, style = torch.randn(channels, 1, 3, 3, generator=rng), torch.randn(batch, channels, generator=rng)
    return x, weight, style, torch.randn(batch, inputs, generator=rng) if transform else None


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("channels", "size", "batch"),
    [(1, (1, 1), 1), (3, (5, 4), 2), (16, (7, 9), 1), (35, (40, 3), 2), (64, (6, 300), 1)],
)
def test_values(channels: int, size: tuple[int, int], batch: int, last: bool, transform: bool) -> None:
    x, weight, style, bands = case(channels, size, batch, transform)
    layout = torch.channels_last if last else torch.contiguous_format
    made = modulated_depthwise(x.contiguous(memory_format=layout), weight, style, bands)
    assert torch.allclose(made.double(), plain(x, weight, style, bands), atol=2e-5)


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.1), (torch.float64, 1e-12)])
def test_other_types(dtype: torch.dtype, near: float, transform: bool) -> None:
    x, weight, style, bands = case(32, (9, 8), 2, transform, dtype)
    made = modulated_depthwise(x.contiguous(memory_format=torch.channels_last), weight.to(dtype), style, bands)
    assert made.dtype == dtype
    wanted = plain(x, weight.to(dtype), style, bands)
    assert (made.double() - wanted).abs().max() < near * max(1.0, wanted.abs().max().item() / 8)


def test_a_part_of_a_larger_map_is_read_in_place() -> None:
    x, weight, style, bands = case(16, (20, 20), 1, True)
    part = x.contiguous(memory_format=torch.channels_last)[:, :, 3:17, 5:16]
    copied = modulated_depthwise(part.clone(), weight, style, bands)
    assert torch.allclose(modulated_depthwise(part, weight, style, bands), copied, atol=1e-6)


@pytest.mark.parametrize("transform", [False, True])
def test_gradients_equal_finite_differences(transform: bool) -> None:
    x, weight, style, bands = case(2, (3, 4), 2, transform, torch.float64)
    given = [t.double().requires_grad_(True) for t in (x, weight, style, bands) if t is not None]
    assert torch.autograd.gradcheck(modulated_depthwise, given)


def test_traced_shapes_and_schema() -> None:
    x, weight, style, bands = case(8, (6, 5), 1, True)
    x = x.contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.mattface.modulated_depthwise.default, (x, weight, style, bands))


def test_inverse_haar_keeps_energy_and_means() -> None:
    x = torch.randn(2, 12, 5, 6, generator=torch.Generator().manual_seed(0))
    whole = inverse_haar(x)
    assert whole.shape == (2, 3, 10, 12)
    assert torch.allclose(whole.square().sum(), x.square().sum(), rtol=1e-5)
    assert torch.allclose(F.avg_pool2d(whole, 2), x[:, :3] / 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"x must be \(B, 4 C, H, W\); got shape \(2, 6, 5, 6\)"):
        inverse_haar(x[:, :6])


def test_calls_that_do_not_fit_are_rejected() -> None:
    x, weight, style, bands = case(4, (5, 5), 1, True)
    with pytest.raises(ValueError, match="x must have 4 channels"):
        modulated_depthwise(x, weight, style)
    with pytest.raises(ValueError, match=r"bands must be \(1, 16\); got \(1, 4\)"):
        modulated_depthwise(x, weight, style, style)
    with pytest.raises(ValueError, match=r"weight \(C, 1, 3, 3\)"):
        modulated_depthwise(x, weight[:, :, 1:], style, bands)
    with pytest.raises(RuntimeError, match="cannot run"):
        modulated_depthwise(x, weight, style, bands, impl="cuda")
