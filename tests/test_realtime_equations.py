"""The real-time networks: the papers' equations written down step by step, their ablations, shapes and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_swappers import FOLDED, NAMES, inputs, network

from mattface.errors import UsageError
from mattface.realtime.methods import alphaface_small, facechanger, magicmask
from mattface.realtime.methods.blocks import instance_affine


def test_alphaface_unit_is_the_published_adain_of_a_one_pixel_map() -> None:
    unit = network("alphaface").inject[0].first
    x, code = torch.randn(2, 12, 8, 8), torch.randn(2, 16)
    values = unit.style(code)[..., None, None]
    means = x.mean((2, 3), keepdim=True).repeat(1, 2, 1, 1)
    stds = x.std((2, 3), keepdim=True).repeat(1, 2, 1, 1)
    adain = (values - values.mean((2, 3), keepdim=True)) / torch.full_like(values, 1e-4) * stds + means
    scale, shift = ((values + adain) / 2).chunk(2, 1)
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), unit.conv.weight, unit.conv.bias)
    y = y - y.mean((2, 3), keepdim=True)
    y = y / torch.sqrt(y.square().mean((2, 3), keepdim=True) + 1e-8)
    torch.testing.assert_close(unit(x, code), F.relu(y * scale + shift), atol=1e-5, rtol=1e-5)


def test_one_directional_injection_ignores_the_means_of_the_target() -> None:
    crossed, plain = network("alphaface"), network("alphaface", injection="one-directional")
    assert crossed.state_dict().keys() == plain.state_dict().keys()
    x, code = torch.randn(1, 12, 8, 8), torch.randn(1, 16)
    for net, follows in ((crossed, True), (plain, False)):
        unit = net.inject[0].second
        moved = unit(x + 3, code) - unit(x, code)  # the instance norm takes the offset out; only eq. 2 sees it
        assert (moved.abs().max() > 0.1) == follows


def test_caii_follows_equations_1_and_2() -> None:
    block = network("alphaface-paper").inject[0]
    x, code = torch.randn(2, 12, 8, 8) * 2 + 1, torch.randn(2, 16)
    z_t, phi = block.norm(x), block.project(code)
    expected = torch.empty_like(x)
    for b in range(2):
        mu, sigma = phi[b].mean(), phi[b].std(correction=0)
        flat = z_t[b].flatten(1)
        mean, std = flat.mean(1), torch.sqrt(flat.var(1, correction=0) + 1e-5)
        normed = (z_t[b] - mean[:, None, None]) / std[:, None, None]
        hat = F.relu(block.conv((sigma * normed + mu)[None]))[0]  # eq. 1
        z_s = std * (phi[b] - mu) / (sigma + 1e-5) + mean + phi[b]  # eq. 2
        expected[b] = x[b] + block.conv_out((hat * z_s[:, None, None] + z_s[:, None, None])[None])[0]
    torch.testing.assert_close(block(x, code), expected, atol=1e-5, rtol=1e-4)


def test_alphaface_paper_ablations() -> None:
    assert network("alphaface-paper", batch_norm=False).inject[0].norm is None
    one_way = network("alphaface-paper", injection="one-directional")
    both = network("alphaface-paper")
    given = inputs(both)
    assert not torch.allclose(both(*given), one_way(*given))
    block = one_way.inject[0]
    x, code = torch.randn(1, 12, 8, 8), torch.randn(1, 16)
    phi = block.project(code)[..., None, None]
    sigma, mu = torch.std_mean(phi, 1, correction=0, keepdim=True)
    hat = F.relu(block.conv(sigma * F.instance_norm(block.norm(x), eps=1e-5) + mu))
    torch.testing.assert_close(block(x, code), x + block.conv_out(hat * phi + phi), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", facechanger.NORMS)
def test_facechanger_follows_equation_1(norm: str) -> None:
    block = network("facechanger", norm=norm).inject[0]
    if block.norm is not None:
        block.norm.running_mean.uniform_(-1, 1)
        block.norm.running_var.uniform_(0.5, 2)
    assert (block.norm is not None) == ("bn" in norm)
    x, code = torch.randn(2, 12, 8, 8), torch.randn(2, 16)
    z = x if block.norm is None else block.norm(x)
    z = F.instance_norm(z, eps=1e-5) if norm in ("bn+in", "in") else z
    c = block.project(code)[..., None, None]
    y = z * c + c  # eq. 1
    for k, conv in enumerate(block.convs):
        y = conv(y if k == 0 else F.relu(y))
    torch.testing.assert_close(block(x, code), x + y, atol=1e-5, rtol=1e-4)


def test_arie_follows_equations_1_to_4() -> None:
    block = network("magicmask").inject[0]
    x, code = torch.randn(2, 12, 8, 8), torch.randn(2, 16)
    instance = F.instance_norm(block.conv(block.norm(x)), eps=1e-5)  # eq. 1
    a_s = (instance.mean(1).flatten(1) * block.gate(code)).softmax(1).view(2, 1, 8, 8)  # eq. 2
    a_c = (instance.mean((2, 3)) * block.project(code)).softmax(1)[..., None, None]  # eq. 3
    z = a_s * instance + instance * a_c + block.project(code)[..., None, None]  # eq. 4
    torch.testing.assert_close(block(x, code), x + F.relu(block.conv_out(F.relu(z))), atol=1e-5, rtol=1e-4)
    assert a_s.sum((1, 2, 3)).allclose(torch.ones(2))
    assert a_c.allclose(torch.full_like(a_c, 1 / 12), atol=1e-6), "instance norm leaves no mean: eq. 3 cannot choose"


def test_channel_attention_of_features_chooses_channels() -> None:
    block = network("magicmask", channel_attention="features").inject[0]
    x, code = torch.randn(2, 12, 8, 8), torch.randn(2, 16)
    features = block.conv(block.norm(x))
    instance = F.instance_norm(features, eps=1e-5)
    a_s = (instance.mean(1).flatten(1) * block.gate(code)).softmax(1).view(2, 1, 8, 8)
    a_c = (features.mean((2, 3)) * block.project(code)).softmax(1)[..., None, None]
    z = a_s * instance + instance * a_c + block.project(code)[..., None, None]
    torch.testing.assert_close(block(x, code), x + F.relu(block.conv_out(F.relu(z))), atol=1e-5, rtol=1e-4)
    assert a_c.std() > 1e-3


def test_geometry_attention_follows_equations_5_and_6() -> None:
    attention = magicmask.IdentityAttention(8, 2)
    z, e = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        value = attention.value(z)[..., part]
        for tokens in (z, e):
            query, key = attention.query(tokens)[..., part], attention.key(tokens)[..., part]
            heads.append((query @ key.transpose(1, 2) / 2).softmax(-1) @ value)
    expected = attention.out(torch.cat([heads[0] + heads[1], heads[2] + heads[3]], -1))
    torch.testing.assert_close(attention(z, e), expected)


def test_magicmask_without_its_geometry_branch_takes_two_inputs() -> None:
    with_branch, without = network("magicmask"), network("magicmask", geometry=False)
    assert with_branch.input_names == ("target", "code", "geometry") and without.input_names == ("target", "code")
    assert set(with_branch.state_dict()) - set(without.state_dict()) == {
        k for k in with_branch.state_dict() if k.startswith("geometry.")
    }
    target, code, maps = inputs(with_branch)
    assert without(target, code).shape == target.shape
    assert not torch.allclose(with_branch(target, code, maps), with_branch(target, code, torch.zeros_like(maps)))


# Shapes, ranges and gradients


@NAMES
def test_networks_keep_shape_range_and_batch_independence(name: str) -> None:
    net = network(name)
    given = inputs(net)
    with torch.inference_mode():
        both = net(*given)
        second = net(*(x[1:] for x in given))
        other = net(given[0], given[1].flip(0), *given[2:])
    assert both.shape == (2, 3, 32, 32) and both.abs().max() <= 1
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both, other, atol=1e-5)  # the identity matters


@NAMES
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = network(name).train()
    net(*inputs(net)).square().mean().backward()
    without = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    if name in ("alphaface", "magicmask"):  # a bias before an instance norm cannot matter
        without = [k for k in without if not k.endswith("conv.bias")]
    assert without == []


def test_the_small_network_predicts_its_matte_and_uses_the_identity() -> None:
    torch.manual_seed(0)
    net = alphaface_small.build_network(FOLDED)
    given = inputs(net)
    both = net(*given)
    assert both.shape == (2, 4, 32, 32) and both.abs().max() <= 1
    assert not torch.allclose(both, net(given[0], given[1].flip(0)), atol=1e-5)
    both.square().mean().backward()
    without = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [k for k in without if not k.endswith("conv.bias")] == []  # a bias before an instance norm cannot matter


def test_sizes_that_cannot_be_folded_are_rejected() -> None:
    for wrong in ({"size": 36}, {"fold": 0}, {"widths": (4, 6, 12)}, {"template": "whole"}):
        with pytest.raises(UsageError, match=r"size must be divisible|template must be one of"):
            replace(FOLDED, **wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 5])
def test_the_gradient_of_instance_affine_is_that_of_its_formula(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, 4, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    scale, shift = (torch.randn(2, width, dtype=torch.promote_types(dtype, torch.float32)) for _ in range(2))
    scale, shift = scale.requires_grad_(), shift.requires_grad_()
    wide = x.to(scale.dtype)
    mean, variance = wide.mean((2, 3), keepdim=True), wide.var((2, 3), correction=0, keepdim=True)
    plain = (wide - mean) / (variance + 1e-5).sqrt() * scale[..., None, None] + shift[..., None, None]
    own = instance_affine(x, scale, shift, 1e-5)
    with torch.no_grad():
        torch.testing.assert_close(instance_affine(x, scale, shift, 1e-5), own)
    loose = {"atol": 0.05, "rtol": 0.05} if dtype == torch.bfloat16 else {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(own.to(plain.dtype), plain, **loose)
    weight = torch.randn_like(plain)
    found = torch.autograd.grad(own, (x, scale, shift), weight.to(own.dtype))
    expected = torch.autograd.grad(plain, (x, scale, shift), weight)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **(loose if dtype == torch.float64 else {"atol": 0.2, "rtol": 0.1}))
