"""The real-time networks: the original's outputs, the papers' equations, ablations, checkpoints, refusals, geometry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded import repeated_state, seeded_input, seeded_state, summary
from torch import nn

import mattface
from mattface import pipeline, weights
from mattface.data.topology import SIXTY_EIGHT
from mattface.embed import Embedder
from mattface.embed.arcface import iresnet50
from mattface.errors import UsageError, WeightsError
from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.methods.contract import CropSpec, Method
from mattface.parse import Parser
from mattface.realtime.methods import alphaface, alphaface_paper, facechanger, magicmask
from mattface.realtime.methods.aligned import AlignedMethod, IdentityCoder, build_trained, save_checkpoint
from mattface.realtime.methods.blocks import instance_affine
from mattface.realtime.methods.geometry import depth_map, geometry_maps, landmark_map
from mattface.vocabulary import Crop, Face
from mattface.weights import layouts
from mattface.weights.adopt import adopt
from mattface.weights.convert import convert
from mattface.weights.layouts.arcface import folded_arcface_shapes

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")
SIZES = {"size": 32, "widths": (4, 6, 8, 12), "blocks": 2, "code": 16}
TINY = {
    "alphaface": alphaface.Config(**SIZES, decoder=(8, 6, 5, 5, 5)),
    "alphaface-paper": alphaface_paper.Config(**SIZES, decoder=(8, 6, 5)),
    "facechanger": facechanger.Config(**SIZES, decoder=(8, 6, 5)),
    "magicmask": magicmask.Config(**SIZES, decoder=(8, 6, 5), stem=(4, 4, 4, 8), layers=1, heads=2),
}
MODULES = {
    "alphaface": alphaface,
    "alphaface-paper": alphaface_paper,
    "facechanger": facechanger,
    "magicmask": magicmask,
}
FOLDED = alphaface.Config(size=32, widths=(6, 12), blocks=2, decoder=(8,), code=16, template="ffhq", fold=4)
NAMES = pytest.mark.parametrize("name", list(TINY))


def module(name: str) -> ModuleType:
    return MODULES[name]


def network(name: str, **changes):
    torch.manual_seed(0)
    return module(name).build_network(replace(TINY[name], **changes)).eval()


def inputs(net, batch: int = 2, side: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(1)
    given = [torch.rand(batch, *shape) * 2 - 1 for shape in net.input_shapes(side)]
    given[1] = F.normalize(given[1], dim=1)
    return given


def face_mesh(size: int) -> np.ndarray:
    mesh = topology().mean * (0.25 * size)
    mesh[:, :2] += size / 2
    return mesh


def crop(size: int = 32, seed: int = 0) -> Crop:
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    mesh = face_mesh(size)
    return Crop(pixels, np.eye(3), mesh, five_points(mesh))


class Means(nn.Module):
    """An identity network: sixteen means of the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)


def coder(matrix: torch.Tensor | None = None, framing: str = "whole") -> IdentityCoder:
    def whole(mesh: np.ndarray | None, points: np.ndarray) -> np.ndarray:
        return np.diag([0.5, 0.5, 1.0])

    return IdentityCoder(Embedder("means", Means(), 16, 16, whole, device=CPU), framing, matrix)


def method(name: str, size: int = 128) -> AlignedMethod:
    net = network(name, size=size)
    return AlignedMethod(name, CropSpec("arcface", size), net, coder(), Parser("mesh"), "tiny", CPU, torch.float32)


# The original's outputs


@pytest.mark.slow
def test_alphaface_computes_what_the_original_computes() -> None:
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    net = alphaface.build_network(alphaface.Config())
    weights.load_strictly(net, layouts.alphaface_swapper(seeded_state(shapes, False)), "AlphaFace's swapper")
    net = net.eval().to(memory_format=torch.channels_last)
    target = torch.sigmoid(seeded_input("alphaface_target", (1, 3, 256, 256))) * 2 - 1
    code = F.normalize(seeded_input("alphaface_id", (1, 512)), dim=1)
    with torch.inference_mode():
        fused = net.fuse(target, code)
        image = (net.decoder(fused) + 1) / 2
    expected = np.load(GOLDEN / "alphaface_swapper.npz")
    got = {"fused": fused[:, ::8, ::4, ::4], "image": image[:, :, ::2, ::2], "image_mean": image.mean((2, 3))}
    for key, value in got.items():
        reference = torch.from_numpy(expected[key])
        assert value.shape == reference.shape
        assert float((value - reference).abs().max() / reference.abs().max()) < 1e-4, key


def test_the_public_layout_fits_the_official_network_and_nothing_else() -> None:
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    with torch.device("meta"):
        own = {k: tuple(v.shape) for k, v in alphaface.build_network(alphaface.Config()).state_dict().items()}
        state = {k: torch.empty(s) for k, s in shapes.items()}
    assert {k: tuple(v.shape) for k, v in layouts.alphaface_swapper(state).items()} == own
    assert sum(np.prod(s) for s in own.values()) == 138_578_691
    with pytest.raises(WeightsError, match="unknown keys"):
        layouts.alphaface_swapper(state | {"E.batch_norm_0.weight": torch.empty(3)})


def test_the_folded_identity_network_is_the_unfolded_one() -> None:
    """AlphaFace's copy of ArcFace, made here from seeded weights by folding the batch norms behind convolutions."""
    shapes = json.loads((GOLDEN / "arcface_iresnet50_keys.json").read_text())
    folded = fold(seeded_state(shapes, False))
    assert len(folded) == 263
    net = iresnet50().eval()
    weights.load_strictly(net, layouts.folded_arcface(folded), "the ArcFace w600k ResNet-50")
    with torch.inference_mode():
        got = net(seeded_input("iresnet_img", (2, 3, 112, 112)))
    expected = F.normalize(torch.from_numpy(np.load(GOLDEN / "arcface_iresnet50.npz")["embedding"]))
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


def fold(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """arcface_torch's names with every batch norm that follows a convolution folded into it."""
    out = dict(state)
    pairs = [("conv1", "bn1", "conv1")]
    for unit in sorted({k.rsplit(".", 2)[0] for k in state if ".conv1." in k}):
        pairs += [(f"{unit}.conv1", f"{unit}.bn2", f"{unit}.conv1"), (f"{unit}.conv2", f"{unit}.bn3", f"{unit}.conv2")]
        if f"{unit}.downsample.0.weight" in state:
            pairs.append((f"{unit}.downsample.0", f"{unit}.downsample.1", f"{unit}.downsample"))
    for conv, norm, name in pairs:
        weight = out.pop(f"{conv}.weight")
        gamma, beta, mean, variance = (
            out.pop(f"{norm}.{k}") for k in ("weight", "bias", "running_mean", "running_var")
        )
        out.pop(f"{norm}.num_batches_tracked", None)
        gain = gamma / torch.sqrt(variance + 1e-5)
        out[f"{name}.weight"], out[f"{name}.bias"] = weight * gain[:, None, None, None], beta - mean * gain
    renamed = {"fc.": "fc5.", "features.": "bn3."}
    for old, new in renamed.items():
        for key in [k for k in out if k.startswith(old)]:
            out[new + key.removeprefix(old)] = out.pop(key)
    return out


# The papers' equations, written down step by step


def test_alphaface_unit_is_the_published_adain_of_a_one_pixel_map() -> None:
    unit = network("alphaface").inject[0].first
    x, code = torch.randn(2, 12, 8, 8), torch.randn(2, 16)
    values = unit.style(code)[..., None, None]
    means = x.mean((2, 3), keepdim=True).repeat(1, 2, 1, 1)
    spreads = x.std((2, 3), keepdim=True).repeat(1, 2, 1, 1)
    adain = (values - values.mean((2, 3), keepdim=True)) / torch.full_like(values, 1e-4) * spreads + means
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
        mean, spread = flat.mean(1), torch.sqrt(flat.var(1, correction=0) + 1e-5)
        normed = (z_t[b] - mean[:, None, None]) / spread[:, None, None]
        hat = F.relu(block.conv((sigma * normed + mu)[None]))[0]  # eq. 1
        z_s = spread * (phi[b] - mu) / (sigma + 1e-5) + mean + phi[b]  # eq. 2
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
    assert a_s.sum((1, 2, 3)).allclose(torch.ones(2)) and a_c.sum(1).allclose(torch.ones(2, 1, 1))


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
    net = alphaface.build_network(FOLDED)
    given = inputs(net)
    both = net(*given)
    assert both.shape == (2, 4, 32, 32) and both.abs().max() <= 1
    assert not torch.allclose(both, net(given[0], given[1].flip(0)), atol=1e-5)
    both.square().mean().backward()
    without = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [k for k in without if not k.endswith("conv.bias")] == []  # a bias before an instance norm cannot matter


def test_sizes_that_cannot_be_folded_are_refused() -> None:
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


# Behind the method contract


@NAMES
def test_a_swap_in_a_picture_leaves_everything_outside_the_matte(name: str) -> None:
    built = method(name)
    assert isinstance(built, Method)
    mesh = face_mesh(100) + np.array([30, 20, 0])
    face = Face(np.array([30.0, 20, 130, 120]), 0.9, five_points(mesh), mesh)
    swapper = pipeline.Swapper(built, Found(face), Same(), None, CPU)
    source, target = (np.random.default_rng(k).integers(0, 256, (160, 180, 3), np.uint8) for k in range(2))
    result = swapper.swap(source, target)
    inside = result.matte > 0
    assert 0.02 < inside.mean() < 0.5
    assert (result.image[~inside] == target[~inside]).all() and (result.image[inside] != target[inside]).mean() > 0.5
    assert result.report["engine"] == "eager" and result.report["faces"][0]["crop_size"] == 128


def test_a_predicted_matte_is_the_matte_and_its_ends_are_certain(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "alphaface", FOLDED, alphaface.build_network(FOLDED))
    monkeypatch.setattr("mattface.realtime.methods.aligned.load_embedder", lambda part, device: coder().embedder)
    built = alphaface.build(str(path), CPU, torch.float32)
    assert built.crop == CropSpec("ffhq", 32)
    code, matte = built.encode(crop()), torch.linspace(-1, 1, 32)
    built.run = lambda target, code: torch.cat([target * 0, matte.expand(1, 1, 32, 32)], 1)
    swap = built.swap(code, crop())
    assert swap.pixels.shape == (1, 3, 32, 32) and swap.matte.shape == (1, 1, 32, 32)
    assert swap.matte[0, 0, 0, :2].tolist() == [0, 0] and swap.matte[0, 0, 0, -2:].tolist() == [1, 1]
    assert (swap.matte[0, 0, 0].diff() >= 0).all()


class Found:
    name = "fake"

    def __init__(self, face: Face) -> None:
        self.face = face

    def __call__(self, rgb: np.ndarray) -> list[Face]:
        return [self.face]


class Same:
    name = "fake"

    def __call__(self, rgb: np.ndarray, face: Face) -> Face:
        return face


def test_the_code_is_of_the_whole_resized_crop_times_the_matrix() -> None:
    given, matrix = crop(64), torch.randn(16, 16)
    small = F.interpolate(given.pixels, (16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = F.normalize(Means()(small) @ matrix, dim=1)
    torch.testing.assert_close(coder(matrix)(given), expected)
    assert float(coder()(given).norm()) == pytest.approx(1, abs=1e-5)
    own = coder(framing="own")(given)  # the fake part's framing is half the crop's scale: its upper left 32 pixels
    torch.testing.assert_close(own, F.normalize(Means()(F.avg_pool2d(given.pixels, 2)[..., :16, :16]), dim=1))
    with pytest.raises(UsageError, match="identity_crop must be one of whole, own"):
        coder(framing="half")


def test_geometry_needs_a_mesh() -> None:
    built = method("magicmask")
    with pytest.raises(UsageError, match="needs dense landmarks"):
        built.swap(torch.zeros(1, 16), replace(crop(), mesh=None))


def test_depth_is_nearest_at_the_nose_and_nothing_outside() -> None:
    mesh = face_mesh(128)
    depth = depth_map(mesh, 128)
    nose, cheek = mesh[1, :2].astype(int), mesh[234, :2].astype(int)
    assert depth[nose[1], nose[0]] > depth.max() - 0.02
    assert depth[cheek[1], cheek[0] + 2] < depth[nose[1], nose[0]] - 0.05
    assert not depth[0].any() and not depth[:, 0].any() and 0.1 < (depth > 0).mean() < 0.6
    nearer = depth_map(mesh - np.array([0, 0, 6.4]), 128)
    covered = depth > 0
    np.testing.assert_allclose((nearer - depth)[covered], 0.05, atol=1e-5)


def test_landmark_spots_lie_on_the_landmarks() -> None:
    mesh = face_mesh(128)
    mesh[SIXTY_EIGHT[30], :2] = [40.5, 50.5]  # onto the centre of a pixel
    spots = landmark_map(mesh, 128)
    assert spots[50, 40] == 1 and spots[50, 41] == pytest.approx(np.exp(-1 / (2 * 1.28**2)), abs=1e-5)
    outside = landmark_map(mesh + np.array([500, 0, 0]), 128)
    assert not outside.any()
    maps = geometry_maps(mesh, 128)
    assert maps.shape == (1, 2, 128, 128) and maps.dtype == torch.float32 and maps.min() >= 0 and maps.max() <= 1


# Checkpoints and refusals


@NAMES
def test_a_checkpoint_comes_back_as_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = network(name), tmp_path / "own.safetensors"
    save_checkpoint(path, name, TINY[name], net)
    monkeypatch.setattr("mattface.realtime.methods.aligned.load_embedder", lambda part, device: coder().embedder)
    built = module(name).build(str(path), CPU, torch.float32)
    assert built.weights == str(path) and built.crop == CropSpec("arcface", 32) and built.coder.name == "means"
    given = inputs(net)
    with torch.inference_mode():
        torch.testing.assert_close(built.run(*given), net(*given), atol=1e-6, rtol=1e-5)


def test_checkpoints_of_another_method_or_variant_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "facechanger", TINY["facechanger"], network("facechanger"))
    with pytest.raises(WeightsError, match="must carry the method magicmask"):
        magicmask.build(str(path), CPU, torch.float32)
    with pytest.raises(WeightsError, match=r"trained with norm='bn\+in'; got norm='in'"):
        facechanger.build(str(path), CPU, torch.float32, norm="in")
    with pytest.raises(UsageError, match="norm must be one of"):
        facechanger.build(str(path), CPU, torch.float32, norm="some")
    with pytest.raises(UsageError, match="options are"):
        facechanger.build(str(path), CPU, torch.float32, colour="blue")
    wrong = network("facechanger", blocks=1)
    save_checkpoint(path, "facechanger", TINY["facechanger"], wrong)
    with pytest.raises(WeightsError, match="expected the tensors of facechanger"):
        build_trained("facechanger", facechanger.Config, facechanger.build_network, str(path), CPU, torch.float32, {})


@pytest.mark.parametrize("name", ["alphaface-paper", "facechanger", "magicmask"])
def test_without_weights_the_builder_says_what_to_pass(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"{name} has no published weights.*\.safetensors"):
        mattface.load(name)


def test_missing_public_files_are_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"alphaface_demo\.pt.*download"):
        mattface.load("alphaface")
    with pytest.raises(UsageError, match="has the option injection"):
        mattface.load("alphaface", norm="in")
    with pytest.raises(UsageError, match="injection must be one of"):
        mattface.load("alphaface", injection="sideways")
    with pytest.raises(WeightsError, match="alphaface-identity"):
        alphaface.public_identity(CPU)
    with pytest.raises(WeightsError, match="alphaface-emap"):
        alphaface.identity_map(CPU)
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save({"generator": {}}, folder / "alphaface_demo.pt")
    with pytest.raises(WeightsError, match=r"alphaface.* in .*expected AlphaFace's swapper"):
        mattface.load("alphaface")
    np.save(folder / "emp.npy", np.eye(3))
    with pytest.raises(WeightsError, match="expected a 512x512 float array"):
        alphaface.identity_map(CPU)
    np.save(folder / "emp.npy", np.eye(512, dtype=np.float32) * 2)
    assert torch.equal(alphaface.identity_map(CPU), torch.eye(512) * 2)


@pytest.mark.slow
def test_the_public_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with every public name and shape, each tensor one repeated number, so that they are small on disk."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    shapes = json.loads((GOLDEN / "alphaface_swapper_keys.json").read_text())
    state = repeated_state(shapes)
    torch.save({"swapper": state, "epoch": 3, "global_step": 5}, folder / "alphaface_demo.pt")
    arcface = json.loads((GOLDEN / "arcface_iresnet50_keys.json").read_text())
    torch.save(fold(seeded_state(arcface, False)), folder / "arcface_w600k_r50_pytorch.pt")
    np.save(folder / "emp.npy", np.eye(512, dtype=np.float32))
    built = alphaface.build(None, CPU, torch.float32, injection="one-directional")
    assert built.weights == "alphaface" and built.crop == CropSpec("arcface", 256)
    assert not built.network.inject[0].first.crossed
    assert layouts.alphaface_swapper(state).keys() == built.network.state_dict().keys()
    code = built.encode(crop(256))
    assert code.shape == (1, 512) and float(code.norm()) == pytest.approx(1, abs=1e-5)
    before = summary(built.network.state_dict())
    assert all(before[key][1:] == 2 * (float(value.max()),) for key, value in layouts.alphaface_swapper(state).items())
    for name, file in (("alphaface", "alphaface_demo.pt"), ("alphaface-identity", "arcface_w600k_r50_pytorch.pt")):
        convert(folder / file, tmp_path / f"{name}.safetensors")
        (folder / file).unlink()
        assert adopt(tmp_path / f"{name}.safetensors").name == name
    again = alphaface.build(None, CPU, torch.float32, injection="one-directional")
    assert summary(again.network.state_dict()) == before
    assert torch.equal(again.encode(crop(256)), code)


def test_a_converted_identity_file_works_as_the_original_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    file = tmp_path / "official.pt"
    torch.save(repeated_state(folded_arcface_shapes()), file)
    assert adopt(file).name == "alphaface-identity"
    before = summary(alphaface.public_identity(CPU).network.state_dict())
    convert(file, tmp_path / "converted.safetensors")
    assert adopt(tmp_path / "converted.safetensors").name == "alphaface-identity"
    file.unlink()
    assert summary(alphaface.public_identity(CPU).network.state_dict()) == before
