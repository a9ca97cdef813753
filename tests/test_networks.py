"""Networks at small sizes: shapes, gradients, partial runs, errors, foreign layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mattface.embed.arcface import IRSE50, IResNet
from mattface.encode import Encoder
from mattface.errors import UsageError, WeightsError
from mattface.generate.discriminator import Discriminator, batch_deviation
from mattface.generate.generator import build_generator
from mattface.generate.mapping import MappingNetwork
from mattface.generate.synthesis import SynthesisNetwork, channel_counts, num_styles
from mattface.latent_heads import LatentHeads
from mattface.vocabulary import FeaturePyramid
from mattface.weights import layouts

GOLDEN = Path(__file__).parent / "golden"
CHANNELS = {4: 12, 8: 12, 16: 8, 32: 6}
LEVELS = ("fine", "fine", "medium", "medium", "coarse", "coarse", "coarse", "coarse")


def small_synthesis(**options: object) -> SynthesisNetwork:
    torch.manual_seed(0)
    net = SynthesisNetwork(16, 32, channels=CHANNELS, **options)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    return net


def small_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(size=64, stem=4, widths=(4, 8, 12, 16), units=(1, 2, 2, 1), reduction=4)


def small_heads() -> LatentHeads:
    torch.manual_seed(0)
    return LatentHeads((8, 12, 16), sizes=(16, 8, 4), width=10, head_width=6, w_dim=16, levels=LEVELS)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> bool:
    one, other = one.detach(), other.detach()
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance * float(other.abs().max())


def all_receive_gradients(net: torch.nn.Module, loss: torch.Tensor) -> None:
    loss.backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not missing


# Synthesis


def test_official_sizes() -> None:
    assert num_styles(1024) == 18
    assert channel_counts(1024) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


@pytest.mark.parametrize("batch", [1, 3])
def test_features_at_every_resolution(batch: int) -> None:
    out = small_synthesis()(torch.randn(batch, 8, 16), return_features=True)
    assert {r: tuple(x.shape) for r, x in out.features.items()} == {r: (batch, c, r, r) for r, c in CHANNELS.items()}
    assert out.image is not None
    assert out.image.shape == (batch, 3, 32, 32)


@pytest.mark.parametrize("noise", ["const", "none"])
def test_one_sample_and_a_batch_compute_the_same(noise: str) -> None:
    """One sample scales weights, several scale activations (equations 1 to 3 both ways)."""
    net, w_plus = small_synthesis().double(), torch.randn(3, 8, 16).double()
    together = net(w_plus, noise).image
    for i in range(3):
        assert close(net(w_plus[i : i + 1], noise).image, together[i : i + 1], 1e-12)


@pytest.mark.parametrize("upto", [4, 16])
def test_continuing_equals_the_whole_run(upto: int) -> None:
    net, w_plus = small_synthesis(), torch.randn(2, 8, 16)
    whole = net(w_plus, return_features=True)
    part = net(w_plus, upto=upto)
    assert list(part.features) == [upto]
    assert torch.equal(part.features[upto], whole.features[upto])
    rest = net(w_plus, return_features=True, start=(upto, part.features[upto], part.image))
    assert list(rest.features) == [r for r in CHANNELS if r > upto]
    assert torch.equal(rest.image, whole.image)


def test_continuing_on_a_crop_equals_the_whole_run_away_from_its_border() -> None:
    net, w_plus = small_synthesis(), torch.randn(1, 8, 16)
    whole, part = net(w_plus, noise="none").image, net(w_plus, noise="none", upto=16)
    crop = (slice(None), slice(None), slice(0, 12), slice(2, 14))
    out = net(w_plus, noise="none", start=(16, part.features[16][crop], part.image[crop])).image
    assert out.shape == (1, 3, 24, 24)
    assert close(out[:, :, 0:18, 6:18], whole[:, :, 0:18, 10:22])


def test_noise_modes_differ() -> None:
    net, w_plus = small_synthesis(), torch.randn(1, 8, 16)
    const, none = net(w_plus, "const").image, net(w_plus, "none").image
    assert torch.equal(const, net(w_plus, "const").image)
    assert not close(const, none)
    assert not close(net(w_plus, "random").image, net(w_plus, "random").image)


def test_generator_without_noise_inputs() -> None:
    net = small_synthesis(use_noise=False)
    assert not [key for key in net.state_dict() if "noise" in key]
    w_plus = torch.randn(1, 8, 16)
    assert torch.equal(net(w_plus, "const").image, net(w_plus, "none").image)


def test_activations_are_clamped() -> None:
    net = small_synthesis(clamp=0.5)
    features = net(10 * torch.randn(2, 8, 16), return_features=True).features
    assert max(float(x.detach().abs().max()) for x in features.values()) == pytest.approx(0.5 * 2**0.5)


@pytest.mark.parametrize("batch", [1, 2])
def test_generator_gradients(batch: int) -> None:
    net = build_generator(32, 16, 2, channels=CHANNELS)
    w_plus = net.mapping(torch.randn(batch, 16)).requires_grad_()
    all_receive_gradients(net, net.synthesis(w_plus).image.square().mean())


@pytest.mark.parametrize("batch", [1, 2])
def test_second_gradients_of_the_generator(batch: int) -> None:
    """Path length regularisation differentiates the gradient with respect to the styles."""
    net, w_plus = small_synthesis(), torch.randn(batch, 8, 16, requires_grad=True)
    image = net(w_plus).image
    (slope,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), w_plus, create_graph=True)
    slope.square().sum().backward()
    for layer in (net.b4.conv1, net.b32.conv0, net.b32.torgb):
        assert layer.weight.grad.abs().max() > 0
        assert layer.affine.weight.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 2])
def test_half_precision_stays_near_single(dtype: torch.dtype, batch: int) -> None:
    net, w_plus = small_synthesis(), torch.randn(batch, 8, 16)
    with torch.no_grad():
        exact = net(w_plus).image
        rough = net.to(dtype)(w_plus.to(dtype)).image
    assert rough.dtype == torch.float32
    assert close(rough, exact, 32 * torch.finfo(dtype).eps)


def test_synthesis_compiles_as_one_graph() -> None:
    net, w_plus = small_synthesis(), torch.randn(2, 8, 16)
    compiled = torch.compile(lambda w: net(w).image, fullgraph=True, backend="aot_eager")
    assert close(compiled(w_plus), net(w_plus).image)


def test_truncation() -> None:
    net = MappingNetwork(16, 16, num_styles=8, num_layers=2)
    net.w_avg.normal_()
    z = torch.randn(2, 16)
    full, none, half = net(z), net(z, truncation_psi=0.0), net(z, truncation_psi=0.5, truncation_cutoff=3)
    assert torch.equal(none, net.w_avg.expand(2, 8, 16))
    assert close(half[:, :3], (full[:, :3] + net.w_avg) / 2)
    assert torch.equal(half[:, 3:], full[:, 3:])
    assert close(net(3 * z), full, 1e-4)


# Discriminator


def test_discriminator() -> None:
    net = Discriminator(32, channels=CHANNELS, group=2)
    image = torch.randn(4, 3, 32, 32, requires_grad=True)
    score = net(image)
    assert score.shape == (4, 1)
    (slope,) = torch.autograd.grad(score.sum(), image, create_graph=True)  # R1
    all_receive_gradients(net, score.sum() + slope.square().sum())


def test_batch_deviation_counts_groups_across_the_batch() -> None:
    x = torch.zeros(4, 1, 2, 2)
    x[2] = 2.0  # samples 0 and 2 are one group, 1 and 3 the other
    added = batch_deviation(x, 2)[:, 1]
    assert torch.allclose(added[[0, 2]], torch.ones(2, 2, 2), atol=1e-3)
    assert torch.allclose(added[[1, 3]], torch.zeros(2, 2, 2), atol=1e-3)
    with pytest.raises(UsageError, match="multiple of the group of 4"):
        batch_deviation(torch.zeros(6, 1, 2, 2), 4)


# Encoder and heads


def test_encoder_and_heads() -> None:
    encoder, heads = small_encoder(), small_heads()
    pyramid = encoder(torch.randn(2, 3, 64, 64))
    assert [tuple(x.shape) for x in pyramid.levels()] == [(2, 8, 16, 16), (2, 12, 8, 8), (2, 16, 4, 4)]
    w_plus = heads(pyramid)
    assert w_plus.shape == (2, 8, 16)
    all_receive_gradients(torch.nn.ModuleList([encoder, heads]), w_plus.square().sum())


def test_average_style_is_added() -> None:
    heads = small_heads()
    pyramid = small_encoder().eval()(torch.randn(1, 3, 64, 64))
    before = heads(pyramid)
    heads.w_avg.fill_(2.0)
    assert close(heads(pyramid) - 2.0, before)


def test_each_head_reads_its_level() -> None:
    """The pyramid runs top down: fine heads see only the fine map, coarse heads all three."""
    heads = small_heads()
    maps = [torch.randn(1, c, s, s, requires_grad=True) for c, s in ((8, 16), (12, 8), (16, 4))]
    reads = {"fine": (False, False, True), "medium": (False, True, True), "coarse": (True, True, True)}
    for index, level in enumerate(LEVELS):
        style = heads(FeaturePyramid(*maps))[0, index].sum()
        slopes = torch.autograd.grad(style, maps, allow_unused=True)
        assert tuple(s is not None and bool(s.abs().max() > 0) for s in slopes) == reads[level]


# Identity


@pytest.mark.parametrize(
    "build",
    [
        lambda: IRSE50((4, 8, 8, 16), (1, 1, 2, 1), stem=4, outputs=24),
        lambda: IResNet((1, 2, 1, 1), (4, 8, 8, 16), outputs=24),
    ],
)
def test_identity_network(build) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net, image = build().eval(), torch.randn(2, 3, 112, 112, requires_grad=True)
    embedding = net(image)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2))
    (1 - embedding[0] @ embedding[1]).backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    with pytest.raises(UsageError, match=r"expect \(B, 3, 112, 112\); got \(2, 3, 128, 128\)"):
        net(torch.randn(2, 3, 128, 128))


# Errors

W = torch.zeros(1, 8, 16)
WRONG = [
    (lambda: small_synthesis()(W[:, :5]), r"w_plus must be \(B, 8, 16\); got \(1, 5, 16\)"),
    (lambda: small_synthesis()(W, noise="some"), 'noise must be "const"'),
    (lambda: small_synthesis()(W, upto=64), "upto and start"),
    (lambda: small_synthesis()(W, upto=8, start=(8, torch.zeros(1, 12, 8, 8), torch.zeros(1, 3, 8, 8))), "the greater"),
    (lambda: small_synthesis()(W, start=(8, torch.zeros(1, 5, 8, 8), torch.zeros(1, 3, 8, 8))), r"\(B, 12, h, w\)"),
    (lambda: small_synthesis()(W, start=(8, torch.zeros(1, 12, 4, 4), torch.zeros(1, 3, 4, 4))), "on crops"),
    (lambda: SynthesisNetwork(16, 48), "power of two"),
    (lambda: SynthesisNetwork(16, 32, channels={4: 8}), "channels must name"),
    (lambda: MappingNetwork(16)(torch.zeros(1, 8)), r"expects z of shape \(B, 16\)"),
    (lambda: small_encoder()(torch.zeros(1, 3, 32, 32)), r"expects \(B, 3, 64, 64\); got \(1, 3, 32, 32\)"),
    (lambda: Encoder(size=250), "divisible by 16"),
    (lambda: LatentHeads(levels=("top",)), "levels must be"),
    (lambda: LatentHeads(sizes=(64, 30, 16)), "powers of two"),
    (lambda: Discriminator(32, channels=CHANNELS)(torch.zeros(1, 3, 16, 16)), r"expects \(B, 3, 32, 32\)"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_errors(case: int) -> None:
    call, words = WRONG[case]
    with pytest.raises(UsageError, match=words):
        call()


# Foreign layouts


def empty(name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """A state dict of the original's keys and shapes that takes no memory."""
    shapes = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    return {prefix + key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def assert_fits(net: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Same names and shapes as the network's own."""
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in net.state_dict().items()}


@pytest.fixture
def on_meta():
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("on_meta")
def test_psp_file_fills_three_networks() -> None:
    state = empty("psp_encoder", "encoder.") | empty("stylegan2_rosinality_1024", "decoder.")
    parts = layouts.psp_file(state, torch.zeros(18, 512))
    assert_fits(Encoder(), parts.encoder)
    assert_fits(LatentHeads(), parts.heads)
    assert_fits(build_generator(1024), parts.generator)


def test_psp_average() -> None:
    """The heads add the average only when the file says that their outputs are offsets."""
    state = {"encoder.styles.0.linear.bias": torch.zeros(4), "encoder.styles.1.linear.bias": torch.zeros(4)}
    for offset in (True, False):
        parts = layouts.psp_file(state, torch.ones(4), start_from_latent_avg=offset)
        assert torch.equal(parts.heads["w_avg"], torch.full((2, 4), float(offset)))
        assert torch.equal(parts.generator["mapping.w_avg"], torch.ones(4))


@pytest.mark.usefixtures("on_meta")
def test_both_discriminators_give_the_same_names() -> None:
    ours = layouts.nvidia_discriminator(empty("discriminator_nvidia_64"))
    assert_fits(Discriminator(64, 2048, 64), ours)
    foreign = {}
    parts = {"conv0.weight": "conv1.0.weight", "conv0.bias": "conv1.1.bias", "conv1.weight": "conv2.1.weight"}
    parts |= {"conv1.bias": "conv2.2.bias", "skip.weight": "skip.1.weight"}
    for index, r in enumerate((64, 32, 16, 8), start=1):
        foreign |= {f"convs.{index}.{theirs}": ours[f"b{r}.{mine}"] for mine, theirs in parts.items()}
        foreign |= {f"convs.{index}.skip.0.kernel": torch.empty(4, 4)}
    foreign |= {"convs.0.0.weight": ours["b64.fromrgb.weight"], "convs.0.1.bias": ours["b64.fromrgb.bias"]}
    last = {
        "conv.weight": "final_conv.0.weight",
        "conv.bias": "final_conv.1.bias",
        "fc.weight": "final_linear.0.weight",
    }
    last |= {"fc.bias": "final_linear.0.bias", "out.weight": "final_linear.1.weight", "out.bias": "final_linear.1.bias"}
    foreign |= {theirs: ours[f"b4.{mine}"] for mine, theirs in last.items()}
    renamed = layouts.rosinality_discriminator(foreign, resolution=64)
    assert renamed.keys() == ours.keys()
    assert all(renamed[key] is ours[key] for key in ours)


def test_missing_noise_images_are_drawn() -> None:
    state = {k: v for k, v in empty("stylegan2_rosinality_64").items() if not k.startswith("noises.")}
    ours = layouts.rosinality_generator(state, torch.zeros(512))
    assert_fits(build_generator(64), ours)
    assert ours["synthesis.b64.conv1.noise_const"].std() == pytest.approx(1, abs=0.1)


def test_unknown_and_doubled_keys_are_rejected() -> None:
    state = empty("arcface_iresnet50")
    with pytest.raises(WeightsError, match=r"arcface_torch backbone: 1 unknown keys, first layer5\.0\.conv1\.weight"):
        layouts.arcface_torch({**state, "layer5.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="unknown keys"):
        layouts.ir_se50(state)
    with pytest.raises(WeightsError, match="expected 24 units"):
        layouts.ir_se50({"body.24.res_layer.1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="two keys belong at"):
        layouts.rosinality_discriminator({"convs.0.0.weight": torch.zeros(1), "convs.0.1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="unknown key inside a layer"):
        layouts.rosinality_generator({"convs.0.conv.extra": torch.zeros(1)}, torch.zeros(512))
    with pytest.raises(WeightsError, match=r'must start with "encoder\."'):
        layouts.psp_file({"latent": torch.zeros(1)}, torch.zeros(512))


def test_the_gradient_of_a_halving_unit_keeps_to_its_memory():
    """A strided 1x1 convolution of torch 2.13 does not, with few channels and two threads: the process would die."""
    from mattface.layers import IRSEUnit

    unit, x = IRSEUnit(8, 16, 2), torch.randn(3, 8, 32, 32, requires_grad=True)
    for _ in range(20):
        unit(x.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
