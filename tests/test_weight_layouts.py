"""Foreign names to ours, key by key: whole key lists, nothing left over, both ways, and the same outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import largest_error, seeded_input, seeded_state

from mattface.embed.arcface import IRSE50, IResNet, iresnet50, iresnet_for
from mattface.encode import Encoder
from mattface.errors import UsageError, WeightsError
from mattface.estimate import FaceRegressor
from mattface.generate.discriminator import Discriminator
from mattface.generate.generator import build_generator
from mattface.latent_heads import LatentHeads
from mattface.parse.bisenet import BiSeNet
from mattface.realtime.methods import alphaface as alphaface_method
from mattface.weights import layouts, load_strictly
from mattface.weights.content import Content, split_parts
from mattface.weights.convert import best_layouts, fit_of, to_ours
from mattface.weights.layouts import arcface, estimators, known, stylegan2

GOLDEN = Path(__file__).parent / "golden"
COUNTS = {
    **{"psp": (792, 300_327_568), "ir-se-50": (397, 43_824_118), "stylegan2-rosinality": (171, 33_166_492)},
    **{"stylegan2-rosinality-discriminator": (64, 29_012_769), "stylegan2-nvidia": (182, 33_167_164)},
    **{"stylegan2-nvidia-discriminator": (82, 29_013_057), "alphaface": (68, 138_578_691)},
    **{"arcface-folded": (263, 43_591_002), "arcface-r50": (475, 43_629_071), "arcface-r100": (925, 65_225_946)},
    **{"bisenet": (191, 13_313_119), "deep3d": (332, 24_087_798)},
    **{"lpips-vgg": (5, 1472), "vgg16": (32, 138_357_544)},
    **{"clip-vit-b32": (302, 151_277_313), "sdxl-unet": (1680, 2_567_463_684)},
    **{"sdxl-vae": (248, 83_653_863), "sdxl-text-encoder": (197, 123_060_557)},
    "sdxl-text-encoder-2": (518, 694_659_917),
}
"""Entries and numbers of the original networks, counters and constants included."""
REFERENCE = {
    "psp": ("psp_ffhq_encode", "entries"),
    "ir-se-50": ("model_ir_se50", "entries"),
    "stylegan2-rosinality": ("rosinality_stylegan2_ffhq_1024", "entries"),
    "stylegan2-rosinality-discriminator": ("rosinality_stylegan2_ffhq_1024", "d_entries"),
    "stylegan2-nvidia": ("nvidia_stylegan2_ada_ffhq_1024", "entries"),
    "stylegan2-nvidia-discriminator": ("nvidia_stylegan2_ada_ffhq_1024", "D_entries"),
    "alphaface": ("alphaface_swapper", "entries"),
    "arcface-folded": ("alphaface_arcface_w600k_r50_pytorch", "entries"),
    "arcface-r50": ("arcface_torch_iresnet50", "entries"),
    "arcface-r100": ("arcface_torch_iresnet100", "entries"),
    "bisenet": ("bisenet_79999_iter", "entries"),
    "deep3d": ("deep3dfacerecon_epoch_20", "entries"),
}
"""Layout -> key list of the original network, in the reference data."""


def empty(name: str) -> dict[str, torch.Tensor]:
    """A layout's tensors without memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in known.LAYOUTS[name].shapes().items()}


def as_content(name: str, state: dict[str, torch.Tensor]) -> Content:
    """A file of this layout."""
    beside = {"latent_avg": torch.zeros(512, device="meta"), "opts": {"start_from_latent_avg": True}}
    return Content("torch", {known.LAYOUTS[name].inside: state}, beside)


# Key lists


def test_every_layout_is_counted() -> None:
    assert set(COUNTS) == set(known.LAYOUTS)


@pytest.mark.parametrize("name", known.LAYOUTS)
def test_counts(name: str) -> None:
    shapes = known.LAYOUTS[name].shapes()
    assert (len(shapes), sum(math.prod(shape) for shape in shapes.values())) == COUNTS[name]


@pytest.mark.parametrize("name", REFERENCE)
def test_key_by_key(shared: Path, name: str) -> None:
    file, part = REFERENCE[name]
    entries = json.loads((shared / "reference" / "checkpoints" / f"{file}.json").read_text())[part]
    assert known.LAYOUTS[name].shapes() == {key: tuple(shape) for key, shape, _ in entries}


@pytest.mark.parametrize("name", known.LAYOUTS)
def test_recognised_and_converted(name: str) -> None:
    """The layout fits its own key list perfectly, no other does, and every key has its place in ours."""
    content = as_content(name, empty(name))
    first, second = best_layouts(content)[:2]
    assert (first[0].name, first[1].share, first[1].faults) == (name, 1.0, ()) and second[1].share < 1
    ours, layout = to_ours(content)
    assert layout == name and ours


@pytest.mark.parametrize("name", known.LAYOUTS)
def test_a_missing_and_an_unknown_key_are_named(name: str) -> None:
    state = empty(name)
    gone = next(key for key in reversed(state) if key.endswith(("weight", "const")) and "noise" not in key)
    del state[gone]
    fit = fit_of(as_content(name, state | {"unheard.of": torch.zeros(1)}), known.LAYOUTS[name])
    assert any(f"missing, first {gone}" in fault for fault in fit.faults)
    assert any("unknown keys, first unheard.of" in fault for fault in fit.faults)
    with pytest.raises(WeightsError, match=r"unheard\.of"):
        known.LAYOUTS[name].convert({**empty(name), "unheard.of": torch.zeros(1)}, as_content(name, {}).beside)


def test_another_shape_is_named() -> None:
    state = empty("bisenet") | {"conv_out.conv_out.weight": torch.empty(11, 256, 1, 1)}
    with pytest.raises(WeightsError, match=r"first conv_out\.conv_out\.weight: expected \(19, 256, 1, 1\), got \(11"):
        to_ours(Content("torch", {"": state}), "bisenet")


def test_optional_keys_may_lack() -> None:
    """Counters of old files, and rosinality's noise images and kernels."""
    for name in ("bisenet", "arcface-r50", "stylegan2-rosinality", "psp"):
        state = {k: v for k, v in empty(name).items() if not k.endswith(("_tracked", ".kernel")) and "noises." not in k}
        assert len(state) < COUNTS[name][0]
        assert fit_of(as_content(name, state), known.LAYOUTS[name]).faults == ()


def test_average_beside_the_generator_is_asked_for() -> None:
    content = Content("torch", {"g_ema": empty("stylegan2-rosinality")})
    with pytest.raises(WeightsError, match="no latent_avg beside the tensors"):
        to_ours(content)


def test_prefix_and_place_do_not_matter() -> None:
    """A bare state dict, one below another key, one that was trained on several devices."""
    state = {k: torch.zeros(s) for k, s in known.LAYOUTS["lpips-vgg"].shapes().items()}
    for outer in (state, {"net": state, "epoch": 3}, {f"module.{k}": v for k, v in state.items()}):
        ours, name = to_ours(split_parts(outer))
        assert name == "lpips-vgg" and ours.keys() == state.keys()


def test_unknown_layout() -> None:
    with pytest.raises(UsageError, match="expected a layout, one of psp"):
        to_ours(Content("torch"), "vgg19")


# Into our networks


def test_conversions_fill_our_networks() -> None:
    """Strictly: every name and shape of ours, and nothing else."""
    with torch.device("meta"):
        pairs = {
            "ir-se-50": IRSE50(),
            "arcface-r50": iresnet50(),
            "arcface-r100": IResNet((3, 13, 30, 3)),
            "bisenet": BiSeNet(),
            "deep3d": FaceRegressor(),
            "stylegan2-nvidia": build_generator(1024),
            "stylegan2-rosinality": build_generator(1024),
            "stylegan2-nvidia-discriminator": Discriminator(1024),
            "stylegan2-rosinality-discriminator": Discriminator(1024),
            "arcface-folded": iresnet50(),
            "alphaface": alphaface_method.build_network(alphaface_method.Config()),
        }
        parts = {"encoder": Encoder(), "heads": LatentHeads(), "generator": build_generator(1024)}
    for name, network in pairs.items():
        load_strictly(network, to_ours(as_content(name, empty(name)))[0], name)
    ours = to_ours(as_content("psp", empty("psp")))[0]
    for prefix, network in parts.items():
        inside = {k.removeprefix(f"{prefix}."): v for k, v in ours.items() if k.startswith(f"{prefix}.")}
        load_strictly(network, inside, prefix)
    assert {key.split(".")[0] for key in ours} == set(parts)


def test_units_follow_from_the_keys() -> None:
    state = layouts.arcface_torch({k: torch.empty(s, device="meta") for k, s in arcface.arcface_shapes().items()})
    with torch.device("meta"):
        assert [len(list(stage.children())) for stage in iresnet_for(state).stages] == [3, 4, 14, 3]
    with pytest.raises(WeightsError, match="four stages"):
        iresnet_for({"stages.0.0.conv1.weight": torch.zeros(1)})


# rosinality and NVIDIA, both ways


def small_generator() -> dict[str, torch.Tensor]:
    net = build_generator(64)
    return seeded_state({k: v.shape for k, v in net.state_dict().items()}, True)


def test_generator_names_go_round() -> None:
    ours = small_generator()
    foreign, average = layouts.to_rosinality_generator(ours)
    back = layouts.rosinality_generator(foreign, average)
    nvidia = layouts.nvidia_generator(layouts.to_nvidia_generator(ours))
    for again in (back, nvidia):
        assert again.keys() == ours.keys() and all(torch.equal(again[key], ours[key]) for key in ours)
    there = layouts.to_nvidia_generator(layouts.rosinality_generator(foreign, average))
    once = layouts.to_nvidia_generator(ours)
    assert there.keys() == once.keys() and all(torch.equal(there[key], once[key]) for key in once)
    assert float(foreign["convs.0.conv.blur.kernel"].sum()) == float(foreign["to_rgbs.0.upsample.kernel"].sum()) == 4
    assert float(once["synthesis.b8.conv0.resample_filter"].sum()) == 1


def test_discriminator_names_go_round() -> None:
    net = Discriminator(64)
    ours = seeded_state({k: v.shape for k, v in net.state_dict().items()}, True)
    foreign = layouts.to_rosinality_discriminator(ours)
    for again in (
        layouts.rosinality_discriminator(foreign, 64),
        layouts.nvidia_discriminator(layouts.to_nvidia_discriminator(ours)),
    ):
        assert again.keys() == ours.keys() and all(torch.equal(again[key], ours[key]) for key in ours)
    assert float(foreign["convs.1.skip.0.kernel"].sum()) == 1


@pytest.mark.parametrize("part", ["G", "D"])
def test_map_of_the_reference(shared: Path, part: str) -> None:
    """The exact name map between the two dialects, with its shapes, at 1024 px."""
    found = json.loads((shared / "reference/checkpoints/stylegan2_key_map_rosinality_nvidia.json").read_text())
    if part == "G":
        nvidia = {k: torch.full(s, float(i)) for i, (k, s) in enumerate(_small(stylegan2.nvidia_generator_shapes()))}
        theirs = layouts.to_rosinality_generator(layouts.nvidia_generator(nvidia))[0]
    else:
        shapes = stylegan2.nvidia_discriminator_shapes()
        nvidia = {k: torch.full(s, float(i)) for i, (k, s) in enumerate(_small(shapes))}
        theirs = layouts.to_rosinality_discriminator(layouts.nvidia_discriminator(nvidia))
    for rosinality, ours, _ in found[part]:
        assert float(theirs[rosinality].flatten()[0]) == float(nvidia[ours].flatten()[0]), rosinality
    assert len(found[part]) + sum(key.endswith("kernel") for key in theirs) == len(theirs)


def _small(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """The same keys with the same ranks and one number each."""
    return [(key, (1,) * len(shape)) for key, shape in shapes.items() if "resample_filter" not in key]


def test_foreign_names_in_ours_are_rejected() -> None:
    with pytest.raises(WeightsError, match="expected the names of our generator; got 'encoder"):
        layouts.to_rosinality_generator({"mapping.w_avg": torch.zeros(4), "encoder.weight": torch.zeros(4)})


# By value


def test_deep3d_golden() -> None:
    net = FaceRegressor().eval()
    load_strictly(net, layouts.deep3d(seeded_state(estimators.deep3d_shapes(), False)), "Deep3DFaceRecon")
    image = seeded_input("d3dfr_img", (1, 3, 224, 224))
    with torch.no_grad():
        error = largest_error(net(image), np.load(GOLDEN / "face3d_resnet50.npz")["coefficients"])
        parts = net.coefficients(image * 2 - 1)
        whole = net(image)
    print(f"deep3d: {error:.1e}")
    assert error < 1e-4
    torch.testing.assert_close(parts.identity, whole[:, :80])
    torch.testing.assert_close(parts.angles, whole[:, 224:227])
    torch.testing.assert_close(parts.shift, whole[:, 254:])
