"""Recipes hold the papers' numbers, refuse networks that are not here by name, and train at tiny size."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_data import triplet_folder
from torch import nn

from mattface.cli import main
from mattface.embed import Embedder
from mattface.errors import InputError, UsageError, WeightsError
from mattface.training import judges as judging
from mattface.training.ada import Statistics, augmented, colours, geometry
from mattface.training.data.catalogue import catalogue
from mattface.training.data.feed import face_sample
from mattface.training.estimate import plan
from mattface.training.judges import VGG16, Frozen, Judges, ResNetMaps, load_judges, load_perceptual
from mattface.training.launch import find_recipe
from mattface.training.loop import fit
from mattface.training.recipes import RECIPES
from mattface.training.scoring import HeldOut, load_scorer
from mattface.training.task import Loop
from mattface.training.tasks import Data, generator, joint, swap

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_are_frozen_complete_and_overridable(name):
    for tiny in (False, True):
        recipe = find_recipe(name, tiny, [])
        assert recipe.name == name and recipe.loop.images > 0
        json.dumps(dataclasses.asdict(recipe))
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.name = "other"


def test_the_papers_numbers():
    paper = find_recipe("mattface", False, [])
    assert (paper.loop.steps, paper.loop.batch, paper.same, paper.size) == (50_000, 6, 0.5, 1024)
    adam = paper.optimisers["swapper"]
    assert (adam.kind, adam.rate, adam.betas) == ("adam", 1e-4, (0.9, 0.999))
    assert set(paper.loss) == {"adversarial", "same", "perceptual", "identity", "shape"}
    script = find_recipe("alphaface", False, [])
    adamw = script.optimisers["swapper"]
    assert (adamw.kind, adamw.betas, adamw.decay, adamw.clip) == ("adamw", (0.0, 0.99), 5e-4, 1.0)
    rates = [adamw.rate_at(steps * 2, 2, script.loop.images) for steps in (0, 19_999, 20_000, 40_000)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.97e-4, 0.97**2 * 1e-4])
    assert (script.critic.form, script.critic.begins / script.loop.batch) == ("least-squares", 200_000)
    assert script.loss["identity"] == 10 and script.loss["self"] == 0.5
    magic = find_recipe("magicmask", False, [])
    assert [magic.loss[k] for k in ("identity", "masked", "feature", "self", "adversarial")] == [5, 2, 2, 2, 1]
    assert (magic.critic.kind, magic.size) == ("afsa", 224)
    changer = find_recipe("facechanger", False, [])
    assert changer.both_ways and changer.text == "always" and changer.loss["perceptual"] == 0.5


def test_overrides_reach_every_depth_and_keep_types():
    changed = find_recipe(
        "mattface", False, ["loop.batch=12", "loss.identity=3", "judges.perceptual=resnet-maps", "critic.width=8"]
    )
    assert (changed.loop.batch, changed.loss["identity"], changed.critic.width) == (12, 3.0, 8)
    assert isinstance(changed.loss["identity"], float) and changed.judges.perceptual == "resnet-maps"
    for bad, message in (
        ("loop.bach=1", "bach must be one of"),
        ("loop.batch=many", "expected a int"),
        ("loop", "KEY=VALUE"),
        ("name.x=1", "nothing lies below"),
    ):
        with pytest.raises(UsageError, match=message):
            find_recipe("mattface", False, [bad])
    with pytest.raises(UsageError, match="recipe must be one of"):
        find_recipe("simswap", False, [])


@pytest.mark.parametrize(
    ("names", "needed", "message"),
    [
        (Judges(perceptual="vgg16"), "perceptual", r"VGG16 .*no file.*judges.perceptual=vgg16:FILE.*resnet-maps"),
        (Judges(perceptual="lpips:/absent.pth"), "perceptual", r"VGG16 .*absent.pth"),
        (Judges(), "clip", r"CLIP ViT-B/32; got no file.*judges.clip=clip:FILE"),
        (Judges(), "shape", r"3D face regressor d3dfr.*loss.shape=0"),
    ],
)
def test_networks_that_are_not_here_are_refused_by_name(names, needed, message):
    with pytest.raises(WeightsError, match=message):
        load_judges(names, {needed}, CPU)


def test_a_missing_identity_network_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="arcface"):
        load_judges(Judges(), {"identity"}, CPU)
    with pytest.raises(UsageError, match="vgg16:FILE, lpips:FILE or resnet-maps"):
        load_judges(Judges(perceptual="alexnet"), {"perceptual"}, CPU)


def test_a_network_this_installation_lacks_is_refused(monkeypatch):
    recipe = dataclasses.replace(find_recipe("alphaface", True, []), network="mattface.realtime.methods.absent")
    with pytest.raises(UsageError, match=r"recipe alphaface trains mattface\.realtime\.methods\.absent"):
        swap.module_of(recipe)


def test_vgg16_reads_torchvisions_keys_and_taps_its_layers(tmp_path):
    torch.manual_seed(0)
    whole = VGG16((29,))
    state = {**whole.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}
    assert {"features.0.weight", "features.28.bias"} <= state.keys()
    torch.save(state, tmp_path / "vgg16.pth")
    features, heads = load_perceptual(f"vgg16:{tmp_path / 'vgg16.pth'}", CPU)
    maps = features(torch.zeros(1, 3, 64, 64))
    assert heads is None
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28)]
    grey = (torch.tensor(judging.IMAGENET_MEAN) * 2 - 1).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    bias = whole.features[0].bias
    assert torch.allclose(VGG16.forward(whole_first(whole), grey)[0][0, :, 4, 4], bias.relu(), atol=1e-5)


def whole_first(whole: VGG16) -> VGG16:
    """The first two layers of a network."""
    small = VGG16((1,))
    small.load_state_dict({k: v for k, v in whole.state_dict().items() if k in small.state_dict()})
    return small


def test_lpips_takes_its_heads_from_the_package(tmp_path):
    if find_spec("lpips") is None:
        pytest.skip("lpips is not installed")
    torch.save(VGG16((29,)).state_dict(), tmp_path / "vgg16.pth")
    features, heads = load_perceptual(f"lpips:{tmp_path / 'vgg16.pth'}", CPU)
    assert [len(h) for h in heads] == [m.shape[1] for m in features(torch.zeros(1, 3, 32, 32))]
    assert all((h >= 0).all() for h in heads)


def test_resnet_maps_pass_gradients_to_the_picture(need):
    need("identity-resnet")
    features, _ = load_perceptual("resnet-maps", CPU)
    assert isinstance(features, ResNetMaps)
    picture = torch.zeros(1, 3, 48, 48).add(0.1).requires_grad_()
    sum(m.square().sum() for m in features(picture)).backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in features.parameters())


class Means(nn.Module):
    """An identity network: sixteen means of the picture through a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.matrix = nn.Linear(48, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix(self.pool(x).flatten(1))


class Toy(nn.Module):
    """A swap network of two convolutions and a code, with the signature of the real-time ones."""

    input_names = ("target", "code", "geometry")

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 6, 3, padding=1)
        self.code = nn.Linear(16, 6)
        self.decoder = nn.Module()
        self.decoder.convs = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)])

    def forward(self, target: torch.Tensor, code: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        x = self.encoder(target) * self.code(code)[..., None, None] + maps.mean(1, keepdim=True)
        for conv in self.decoder.convs:
            x = conv(torch.tanh(x))
        return torch.tanh(x)


@dataclass(frozen=True)
class ToyConfig:
    size: int = 32


@pytest.fixture
def toy(monkeypatch) -> str:
    """Name of a module with a toy network, and of one beside it that draws its maps."""
    module, beside = ModuleType("toyswap.net"), ModuleType("toyswap.geometry")
    module.Config, module.build_network, module.NAME = ToyConfig, lambda config: Toy(), "toy"
    beside.geometry_maps = lambda mesh, size: torch.full((1, 2, size, size), float(mesh.shape[0]) / 468)
    monkeypatch.setitem(sys.modules, "toyswap", ModuleType("toyswap"))
    monkeypatch.setitem(sys.modules, "toyswap.net", module)
    monkeypatch.setitem(sys.modules, "toyswap.geometry", beside)
    return "toyswap.net"


@pytest.fixture
def judged(monkeypatch) -> Frozen:
    """All judges, small ones, in place of those that are loaded."""
    torch.manual_seed(1)
    network = Means().requires_grad_(False)
    embedder = Embedder("means", network, 16, 32, lambda mesh, points: np.eye(3))

    def image(pictures: torch.Tensor) -> torch.Tensor:
        return network(pictures)

    def text(captions: Any) -> torch.Tensor:
        return torch.stack([torch.linspace(-1, 1, 16) * len(c) for c in captions])

    found = Frozen(embedder, "whole", lambda x: [x, x[..., ::2, ::2]], None, (image, text), image)
    monkeypatch.setattr(swap, "load_judges", lambda names, needed, device: found)
    return found


ALL = {
    "same": 1.0,
    "identity": 1.0,
    "shape": 1.0,
    "masked": 1.0,
    "cycle": 1.0,
    "self": 1.0,
    "feature": 1.0,
    "perceptual": 1.0,
    "clip_text": 1.0,
    "clip_identity": 1.0,
    "adversarial": 0.1,
    "weights": 0.1,
}


def toy_recipe(network: str, **changes: Any) -> swap.SwapRecipe:
    rate = find_recipe("magicmask", True, []).optimisers["swapper"]
    fields: dict[str, Any] = {
        "network": network,
        "size": 32,
        "same": 0.3,
        "loss": ALL,
        "critic": swap.Critic("afsa", width=4, patch=16),
    }
    loop = Loop(24, 4, accumulate=2, average=0.9, log_every=4, save_every=12, grid_every=12)
    return swap.SwapRecipe("toy", loop, {"swapper": rate, "critic": rate}, **fields | changes)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["afsa", "patch", "global"])
@pytest.mark.parametrize("both", [False, True])
def test_every_loss_of_the_papers_takes_part(tmp_path, toy, judged, kind, both):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    (data / "text" / "p3.txt").unlink()
    recipe = toy_recipe(toy, both_ways=both, critic=swap.Critic(kind, width=2, patch=16))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = rows(tmp_path / "run")
    assert {k.removeprefix("swap/") for k in found[0] if k.startswith("swap/")} == {*ALL, "loss"}
    assert all(np.isfinite(v) for row in found for v in row.values())
    assert any("1 of 6 pictures have no caption: p3" in note for note in stage.notes)
    assert len(list((tmp_path / "run" / "grids").iterdir())) == 2
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "toy.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"]) == {"size": 32}
        assert file.metadata()["method"] == "toy"


def test_learning_swaps_lowers_the_losses(tmp_path, toy, judged):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = toy_recipe(toy, loss={"masked": 1.0, "self": 1.0, "identity": 0.1})
    recipe = dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, images=240), critic=None)
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    losses = [row["swap/loss"] for row in rows(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_a_text_loss_without_any_caption_is_refused(tmp_path, toy, judged):
    data = triplet_folder(tmp_path / "data", 4, size=64)
    for path in (data / "text").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="clip_text needs captions"):
        next(swap.stages(toy_recipe(toy), Data(data, held_out=0), CPU))


def test_the_critic_begins_when_the_recipe_says(tmp_path, toy, judged):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = toy_recipe(toy, critic=swap.Critic("patch", width=4, begins=12))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    before = [p.clone() for p in stage.task.networks["critic"].parameters()]
    short = dataclasses.replace(stage.loop, images=12)
    fit(stage.task, stage.feed, short, tmp_path / "run", recipe, "cpu", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(before, stage.task.networks["critic"].parameters(), strict=True))
    assert "swap/adversarial" not in rows(tmp_path / "run")[0]
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    assert "swap/adversarial" in rows(tmp_path / "run")[-1]


def test_the_plan_tells_what_a_training_needs_and_trains_nothing(tmp_path, toy, judged):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    (stage,) = swap.stages(toy_recipe(toy), Data(data, held_out=0), CPU)
    text = plan(stage.task, stage.feed, stage.loop, CPU)
    assert "recipe toy: 24 images in 6 steps of 4" in text
    assert "network swapper: " in text and "phase critic trains critic" in text
    assert "s for a micro-batch of 2" in text and "GiB of activations" in text
    assert not (tmp_path / "run").exists()


def test_frozen_parts_stay_as_they_are(tmp_path, judged):
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = find_recipe("mattface", True, ["loop.images=12", "loop.score_every=0", "loss.perceptual=0"])
    recipe = dataclasses.replace(recipe, frozen=("encoder", "generate"), judges=Judges("means", "whole"))
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    network = stage.task.networks["swapper"]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    changed = {k.split(".")[0] for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not changed & {"encoder", "generate"}
    assert not network.encoder.training and network.invert.training


def test_the_generator_recipe_trains_with_every_penalty(tmp_path):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    recipe = find_recipe("generator", True, ["loop.images=32", "r1_every=2", "path_every=2", "span=100"])
    (stage,) = generator.stages(recipe, Data(data, held_out=0), CPU)
    start = stage.task.generator.mapping.w_avg.clone()
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = rows(tmp_path / "run")
    assert {"generator/adversarial", "path/path", "critic/adversarial", "r1/r1"} <= found[0].keys()
    assert "path/path" not in found[1] and "path/path" in found[2]
    assert not torch.equal(stage.task.generator.mapping.w_avg, start)
    assert stage.task.statistics.path > 0


def test_the_joint_recipe_learns_to_reproduce(tmp_path):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    changes = ["loop.images=160", "loop.score_every=160", "loss.perceptual=0", "loss.identity=0"]
    recipe = find_recipe("encoder-generator", True, changes)
    (stage,) = joint.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    found = [row for row in rows(tmp_path / "run") if "pair/photo" in row]
    assert np.mean([r["pair/photo"] for r in found[-4:]]) < 0.8 * np.mean([r["pair/photo"] for r in found[:4]])
    assert any("score/grey_levels" in row for row in rows(tmp_path / "run"))


def test_augmentation_is_off_at_zero_and_differs_from_picture_to_picture():
    torch.manual_seed(0)
    pictures = torch.rand(1, 3, 16, 16).expand(6, 3, 16, 16).clone().requires_grad_()
    assert augmented(pictures, torch.tensor(0.0)) is pictures
    moved = augmented(pictures, torch.tensor(0.8))
    assert all(not torch.allclose(moved[0], other) for other in moved[1:])
    moved.sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0


def test_augmentation_turns_flips_and_recolours_as_it_should():
    torch.manual_seed(0)
    matrix, offset = colours(400, torch.tensor(1.0))
    grey = matrix @ torch.ones(3)
    assert torch.allclose(grey, grey.mean(1, keepdim=True).expand_as(grey), atol=1e-4)  # grey stays grey
    assert offset.std() == pytest.approx(0.2, rel=0.2)
    assert torch.allclose(colours(3, torch.tensor(0.0))[0], torch.eye(3).expand(3, 3, 3), atol=1e-6)
    still = geometry(3, 16, torch.tensor(0.0))
    assert torch.allclose(still, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3), atol=1e-6)
    found = geometry(400, 16, torch.tensor(1.0))[:, :, :2]
    assert 0.3 < (torch.linalg.det(found) < 0).float().mean() < 0.7  # half of them are flipped


def test_augmentation_follows_the_sign_of_overfitting():
    statistics = Statistics()
    for _ in range(40):
        statistics.follow(torch.tensor(1.0), 0.6, 10, 1000)
    high = float(statistics.p)
    assert 0.2 < high <= 0.4
    for _ in range(60):
        statistics.follow(torch.tensor(0.0), 0.6, 10, 1000)
    assert float(statistics.p) < high
    assert set(statistics.state_dict()) == {"p", "sign", "path"}


def test_scoring_measures_people_with_another_network(need, faces, shared):
    need("centerface", "face-mesh")
    files = sorted((shared / "data" / "scoring").glob("*.onnx"))
    if not files:
        pytest.skip("no scoring network in the reference data")
    samples = {name: sample_of(*face) for name, face in faces.items()}
    held = HeldOut(samples, str(files[0]), "resnet", 0)
    numbers = held(lambda source, target: target["image"])
    assert numbers["found"] == 1 and numbers["cosine"] == pytest.approx(numbers["untouched"], abs=0.05)
    assert numbers["pose"] < 2 and numbers["shift"] < 3
    lost = held(lambda source, target: torch.zeros_like(target["image"]))
    assert lost == {"found": 0.0}


def sample_of(pixels: np.ndarray, face: Any) -> dict[str, Any]:
    from mattface.align import cut

    crop = cut(pixels, face, "ffhq", 256)
    return {"image": crop.pixels[0], "mesh": crop.mesh.astype(np.float32), "points": crop.points.astype(np.float32)}


def test_the_network_that_trains_may_not_score(need, tmp_path):
    need("identity-resnet")
    with pytest.raises(UsageError, match="resnet trains, so it cannot score"):
        load_scorer("resnet", "resnet")
    with pytest.raises(InputError, match="is no file"):
        load_scorer(str(tmp_path / "absent.onnx"), "resnet")
    with pytest.raises(InputError, match="at least two held-out people"):
        HeldOut({}, "resnet", "arcface", 0)


def test_the_command_trains_plans_and_refuses(tmp_path, capsys):
    data = triplet_folder(tmp_path / "data", 8, size=64) / "img"
    command = ["train", "generator", "--tiny", "--data", str(data), "--out", str(tmp_path / "run"), "--held-out", "0"]
    command += ["--set", "loop.images=16", "--device", "cpu"]
    assert main([*command, "--dry-run"]) == 0
    assert "phase path trains generator, every 4 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main(command) == 0
    assert (tmp_path / "run" / "generator.safetensors").exists()
    assert main([*command, "--set", "gamma=3"]) == 2
    assert "gamma" in capsys.readouterr().err
    assert main(["train", "simswap"]) == 2
    assert main(["train", "list"]) == 0
    assert "alphaface" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["alphaface", "alphaface-paper", "facechanger", "magicmask"])
def test_real_time_recipes_train_their_networks(name, tmp_path, judged, monkeypatch):
    recipe = find_recipe(name, True, ["loop.images=8", "loop.grid_every=8", "critic.begins=0"])
    pytest.importorskip(recipe.network, reason="the real-time networks are not in this installation")
    data = triplet_folder(tmp_path / "data", 6, size=64)
    recipe = dataclasses.replace(recipe, sizes=recipe.sizes | {"code": 16})
    (stage,) = swap.stages(recipe, Data(data, held_out=0), CPU)
    fit(stage.task, stage.feed, stage.loop, tmp_path / "run", recipe, "cpu", quiet=True)
    assert all(np.isfinite(v) for row in rows(tmp_path / "run") for v in row.values())
    assert (tmp_path / "run" / f"{name}.safetensors").exists()


def test_samples_have_landmarks_where_they_are_asked_for(tmp_path):
    record = catalogue(triplet_folder(tmp_path, 1)).records[0]
    assert "mesh" not in face_sample(record, 32, meshes=False)
    assert face_sample(record, 32, meshes=True)["mesh"].shape == (468, 3)
    assert face_sample(record, 32, True)["landmarks"].max() < 32
