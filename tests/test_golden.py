"""Every network computes what the original computes: seeded weights in the original's names, stored outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded import seeded_input, seeded_state

from mattface.embed.arcface import IRSE50, IResNet, iresnet50
from mattface.encode import Encoder
from mattface.generate.discriminator import Discriminator
from mattface.generate.generator import build_generator
from mattface.latent_heads import OFFICIAL_LEVELS, LatentHeads
from mattface.weights import layouts

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4
"""Largest difference relative to the largest value, in single precision."""


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def original(name: str, equalized: bool) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """State dict in the original's names, and the original's outputs."""
    shapes = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    return seeded_state(shapes, equalized), dict(np.load(GOLDEN / f"{name}.npz"))


def compare(name: str, got: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    """Prints and checks the relative error of every output."""
    for key, value in got.items():
        reference = torch.from_numpy(expected[key])
        assert value.shape == reference.shape, key
        error = float((value - reference).abs().max() / reference.abs().max())
        print(f"{name} {key}: {error:.1e}")
        assert error < TOLERANCE, key


def statistics(image: torch.Tensor, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}mean": image.mean((2, 3)), f"{prefix}std": image.std((2, 3))}


def middle(image: torch.Tensor) -> torch.Tensor:
    return image[:, :, 448:576, 448:576]


def mapping_outputs(w_plus: torch.Tensor, average: torch.Tensor, expected: dict[str, np.ndarray]) -> dict:
    """Truncated styles, and what is left without the average, which is thirty times larger than the rest."""
    expected["mapping_offset"] = expected["mapping_w"] - 0.3 * average.numpy()
    return {"mapping_w": w_plus, "mapping_offset": w_plus - 0.3 * average}


def test_nvidia_64() -> None:
    state, expected = original("stylegan2_nvidia_64", True)
    net = build_generator(64, 64, 3, channel_base=2048, channel_max=64)
    net.load_state_dict(layouts.nvidia_generator(state))
    w_plus = seeded_input("nv64_w", (1, 10, 64))
    image = net.synthesis(w_plus).image
    pair = net.synthesis(w_plus.expand(2, -1, -1)).image  # the path of larger batches
    styles = net.mapping(seeded_input("nv64_z", (2, 64)), truncation_psi=0.7)
    got = {
        **mapping_outputs(styles, net.mapping.w_avg, expected),
        "img_const": image,
        "img_none": net.synthesis(w_plus, noise="none").image,
        **statistics(image, "img_const_"),
    }
    compare("stylegan2_nvidia_64", got, expected)
    compare("stylegan2_nvidia_64 in a batch", {"img_const": pair[1:]}, expected)


def test_rosinality_64() -> None:
    state, expected = original("stylegan2_rosinality_64", True)
    net = build_generator(64, clamp=None)
    net.load_state_dict(layouts.rosinality_generator(state, torch.zeros(512)))
    image = net.synthesis(seeded_input("ros64_w", (1, 10, 512))).image
    style = net.mapping(seeded_input("ros64_z", (2, 512)))
    assert torch.equal(style[:, 0], style[:, 9])
    compare("stylegan2_rosinality_64", {"style_w": style[:, 0], "img": image, **statistics(image, "")}, expected)


@pytest.mark.slow
def test_nvidia_1024() -> None:
    state, expected = original("stylegan2_nvidia_1024", True)
    net = build_generator(1024)
    net.load_state_dict(layouts.nvidia_generator(state))
    w_plus = seeded_input("nv1024_w", (1, 18, 512))
    image, plain = net.synthesis(w_plus).image, net.synthesis(w_plus, noise="none").image
    styles = net.mapping(seeded_input("nv1024_z", (2, 512)), truncation_psi=0.7)
    got = {
        **mapping_outputs(styles, net.mapping.w_avg, expected),
        "img_const_crop": middle(image),
        "img_const_small": F.avg_pool2d(image, 16),
        "img_none_crop": middle(plain),
        **statistics(image, "img_const_"),
    }
    compare("stylegan2_nvidia_1024", got, expected)


@pytest.mark.slow
def test_rosinality_1024() -> None:
    state, expected = original("stylegan2_rosinality_1024", True)
    net = build_generator(1024, clamp=None)
    net.load_state_dict(layouts.rosinality_generator(state, torch.zeros(512)))
    image = net.synthesis(seeded_input("ros1024_w", (1, 18, 512))).image
    style = net.mapping.style(seeded_input("ros1024_z", (2, 512)))
    got = {"style_w": style, "crop": middle(image), "small": F.avg_pool2d(image, 16), **statistics(image, "")}
    compare("stylegan2_rosinality_1024", got, expected)


def test_discriminator_64() -> None:
    state, expected = original("discriminator_nvidia_64", True)
    net = Discriminator(64, 2048, 64, group=4)
    net.load_state_dict(layouts.nvidia_discriminator(state))
    compare("discriminator_nvidia_64", {"score": net(seeded_input("nvD_img", (4, 3, 64, 64)))}, expected)


def psp(styles: range | tuple[int, ...]) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """Outputs of encoder and of some heads, thinned as the golden file is; the file's own rows of w_plus."""
    shapes = json.loads((GOLDEN / "psp_encoder_keys.json").read_text())
    kept = {k: s for k, s in shapes.items() if not k.startswith("styles.") or int(k.split(".")[1]) in styles}
    expected = dict(np.load(GOLDEN / "psp_encoder.npz"))
    renumbered = {}
    for key, value in seeded_state(kept, False).items():
        parts = key.split(".")
        if parts[0] == "styles":
            parts[1] = str(list(styles).index(int(parts[1])))
        renumbered[".".join(parts)] = value
    encoder_state, heads_state = layouts.psp_encoder(renumbered, torch.zeros(512))
    encoder, heads = Encoder().eval(), LatentHeads(levels=[OFFICIAL_LEVELS[i] for i in styles])
    encoder.load_state_dict(encoder_state)
    heads.load_state_dict(heads_state)
    pyramid = encoder(seeded_input("psp_img", (1, 3, 256, 256)))
    got = {
        "w_plus": heads(pyramid),
        "c1": pyramid.coarse[:, :, ::4, ::4],
        "c2": pyramid.medium[:, ::2, ::2, ::2],
        "c3": pyramid.fine[:, ::2],
    }
    return got, {**expected, "w_plus": expected["w_plus"][:, list(styles)]}


def test_psp_encoder() -> None:
    """One head per level; the rest is the slow test's."""
    compare("psp_encoder", *psp((2, 3, 17)))


@pytest.mark.slow
def test_psp_encoder_all_heads() -> None:
    compare("psp_encoder, all heads", *psp(range(18)))


def test_arcface_irse50() -> None:
    state, expected = original("arcface_irse50", False)
    net = IRSE50().eval()
    net.load_state_dict(layouts.ir_se50(state))
    compare("arcface_irse50", {"embedding": net(seeded_input("irse50_img", (2, 3, 112, 112)))}, expected)


def iresnet(name: str, net: IResNet) -> None:
    """Compares directions: the originals do not normalise."""
    state, expected = original(name, False)
    net.eval().load_state_dict(layouts.arcface_torch(state))
    unit = F.normalize(torch.from_numpy(expected["embedding"])).numpy()
    compare(name, {"embedding": net(seeded_input("iresnet_img", (2, 3, 112, 112)))}, {"embedding": unit})


def test_arcface_iresnet50() -> None:
    iresnet("arcface_iresnet50", iresnet50())


@pytest.mark.slow
def test_arcface_iresnet100() -> None:
    iresnet("arcface_iresnet100", IResNet((3, 13, 30, 3)))
