"""Parts of a trained network switched off: each option leaves out what its meaning says, and nothing else."""

from dataclasses import replace

import pytest
import torch
from test_mattface_method import CPU, TINY, crop, randomised, saved

from mattface.benchmarks.ablation import Ablation, ablate
from mattface.benchmarks.runner import read_candidate
from mattface.blend.detail import DetailConfig
from mattface.errors import UsageError, WeightsError
from mattface.layers import resize
from mattface.methods.mattface import MattfaceMethod, build_network
from mattface.methods.mesh import Config, MeshMethod
from mattface.parse import Parser
from mattface.vocabulary import Swap


def swapped(spoil: str | None = None, trained: str = "flow", **parts: str) -> Swap:
    """One swap by a seeded network with these parts; `spoil` is the submodule whose weights are others."""
    network = randomised(replace(TINY, detail=trained))
    if spoil is not None:
        torch.manual_seed(1)
        for p in network.get_submodule(spoil).parameters():
            torch.nn.init.normal_(p)
    if parts.pop("detail", None) == "off":
        network.correspond = None
    Ablation(**parts).apply(network, "tiny")
    chain = MattfaceMethod(network, Parser("mesh"), "tiny", CPU, torch.float32)
    with torch.inference_mode():
        return chain.swap(chain.encode(crop(0)), crop(1))


def same(first: Swap, second: Swap) -> bool:
    return torch.equal(first.pixels, second.pixels) and torch.equal(first.matte, second.matte)


LEVEL_PARTS = [
    ("transfer.levels.medium", {"levels": "coarse+fine"}),
    ("transfer.levels.coarse", {"levels": "fine"}),
    ("transfer.levels.fine", {"levels": "coarse+medium"}),
    ("blend", {"blend": "off"}),
]


@pytest.mark.parametrize(
    ("detail", "part", "option"),
    [("flow", part, {"generator": "off"}) for part in ("generate", "invert")]
    + [(detail, *row) for detail in ("flow", "off") for row in LEVEL_PARTS],
)
def test_what_is_off_does_not_matter_and_what_is_on_does(detail, part, option):
    option = {"detail": detail, **option}
    assert not same(swapped(), swapped(part)), "with everything on the part must matter"
    assert same(swapped(**option), swapped(part, **option))
    assert not same(swapped(detail=detail), swapped(**option))
    assert not same(swapped(**option), swapped("encoder", **option)), "the rest must matter"


def test_all_levels_are_the_network_as_trained():
    assert same(swapped(), swapped(levels="coarse+medium+fine", generator="on", blend="on"))


def test_without_the_generator_nothing_is_drawn():
    assert "side" in swapped().extras and "side" not in swapped(generator="off").extras
    network = randomised(TINY)
    Ablation(generator="off").apply(network, "tiny")
    zeros = network.generate(torch.zeros(2, 10, 8), return_features=True)
    assert zeros.image is None and not any(x.any() for x in zeros.features.values())
    assert {r: tuple(x.shape) for r, x in zeros.features.items()} == {r: (2, c, r, r) for r, c in TINY.channels.items()}
    assert set(network.generate(torch.zeros(2, 10, 8), upto=16).features) == {4, 8, 16}
    with pytest.raises(UsageError, match="the source comes through the generator alone"):
        swapped(generator="off", detail="off")


@pytest.mark.parametrize(
    ("levels", "repeated"),
    [
        ("coarse", {"coarse": "coarse", "medium": "coarse", "fine": "coarse"}),
        ("fine", {"coarse": "fine", "medium": "fine", "fine": "fine"}),
        ("medium+fine", {"coarse": "medium", "medium": "medium", "fine": "fine"}),
        ("coarse+fine", {"coarse": "coarse", "medium": "coarse", "fine": "fine"}),
    ],
)
def test_levels_that_do_not_transfer_pass_the_target_on(levels, repeated):
    network = randomised(TINY)
    with torch.inference_mode():
        source, target = (network.encode(crop(k).pixels) for k in (0, 1))
        before, flows = network.transfer(source, target)
        Ablation(levels=levels).apply(network, "tiny")
        after, kept = network.transfer(source, target)
    for name in repeated:
        expected = before if name in levels.split("+") else target
        assert torch.equal(getattr(after, name), getattr(expected, name)), name
        assert torch.equal(kept[name], flows[repeated[name]]), name


def test_without_the_second_stage_the_generators_picture_lies_under_the_mask():
    swap = swapped(blend="off", detail="off")
    assert torch.equal(swap.pixels, swap.extras["side"])
    assert torch.equal(swap.matte, Parser("mesh")(crop(1)))
    assert torch.equal(swap.pixels, swapped().extras["side"]), "the generator draws what it drew"


def test_with_detail_the_generators_picture_takes_the_decoders_place():
    swap, whole = swapped(blend="off"), swapped()
    sure = swap.extras["confidence"]
    assert torch.equal(sure, whole.extras["confidence"]) and 0 < float(sure.mean()) < 1
    low, high = DetailConfig().trusted
    share = ((sure - low) / (high - low)).clamp(0, 1)
    mixed = share * swap.extras["warped"] + (1 - share) * swap.extras["side"]
    assert torch.allclose(swap.pixels, mixed, atol=1e-6)
    assert torch.equal(swap.matte, resize(whole.matte, 64))


def test_the_benchmark_takes_the_options(tmp_path):
    """As it names them, on a checkpoint."""
    _, path = saved(tmp_path)
    for text in ("generator=off", "levels=coarse+medium", "levels=medium+fine:generator=off", "blend=off:detail=off"):
        swapper = read_candidate(f"mattface:weights={path}:{text}").load("cpu")
        chain = swapper.method
        assert torch.isfinite(chain.swap(chain.encode(crop(0)), crop(1)).pixels).all()
        network = chain.network
        assert (type(network.generate).__name__ == "WithoutGenerator") == ("generator=off" in text)
        assert (type(network.transfer).__name__ == "SomeLevels") == ("levels" in text)
        assert (type(network.blend).__name__ == "WithoutBlend") == ("blend=off" in text)
        assert (network.correspond is None) == ("detail=off" in text)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"generator": False}, r'generator must be "on" or "off"; got False'),
        ({"blend": "no"}, r'blend must be "on" or "off"; got .no'),
        ({"levels": "rough"}, r"levels must be coarse, medium, fine or some.*got .rough"),
        ({"levels": "coarse+coarse"}, "levels must be"),
        ({"levels": ""}, "levels must be"),
        ({"levels": 3}, "levels must be"),
        ({"generator": "off", "blend": "off"}, "Leave one of them on"),
    ],
)
def test_options_that_make_no_sense_are_rejected(option, said):
    with pytest.raises(UsageError, match=said):
        Ablation(**option)


def test_other_methods_have_nothing_to_switch_off():
    method = MeshMethod(Config(), Parser("mesh"), CPU)
    with pytest.raises(UsageError, match=r"only mattface has parts to switch off; got mesh with generator"):
        ablate(method, {"generator": "off"})


def test_what_was_not_trained_cannot_be_switched_on():
    network = build_network(replace(TINY, levels=("fine",), detail="off"))
    with pytest.raises(WeightsError, match="trained to transfer at fine; got levels='medium"):
        Ablation(levels="medium+fine").apply(network, "tiny")
    Ablation(levels="fine").apply(network, "tiny")
