"""Winograd convolution: equals the direct one, also in borders, parts and portions; the transforms are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mattface.cuda_ops import _packing, modulated_conv2d, winograd


def test_transforms_are_an_identity() -> None:
    """Y = A^T [(G w G^T) * (B^T d B)] A is the correlation, here along one axis in exact arithmetic's neighbourhood."""
    output, kernel, data = winograd.transforms()
    generator = np.random.default_rng(0)
    w, d = generator.normal(size=3), generator.normal(size=6)
    direct = [float(w @ d[i : i + 3]) for i in range(4)]
    np.testing.assert_allclose(output @ ((kernel @ w) * (data @ d)), direct, atol=1e-12)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "padding"), [((4, 4), 1), ((9, 6), 1), ((3, 17), 1), ((6, 7), 0), ((5, 5), 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_direct_convolution(batch, size, padding, bias, last) -> None:  # type: ignore[no-untyped-def]
    x, weight = torch.randn(batch, 5, *size), torch.randn(7, 5, 3, 3)
    b = torch.randn(7) if bias else None
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    got = winograd.convolve_tiles(x, winograd.transformed(weight), b, padding)
    expected = F.conv2d(x.double(), weight.double(), None if b is None else b.double(), padding=padding)
    assert got.shape == expected.shape
    assert float((got - expected).abs().max() / expected.abs().max()) < 3e-6


def test_portions_join(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(1, 4, 30, 9), torch.randn(4, 4, 3, 3)
    whole = winograd.convolve_tiles(x, winograd.transformed(weight))
    monkeypatch.setattr(winograd, "PORTION", 1)
    assert torch.allclose(winograd.convolve_tiles(x, winograd.transformed(weight)), whole, atol=1e-5)


def test_the_generators_convolution_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide ones only, and only without gradients."""
    calls = []
    original = _packing.convolve_tiles
    monkeypatch.setattr(_packing, "convolve_tiles", lambda *given: calls.append(1) or original(*given))
    monkeypatch.setattr(_packing, "FEWEST_CHANNELS", 16)
    monkeypatch.setattr(_packing, "FEWEST_PIXELS", 8 * 8)
    weight, style = torch.nn.Parameter(torch.randn(16, 16, 3, 3)), torch.rand(1, 16) + 0.5
    x = torch.randn(1, 16, 8, 8)
    expected = modulated_conv2d(x, weight, style)
    assert not calls
    with torch.no_grad():
        got = modulated_conv2d(x, weight, style)
        modulated_conv2d(x[:, :, :4], weight, style)
    assert len(calls) == 1
    assert float((got - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-5
