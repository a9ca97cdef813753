"""MobileStyleGAN out of OpenVINO IR: the picture that the file means, parts of it, gradients, and bad files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_ir import STYLE, WIDTHS, draw_tiny, write_tiny

from mattface.errors import UsageError, WeightsError
from mattface.generate.mobile import MobileSynthesis
from mattface.generate.named import EMBEDDED, load_generator
from mattface.weights.layouts.mobile_stylegan import mapping_tensors, synthesis_tensors
from mattface.weights.openvino_ir import read_topology

GOLDEN = Path(__file__).parent / "golden" / "mobile_ffhq.npz"


@pytest.fixture(scope="module")
def tiny() -> tuple[MobileSynthesis, dict[str, np.ndarray]]:
    xml, data, constants = write_tiny()
    network = MobileSynthesis(STYLE, {4 << i: c for i, c in enumerate(WIDTHS)}).eval().requires_grad_(False)
    network.load_state_dict(synthesis_tensors(read_topology(xml, data)))
    return network, constants


def styles(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 2 * len(WIDTHS) + 2, STYLE, generator=torch.Generator().manual_seed(3))


def test_draws_what_the_file_means(tiny) -> None:  # type: ignore[no-untyped-def]
    network, constants = tiny
    made = network(styles()).image
    assert torch.allclose(made, draw_tiny(constants, styles()), atol=1e-5)
    assert made.std() > 0.1


def test_every_style_that_has_a_layer_changes_the_picture_and_the_last_two_do_not(tiny) -> None:  # type: ignore[no-untyped-def]
    network, constants = tiny
    for i in range(network.num_styles):
        moved = styles().index_add(1, torch.tensor([i]), torch.ones(1, 1, STYLE))
        change = (network(moved).image - network(styles()).image).abs().max()
        assert bool(change > 1e-4) == (i < network.num_styles - 2)
        assert torch.allclose(network(moved).image, draw_tiny(constants, moved), atol=1e-5)


def test_samples_of_a_batch_are_drawn_as_alone_and_half_size_is_the_mean(tiny) -> None:  # type: ignore[no-untyped-def]
    network, _ = tiny
    both = network(styles(2)).image
    assert torch.allclose(both[1:], network(styles(2)[1:]).image, atol=1e-5)
    assert torch.allclose(network(styles(2), half=True).image, torch.nn.functional.avg_pool2d(both, 2), atol=1e-5)


def test_gradients_reach_every_style(tiny) -> None:  # type: ignore[no-untyped-def]
    network, _ = tiny
    w_plus = styles().requires_grad_(True)
    network(w_plus).image.square().sum().backward()
    used = w_plus.grad.abs().sum((0, 2)) > 0
    assert used.tolist() == [True] * (network.num_styles - 2) + [False] * 2
    frozen = network(styles()).image
    assert torch.allclose(network(w_plus).image.detach(), frozen, atol=1e-5)


@pytest.mark.parametrize("region", [(4, 6, 20, 30), (0, 0, 32, 32)])
def test_a_region_equals_the_whole(tiny, region) -> None:  # type: ignore[no-untyped-def]
    network, _ = tiny
    whole, part = network(styles(), return_features=True), network(styles(), return_features=True, region=region)
    left, top, right, bottom = region
    assert torch.allclose(part.image, whole.image[:, :, top:bottom, left:right], atol=1e-6)
    for r, (x0, y0, x1, y1) in part.boxes.items():
        assert torch.allclose(part.features[r], whole.features[r][:, :, y0:y1, x0:x1], atol=1e-6)


def test_calls_that_do_not_fit_are_rejected(tiny) -> None:  # type: ignore[no-untyped-def]
    network, _ = tiny
    with pytest.raises(UsageError, match=r"w_plus must be \(B, 8, 6\); got \(1, 7, 6\)"):
        network(styles()[:, 1:])
    with pytest.raises(UsageError, match="even edges"):
        network(styles(), region=(1, 0, 9, 8))
    with pytest.raises(UsageError, match="upto must be one of"):
        network(styles(), upto=32)
    with pytest.raises(UsageError, match="noise must be"):
        network(styles(), noise="loud")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a generator, mobile-ffhq or stylegan2-ffhq"):
        load_generator("mobile-cats")


def test_files_that_are_no_such_network_are_rejected() -> None:
    xml, data, _ = write_tiny()
    bomb = b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaa">]><net>&a;</net>'
    with pytest.raises(WeightsError, match="declares entities"):
        read_topology(bomb, data)
    with pytest.raises(WeightsError, match=r"unknown ops \['Sigmoid'\]"):
        synthesis_tensors(read_topology(xml.replace(b'"PReLU"', b'"Sigmoid"'), data))
    with pytest.raises(WeightsError, match="does not fit"):
        read_topology(xml, data[:-4])
    with pytest.raises(WeightsError, match="got 0"):
        synthesis_tensors(read_topology(xml.replace(b"m.input.input", b"something.else"), data))
    with pytest.raises(WeightsError, match="unknown ops"):
        mapping_tensors(read_topology(xml, data))


def test_equals_openvino_on_the_embedded_file(need: Callable[..., None]) -> None:
    need(EMBEDDED)
    golden = np.load(GOLDEN)
    generator = load_generator(EMBEDDED)
    with torch.inference_mode():
        style = generator.mapping.style(torch.from_numpy(golden["z"]))
        image = generator.synthesis(style[:, None].repeat(1, 18, 1)).image
    assert np.abs(style.numpy() - golden["w"]).max() < 1e-4
    assert np.abs(image[:, :, ::16, ::16].numpy() - golden["strided"]).max() < 1e-3
    assert np.abs(image[:, :, 480:512, 400:432].numpy() - golden["crop"]).max() < 1e-3
