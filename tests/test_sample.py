"""People who do not exist: the distribution they are drawn from, the samplers, the command, and who carries latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from seeded import seeded_tensor
from test_mattface_method import TINY, randomised
from test_training import MemoryStore, begin, tiny_recipe

import mattface
from mattface import cli, picture_io, sampling
from mattface.errors import InputError, UsageError, WeightsError
from mattface.generate.generator import Generator, build_generator
from mattface.generate.latents import Latents
from mattface.methods.mattface import build
from mattface.pixels import to_pixels
from mattface.provenance import GENERATED
from mattface.training.data.feed import PositionFeed
from mattface.training.data.triplets import TripletSamples
from mattface.training.tasks import triplets

STYLES, WIDTH = 10, 8
"""Of the tiny network."""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def known(count: int = 40) -> torch.Tensor:
    """Codes that vary along three directions only."""
    directions = torch.randn(3, STYLES * WIDTH, generator=rng(1)) * torch.tensor([[3.0], [2.0], [1.0]])
    return (torch.randn(count, 3, generator=rng(2)) @ directions + 5).view(count, STYLES, WIDTH)


def test_latents_have_the_codes_mean_and_spread():
    codes = known()
    latents = Latents.fit(codes)
    assert latents.axes.shape == (3, STYLES * WIDTH), "only directions in which the codes differ"
    drawn = latents.sample(rng(), count=20000)
    assert drawn.shape == (20000, STYLES, WIDTH)
    found, expected = (torch.cov(x.flatten(1).T) for x in (drawn, codes))
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert (drawn.mean(0) - codes.mean(0)).abs().max() < 0.2
    lengths = latents.axes.norm(dim=1)
    assert (lengths[:-1] >= lengths[1:]).all()
    assert torch.equal(Latents.fit(codes, 2).axes, latents.axes[:2]), "the longest stay"


def test_truncation_pulls_towards_the_mean():
    latents = Latents.fit(known())
    assert torch.equal(latents.sample(rng(), 0.0)[0], latents.mean)
    whole, half = (latents.sample(rng(), t) - latents.mean for t in (1.0, 0.5))
    assert torch.allclose(half, whole / 2, atol=1e-5) and whole.norm() > 1
    assert not torch.equal(latents.sample(rng(1)), latents.sample(rng(2)))


@pytest.mark.parametrize(("codes", "count"), [(torch.zeros(1, 2, 3), 1), (torch.zeros(4, 6), 1), (known(), 0)])
def test_latents_need_several_codes(codes, count):
    with pytest.raises(UsageError, match="latents need"):
        Latents.fit(codes, count)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": torch.zeros(STYLES, WIDTH + 1)},
        {"axes": torch.zeros(2, 3)},
        {"axes": torch.zeros(0, STYLES * WIDTH)},
        {"mean": torch.full((STYLES, WIDTH), float("nan"))},
        {"more": torch.zeros(1)},
        {"axes": None},
    ],
)
def test_other_latents_are_rejected(change):
    good = Latents.fit(known()).tensors()
    kept = {k: v for k, v in (good | {f"latents.{k}": v for k, v in change.items()}).items() if v is not None}
    with pytest.raises(WeightsError, match="expected finite latents"):
        Latents.read(kept, (STYLES, WIDTH), "x")
    read = Latents.read(good | {"encoder.weight": torch.zeros(1)}, (STYLES, WIDTH), "x")
    assert torch.equal(read.axes, good["latents.axes"]) and torch.equal(read.mean, good["latents.mean"])


def checkpoint(folder: Path, latents: bool = True) -> Path:
    """A tiny mattface checkpoint."""
    path = folder / f"{'with' if latents else 'without'}.safetensors"
    more = Latents.fit(known()).tensors() if latents else {}
    tensors = {k: v.contiguous() for k, v in (randomised(TINY).state_dict() | more).items()}
    save_file(tensors, path, {"config": TINY.to_json()})
    return path


def stylegan2(folder: Path) -> tuple[Generator, Path]:
    """A small StyleGAN2 of seeded weights, as a converted file."""
    network = build_generator(32, 16, 3, channels={4: 8, 8: 8, 16: 8, 32: 4}).eval()
    state = {k: seeded_tensor(k, v.shape, equalized=True) for k, v in network.state_dict().items()}
    fast = {k: 100 * v for k, v in state.items() if k.startswith("mapping.fc")}  # what the multiplier 0.01 takes away
    state |= fast
    network.load_state_dict(state)
    save_file(state, folder / "style.safetensors", {"layout": "stylegan2-nvidia"})
    return network, folder / "style.safetensors"


def test_a_checkpoint_draws_from_its_latents(tmp_path):
    path = checkpoint(tmp_path)
    drawn = mattface.sample(3, weights=str(path), truncation=0.5, device="cpu")[0]
    w_plus = Latents.fit(known()).sample(rng(3), 0.5)
    with torch.inference_mode():
        expected = randomised(TINY).generate(w_plus, noise="const").image
    assert drawn.shape == (64, 64, 3) and np.array_equal(drawn, to_pixels(expected, np.uint8))
    assert build(str(path), torch.device("cpu"), torch.float32).weights == str(path), "swapping leaves latents aside"


def test_stylegan2_draws_through_its_mapping_network(tmp_path):
    network, path = stylegan2(tmp_path)
    drawn = []
    for truncation in (0.0, 0.6, 1.0):
        z = torch.randn(1, 16, generator=rng(4))
        with torch.inference_mode():
            expected = to_pixels(network(z, truncation).image, np.uint8)
        drawn.append(sampling.load(str(path), "cpu")(4, truncation))
        assert np.array_equal(drawn[-1], expected)
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    average = network.synthesis(network.mapping.w_avg.expand(1, network.mapping.num_styles, -1)).image
    assert np.array_equal(sampling.load(str(path), "cpu")(9, 0.0), to_pixels(average, np.uint8))


@pytest.mark.parametrize("kind", ["latents", "mapping"])
def test_a_seed_is_a_person(tmp_path, kind):
    path = checkpoint(tmp_path) if kind == "latents" else stylegan2(tmp_path)[1]
    together = mattface.sample(5, 3, str(path), device="cpu")
    alone = [mattface.sample(seed, 1, str(path), device="cpu")[0] for seed in (5, 6, 7)]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert not np.array_equal(alone[0], alone[1])


def test_weights_that_draw_nothing_are_rejected(tmp_path):
    with pytest.raises(WeightsError, match=r"carries no latents.*mattface train mattface-demo"):
        sampling.load(str(checkpoint(tmp_path, latents=False)), "cpu")
    with pytest.raises(UsageError, match="expected weights that draw people"):
        sampling.load("bisenet", "cpu")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"layout": "stylegan2-nvidia"})
    with pytest.raises(WeightsError, match="with its mapping network"):
        sampling.load(str(tmp_path / "x.safetensors"), "cpu")
    state = load_file(stylegan2(tmp_path)[1])
    save_file(
        {k: v for k, v in state.items() if "fc1" not in k}, tmp_path / "x.safetensors", {"layout": "stylegan2-nvidia"}
    )
    with pytest.raises(WeightsError, match="differ"):
        sampling.load(str(tmp_path / "x.safetensors"), "cpu")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--count", "0"], "count of at least 1"),
        (["--count", "-2"], "count of at least 1"),
        (["--seed", "-1"], "seeds between 0"),
        (["--seed", str(2**63 - 1), "--count", "2"], "seeds between 0"),
        (["--truncation", "1.1"], "truncation between 0 and 1"),
        (["--truncation", "nan"], "truncation between 0 and 1"),
        (["--edit", "yaw"], "expected NAME=NUMBER"),
        (["--out", "a.jpg"], "a name ending in .png; got a.jpg"),
        (["--out", "a.png", "--count", "2"], "a name ending in .png; got a.png for 2"),
    ],
)
def test_the_command_rejects_what_makes_no_sense(more, words, capsys):
    assert cli.main(["sample", "--seed", "0", *more]) == UsageError.exit_code
    assert words in capsys.readouterr().err


def test_the_command_writes_marked_pictures_once(tmp_path, capsys):
    weights, out = ["--weights", str(checkpoint(tmp_path)), "--device", "cpu"], tmp_path / "people"
    assert cli.main(["sample", "--seed", "8", "--count", "2", "--out", str(out), *weights]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["8.png", "9.png"]
    first = picture_io.read(out / "8.png").pixels
    assert np.array_equal(picture_io.read(out / "9.png").pixels, mattface.sample(9, weights=weights[1])[0])
    mark = picture_io.read_mark(out / "8.png")
    assert mark is not None and (mark.digital_source_type, mark.tool) == (GENERATED, "mattface")
    assert str(out / "9.png") in capsys.readouterr().out
    (out / "9.png").unlink()
    assert cli.main(["sample", "--seed", "7", "--count", "2", "--out", str(out), *weights]) == InputError.exit_code
    assert "the file exists" in capsys.readouterr().err and not (out / "7.png").exists(), "checked before drawing"
    assert cli.main(["sample", "--seed", "8", "--out", str(out), "--overwrite", *weights]) == 0
    assert np.array_equal(picture_io.read(out / "8.png").pixels, first)
    assert cli.main(["sample", "--seed", "8", "--out", str(tmp_path / "one.png"), *weights]) == 0
    assert np.array_equal(picture_io.read(tmp_path / "one.png").pixels, first)
    assert cli.main(["sample", "--seed", "8", "--out", str(tmp_path / "one.png" / "in"), *weights]) == 3


def test_exports_carry_the_latents(tmp_path):
    recipe = tiny_recipe()
    latents = Latents.fit(known())
    network, feed = triplets.build_network(recipe.config), PositionFeed(TripletSamples(MemoryStore(), 0))
    made = triplets.stage(recipe, "swap", network, feed, None, latents)
    made.task.export(made.task.networks, tmp_path, "now")
    assert torch.equal(load_file(tmp_path / "tiny.safetensors")["latents.axes"], latents.axes.half())
    begin(recipe, "swap").task.export(made.task.networks, tmp_path, "now")
    assert not any(key.startswith("latents") for key in load_file(tmp_path / "tiny.safetensors"))
