"""Region-limited synthesis: the part asked for equals a whole run, nothing more is made, wrong regions are rejected."""

from __future__ import annotations

import pytest
import torch

from mattface.errors import UsageError
from mattface.generate.region import REGION_FROM
from mattface.generate.synthesis import SynthesisNetwork

SIDE = 8 * REGION_FROM
INNER = (60, 70, 190, 201)


@pytest.fixture(scope="module")
def net() -> SynthesisNetwork:
    torch.manual_seed(0)
    net = SynthesisNetwork(16, SIDE, channel_base=1024, channel_max=16).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
    return net


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "region", [INNER, (0, 0, 77, SIDE), (13, 200, SIDE, SIDE), (5, 6, 7, 8), (0, 0, SIDE, SIDE), (254, 3, 255, 4)]
)
@pytest.mark.parametrize("noise", ["const", "none"])
def test_equals_a_whole_run(net: SynthesisNetwork, region, batch: int, noise) -> None:  # type: ignore[no-untyped-def]
    w_plus = torch.randn(batch, net.num_styles, 16, generator=torch.Generator().manual_seed(1))
    whole = net(w_plus, noise, return_features=True)
    part = net(w_plus, noise, return_features=True, region=region)
    left, top, right, bottom = region
    assert part.boxes is not None
    assert part.boxes[SIDE] == region
    assert whole.image is not None
    assert part.image is not None
    assert torch.allclose(part.image, whole.image[:, :, top:bottom, left:right], atol=1e-5)
    for r, x in part.features.items():
        left, top, right, bottom = part.boxes[r]
        expected = whole.features[r][:, :, top:bottom, left:right]
        assert x.shape == expected.shape
        assert torch.allclose(x, expected, atol=1e-5)


def test_lower_blocks_alone(net: SynthesisNetwork) -> None:
    w_plus = torch.randn(1, net.num_styles, 16)
    whole = net(w_plus, upto=SIDE // 2)
    part = net(w_plus, upto=SIDE // 2, region=(10, 20, 50, 60))
    assert whole.image is not None
    assert part.image is not None
    assert torch.allclose(part.image, whole.image[:, :, 20:60, 10:50], atol=1e-5)


def test_nothing_more_is_made(net: SynthesisNetwork) -> None:
    """The last block's convolutions see the region and a few pixels around it."""
    sizes = []
    hook = net.get_submodule(f"b{SIDE}").conv1.register_forward_pre_hook(
        lambda _, inputs: sizes.append(inputs[0].shape)
    )
    net(torch.randn(1, net.num_styles, 16), region=INNER)
    hook.remove()
    (size,) = sizes
    assert INNER[2] - INNER[0] <= size[3] <= INNER[2] - INNER[0] + 8
    assert INNER[3] - INNER[1] <= size[2] <= INNER[3] - INNER[1] + 8


@pytest.mark.parametrize("region", [(0, 0, SIDE + 1, 9), (5, 5, 5, 9), (-1, 0, 9, 9), (9, 9, 3, 12)])
def test_wrong_regions_are_rejected(net: SynthesisNetwork, region: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="region must be"):
        net(torch.randn(1, net.num_styles, 16), region=region)


def test_region_and_start_exclude_each_other(net: SynthesisNetwork) -> None:
    w_plus = torch.randn(1, net.num_styles, 16)
    low = net(w_plus, upto=SIDE // 2)
    with pytest.raises(UsageError, match="region or start"):
        net(w_plus, start=(SIDE // 2, low.features[SIDE // 2], low.image), region=INNER)
