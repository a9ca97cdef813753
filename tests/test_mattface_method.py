"""The mattface chain: official sizes, tiny networks end to end, checkpoints, and what is said when weights lack."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from seeded import repeated_state, summary

from mattface.blend import TwoStageBlend
from mattface.blend.detail import DetailConfig, DetailTransfer
from mattface.errors import UsageError, WeightsError
from mattface.layers import Window
from mattface.matte import MatteConfig
from mattface.mesh import topology
from mattface.methods import mattface as method
from mattface.methods import psp_mix
from mattface.methods.contract import Description
from mattface.methods.mattface import Config, MattfaceMethod, build, build_network
from mattface.methods.psp import official_parts
from mattface.methods.psp_mix import PspMixMethod
from mattface.parse import Parser
from mattface.vocabulary import Crop
from mattface.weights.adopt import adopt
from mattface.weights.convert import convert

CPU = torch.device("cpu")
TINY = Config(
    resolution=64,
    encoder_size=32,
    stem=4,
    widths=(4, 8, 8, 8),
    units=(1, 1, 1, 1),
    style=8,
    head_width=8,
    noise=False,
    channels={4: 8, 8: 8, 16: 8, 32: 8, 64: 4},
    detail_widths=(8, 8, 8),
)


def face_mesh(size: int) -> np.ndarray:
    """A round face of 468 points in the middle of the crop."""
    k = np.arange(468)
    radius, angle = 0.3 * size * np.sqrt((k + 1) / 468), k * 2.4
    return np.stack([size / 2 + radius * np.cos(angle), size / 2 + radius * np.sin(angle), 0 * angle], 1)


def crop(seed: int, size: int = 64) -> Crop:
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Crop(pixels, np.eye(3), face_mesh(size), face_mesh(size)[:5, :2])


def randomised(config: Config) -> method.MattfaceNetwork:
    torch.manual_seed(0)
    network = build_network(config)
    for p in network.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.2)
    for block in network.transfer.levels.values():
        block.gamma.data.fill_(1.0)
    return network.eval()


def test_the_official_sizes_are_the_papers():
    with torch.device("meta"):
        network = build_network(Config(detail="off")).to("meta")
        image = torch.empty(1, 3, 1024, 1024)
        pyramid = network.encode(image)
    assert [tuple(x.shape[1:]) for x in pyramid.levels()] == [(128, 64, 64), (256, 32, 32), (512, 16, 16)]
    assert network.invert.w_avg.shape == (18, 512)
    assert network.generate.num_styles == 18
    with torch.device("meta"):
        swap = network(network.encode_source(image), image, torch.empty(1, 1, 1024, 1024))
    assert swap.pixels.shape == (1, 3, 1024, 1024) and swap.matte.shape == (1, 1, 1024, 1024)


@pytest.mark.parametrize("detail", ["flow", "off"])
@pytest.mark.parametrize("levels", [("coarse", "medium", "fine"), ("fine",)])
@pytest.mark.parametrize("coordinates", [False, True])
def test_chain_runs_in_every_form(detail, levels, coordinates):
    network = randomised(replace(TINY, detail=detail, levels=levels, coordinates=coordinates, shape=0.5 * coordinates))
    chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
    source, target = crop(0), crop(1)
    swap = chain.swap(chain.encode(source), target)
    assert swap.pixels.shape == (1, 3, 64, 64) and swap.matte.shape == (1, 1, 64, 64)
    assert torch.isfinite(swap.pixels).all() and swap.matte.min() >= 0 and swap.matte.max() <= 1
    other = chain.swap(chain.encode(crop(2)), target)
    assert not torch.allclose(other.pixels, swap.pixels), "the source must matter"
    assert ("flow" in swap.extras) == (detail == "flow")


def test_matte_is_exactly_zero_away_from_the_face():
    network = build_network(TINY).eval()
    chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
    matte = chain.swap(chain.encode(crop(0)), crop(1)).matte[0, 0]
    assert matte[:6].max() == 0 and matte[:, :6].max() == 0
    assert matte[32, 32] == 1


def test_bf16_stays_near_fp32():
    network = randomised(TINY)
    swaps = []
    for dtype in (torch.float32, torch.bfloat16):
        chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, dtype)
        swaps.append(chain.swap(chain.encode(crop(0)), crop(1)).pixels.float())
    scale = swaps[0].abs().mean()
    assert 0 < (swaps[0] - swaps[1]).abs().mean() < 0.05 * scale


def test_gradients_reach_every_trained_part():
    network = randomised(TINY).train()
    image, mask = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 1, 64, 64)
    swap = network(network.encode_source(image.flip(0)), image, mask)
    total = swap.pixels.square().sum() + swap.matte.sum() + swap.extras["decoded"].square().sum()
    (total + swap.extras["side"].square().sum()).backward()
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # the last level's own refinement and colour bias may be untouched by this objective, whole parts may not
    parts = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert parts == {"encoder", "transfer", "invert", "generate", "blend", "correspond"}
    assert len(dead) < 0.05 * len(list(network.parameters())), dead


def saved(tmp_path, config=TINY, metadata=None):
    network = randomised(config)
    path = tmp_path / "tiny.safetensors"
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, path, {"config": config.to_json()} if metadata is None else metadata)
    return network, path


def test_checkpoints_carry_their_configuration(tmp_path):
    network, path = saved(tmp_path)
    for where in (str(path), str(tmp_path)):
        loaded = build(where, CPU, torch.float32)
        assert loaded.network.config == TINY
        for (name, a), b in zip(network.state_dict().items(), loaded.network.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_checkpoints_keep_their_settings_and_earlier_ones_load(tmp_path):
    changed = replace(TINY, matte=MatteConfig(mouth_open=0.2), transfer=DetailConfig(lent=0.1, trusted=(0.1, 0.2)))
    assert Config.from_json(changed.to_json()) == changed
    old = json.loads(TINY.to_json())
    del old["matte"], old["transfer"]
    old["places"] = old.pop("coordinates")
    assert Config.from_json(json.dumps(old)) == TINY
    assert Config.from_json(json.dumps(old | {"places": True})).coordinates
    _, path = saved(tmp_path, changed)
    chain = build(str(path), CPU, torch.float32)
    assert chain.matte.config.mouth_open == 0.2 and chain.network.detail.config.lent == 0.1


def test_detail_can_be_switched_off_but_not_invented(tmp_path):
    _, path = saved(tmp_path)
    off, flow = (build(str(path), CPU, torch.float32, detail=detail) for detail in ("off", "flow"))
    swaps = [chain.swap(chain.encode(crop(0)), crop(1)) for chain in (off, flow)]
    assert "flow" not in swaps[0].extras and "flow" in swaps[1].extras
    assert torch.equal(swaps[0].pixels, swaps[0].extras["decoded"])
    assert not torch.allclose(swaps[0].pixels, swaps[1].pixels)
    _, path = saved(tmp_path, replace(TINY, detail="off"))
    with pytest.raises(WeightsError, match="trained without detail"):
        build(str(path), CPU, torch.float32, detail="flow")
    with pytest.raises(UsageError, match="detail must be"):
        build(str(path), CPU, torch.float32, detail="some")


def test_foreign_and_missing_checkpoints_are_rejected(tmp_path):
    _, path = saved(tmp_path, metadata={"hello": "world"})
    with pytest.raises(WeightsError, match="configuration"):
        build(str(path), CPU, torch.float32)
    (tmp_path / "none").mkdir()
    with pytest.raises(WeightsError, match=r"one \.safetensors"):
        build(str(tmp_path / "none"), CPU, torch.float32)
    wrong = replace(TINY, style=16)
    _, path = saved(tmp_path, metadata={"config": wrong.to_json()})
    with pytest.raises(WeightsError):
        build(str(path), CPU, torch.float32)


def test_official_weights_without_idatt_say_what_to_do():
    with pytest.raises(WeightsError, match=r"no trained IDATT.*--method psp-mix"):
        build("psp-ffhq", CPU, torch.float32)
    with pytest.raises(UsageError, match="runs on the weights"):
        psp_mix.build("mattface-demo", CPU, torch.float32)
    with pytest.raises(UsageError, match="no options; got generator"):
        psp_mix.build(None, CPU, torch.float32, generator="off")
    with pytest.raises(UsageError, match="has the options detail, generator and refine; got colour"):
        build(None, CPU, torch.float32, colour="blue")


def official_file(folder: Path) -> Path:
    """A pSp file with every official name and shape, each tensor one repeated number, so that it is small on disk."""
    keys = {}
    for half, name in (("encoder", "psp_encoder"), ("decoder", "stylegan2_rosinality_1024")):
        shapes = json.loads((Path(__file__).parent / f"golden/{name}_keys.json").read_text())
        keys |= repeated_state({f"{half}.{k}": shape for k, shape in shapes.items()})
    whole = {"state_dict": keys, "latent_avg": torch.full((18, 512), 0.5), "opts": {"start_from_latent_avg": True}}
    path = folder / "weights" / "psp_ffhq_encode.pt"
    path.parent.mkdir(parents=True)
    torch.save(whole, path)
    return path


@pytest.mark.slow
def test_official_file_opens_for_style_mixing(tmp_path, monkeypatch):
    path = official_file(tmp_path)
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    built = psp_mix.build("psp-ffhq", CPU, torch.float32)
    assert built.describe() == Description("psp-mix", "psp-ffhq", "visible")
    assert torch.equal(built.invert.w_avg, torch.full((18, 512), 0.5))
    theirs = torch.load(path, weights_only=True)["state_dict"]
    for ours, key in (
        (built.generate.get_submodule("b1024").conv1.weight, "decoder.convs.15.conv.weight"),
        (built.encoder.trunk.stages[3][2].conv2.weight, "encoder.body.23.res_layer.3.weight"),
    ):
        assert float(ours.min()) == float(ours.max()) == float(theirs[key].max()), key


@pytest.mark.slow
def test_converted_official_file_works_as_the_original_does(tmp_path, monkeypatch):
    path, out = official_file(tmp_path), tmp_path / "converted.safetensors"
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    before = [summary(part.state_dict()) for part in official_parts()]
    assert convert(path, out) == "psp"
    path.unlink()
    assert adopt(out).name == "psp-ffhq"
    assert [summary(part.state_dict()) for part in official_parts()] == before


def test_another_file_in_place_of_the_official_one_is_rejected(tmp_path, monkeypatch):
    path = official_file(tmp_path)
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    torch.save({"state_dict": {"encoder.first": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"psp-ffhq.* in .*expected a pSp file.*no latent_avg"):
        official_parts()


def test_style_mixing_takes_the_middle_styles_of_the_source():
    network = randomised(replace(TINY, resolution=64))
    mix = PspMixMethod(network.encoder, network.invert, network.generate, Parser("mesh"), "tiny", CPU, torch.float32)
    seen = []
    network.generate.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    source, target = crop(0), crop(1)
    with torch.inference_mode():
        encoded = mix.encode(source)
        swap = mix.swap(encoded, target)
        own = mix.encode(target)
    assert torch.equal(seen[0][:, 4:10], encoded[:, 4:10]) and torch.equal(seen[0][:, :4], own[:, :4])
    assert not torch.allclose(encoded, own)
    assert swap.pixels.shape == (1, 3, 64, 64) and swap.matte.max() == 1


def test_wrong_configurations_are_rejected():
    with pytest.raises(UsageError, match="detail"):
        replace(TINY, detail="some")
    with pytest.raises(UsageError, match="reach resolution"):
        replace(TINY, resolution=128)


def test_what_hides_the_source_is_not_brought_along():
    network = randomised(TINY)
    left = torch.ones(1, 1, 64, 64)
    left[..., :32] = 0
    source, target = crop(0), crop(1)
    swaps = {}
    for name, seen in (("plain", torch.ones(1, 1, 64, 64)), ("hidden", left)):
        chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
        chain.matte.parser.seen = lambda crop, seen=seen: seen
        with torch.inference_mode():
            swaps[name] = chain.swap(chain.encode(source), target)
    extras = swaps["plain"].extras
    shown = extras["flow"][:, :1] > 0.1, extras["flow"][:, :1] < -0.1
    assert all(s.any() for s in shown), "the flow reaches both halves of the source"
    ratio = swaps["hidden"].extras["confidence"] / extras["confidence"]
    assert ratio[shown[0]].median() > 0.99 and ratio[shown[1]].median() < 0.01


def test_weights_with_canonical_coordinates_want_a_mesh():
    network = randomised(replace(TINY, coordinates=True))
    chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
    with pytest.raises(UsageError, match="dense landmarks"):
        chain.encode(replace(crop(0), mesh=None))
    with pytest.raises(UsageError, match="wants canonical coordinates; got NoneType"):
        network.encode_source(torch.zeros(1, 3, 64, 64))


def test_what_is_made_around_the_matte_equals_the_whole():
    config = replace(TINY, resolution=512, channels={**TINY.channels, 128: 4, 256: 4, 512: 4})
    network = randomised(config)
    with torch.no_grad():
        image = torch.rand(2, 3, 512, 512) * 2 - 1
        mask = Parser("mesh")(Crop(image[:1], np.eye(3), face_mesh(512) * 0.5 + [90, 60, 0], face_mesh(512)[:5, :2]))
        source = network.encode_source(image[1:])
        whole, part = (network(source, image[:1], mask, tight=tight) for tight in (False, True))
    assert torch.equal(whole.matte, part.matte) and 0 < (part.matte > 0).float().mean() < 0.3
    assert part.extras["decoded"].shape[-1] < 350, "less was made"
    touched = (part.matte > 0).expand_as(part.pixels)
    assert torch.allclose(whole.pixels[touched], part.pixels[touched], atol=1e-4)
    assert torch.equal(part.pixels[..., :16, :16], image[:1, :, :16, :16])


def test_an_empty_matte_is_made_whole():
    assert Window.around(torch.zeros(1, 1, 32, 32), 4) is None
    assert Window.around(torch.ones(1, 1, 32, 32), 4) is None
    corner = torch.zeros(1, 1, 64, 64)
    corner[..., :4, 60:] = 1
    found = Window.around(corner, 4)
    assert found is not None and found.top == 0 and found.left + found.side == Window.GRID


def test_a_batch_is_cut_around_all_its_mattes():
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 20:24, 20:24], masks[1, :, 40:44, 30:34] = 1, 1
    found = Window.around(masks, 4)
    assert found is not None
    picture = masks.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(found.cut(picture).sum((1, 2, 3)), picture.sum((1, 2, 3)))
    assert Window.around(masks.flip(0), 4) == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": 0.5}, "Set coordinates=True, or shape=0"),
        ({"shape": 1.5, "coordinates": True}, "from 0 .* to 1 .*got 1.5"),
        ({"shape": -0.1, "coordinates": True}, "got -0.1"),
        ({"shape": float("nan"), "coordinates": True}, "got nan"),
    ],
)
def test_a_shape_that_cannot_be_is_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        replace(TINY, **fields)


def test_the_target_lends_detail_but_not_the_edge_of_what_lies_beside_its_face() -> None:
    """A grey face with stripes, beside it something black: the stripes are detail, the black is not."""
    side = 256
    matte = torch.full((1, 1, side, side), -20.0)
    matte[..., 64:192, 64:192] = 20
    inside = torch.sigmoid(matte)
    stripes = 0.2 * torch.sin(torch.arange(side) * 1.5).expand(1, 3, side, side)
    transfer, soft = DetailTransfer(DetailConfig()), TwoStageBlend.matte(matte, 0.02)
    plain, striped = (
        transfer.fine_detail((x + 0.1) * inside - (1 - inside), soft) for x in (0 * stripes, stripes)
    )
    face = (slice(None), slice(None), slice(68, 188), slice(68, 188))
    assert plain[face].abs().max() < 0.05
    assert (striped - stripes)[face].abs().mean() < 0.03


def test_a_smile_stays_the_target_s_when_the_source_is_closed() -> None:
    network = build_network(replace(TINY, resolution=64, coordinates=True))
    chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
    mean = topology().mean
    closed = np.column_stack([mean[:, :2] * 90 + 128, mean[:, 2] * 90])
    smiling = closed.copy()
    smiling[[14, 87, 317, 178, 402, 88, 318], 1] += 12
    closed[[14, 87, 317, 178, 402, 88, 318], 1] = closed[[13, 82, 312, 81, 311, 80, 310], 1]
    kept, fits = (chain._openings(source, 2 * smiling, 512)[0, 0] for source in (closed, smiling))
    assert kept.shape == (512, 512) and fits.min() > 0.9
    rows, columns = np.nonzero(kept.numpy() < 0.5)
    upper, lower, left, right = 2 * smiling[13, 1], 2 * smiling[14, 1], 2 * smiling[78, 0], 2 * smiling[308, 0]
    assert kept.min() < 0.1 and len(rows) > 200, "the inside of the mouth"
    assert upper - 20 < rows.min() < rows.max() < lower + 20 and left - 6 < columns.min() < columns.max() < right + 6
