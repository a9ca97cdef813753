"""Loss networks of a training: read, rejected by name where they are missing, and never those that score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded import repeated_state, seeded_input, seeded_state

from mattface import weights
from mattface.errors import InputError, UsageError, WeightsError
from mattface.measure.held_out import HeldOut
from mattface.measure.recognition import load_scorer
from mattface.training.config import LossNetworks
from mattface.training.losses import shape_loss
from mattface.training.losses.networks import loading
from mattface.training.losses.networks.features import IMAGENET_MEAN, VGG16, ResNetMaps
from mattface.training.losses.networks.loading import load_loss_networks, load_perceptual
from mattface.weights.adopt import adopt
from mattface.weights.layouts.estimators import deep3d_shapes
from mattface.weights.layouts.loss_networks import clip_shapes, lpips_shapes, vgg16_shapes

CPU = torch.device("cpu")


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A machine without weights; returns the folder they belong in."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("perceptual", r"network vgg16 .*loss_networks.perceptual=resnet-maps.*mattface weights pull vgg16"),
        ("clip", r"network clip .*loss.clip_text=0.*mattface weights pull clip-vit-b32"),
        ("shape", r"network d3dfr .*loss.shape=0.*mattface weights pull deep3d.*mattface weights adopt"),
        ("identity", r"network arcface .*loss_networks.identity=resnet.*mattface weights adopt"),
    ],
)
def test_networks_that_are_not_here_are_rejected_by_name(empty, kind, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load_loss_networks(LossNetworks(), {kind}, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names, needed",
    [
        (LossNetworks(perceptual="resnet18"), "perceptual"),
        (LossNetworks(clip="clip:/a.pt"), "clip"),
        (LossNetworks(shape="deca"), "shape"),
        (LossNetworks(identity="facenet"), "identity"),
    ],
)
def test_networks_that_do_not_exist_are_rejected(empty, names, needed):
    with pytest.raises(UsageError, match=getattr(names, needed)):
        load_loss_networks(names, {needed}, CPU)


def test_a_file_that_is_not_there_is_rejected(empty):
    with pytest.raises(WeightsError, match=r"network lpips:.*/absent\.pth cannot be read"):
        load_loss_networks(LossNetworks(perceptual="lpips:/absent.pth"), {"perceptual"}, CPU)


def test_clip_needs_open_clip(empty, monkeypatch):
    monkeypatch.setattr(loading, "official", lambda name: {})
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install .mattface\[train\]"):
        load_loss_networks(LossNetworks(), {"clip"}, CPU)


@pytest.mark.slow
def test_clip_is_open_clips_network_with_the_cards_tensors(empty):
    """Built without its weights; names and shapes must be those that the card states."""
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.create_model("ViT-B-32-quickgelu")
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == clip_shapes()


def test_the_shape_network_is_the_regressors_identity(empty):
    torch.save({"net_recon": seeded_state(deep3d_shapes(), False)}, empty / "copy.pth")
    assert adopt(empty / "copy.pth").name == "deep3d"
    shape = load_loss_networks(LossNetworks(), {"shape"}, CPU).shape
    picture = seeded_input("d3dfr_img", (1, 3, 224, 224)).mul(2).sub(1).requires_grad_()
    found = shape(picture)
    golden = np.load(Path(__file__).parent / "golden/face3d_resnet50.npz")["coefficients"][:, :80]
    assert found.shape == (1, 80) and float((found.detach() - torch.from_numpy(golden)).abs().max()) < 1e-3
    shape_loss(found, torch.ones(1, 80)).backward()
    assert float(picture.grad.abs().sum()) > 0
    assert shape(torch.zeros(2, 3, 96, 96)).shape == (2, 80)
    assert not shape.training and not any(p.requires_grad for p in shape.parameters())


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
    grey = (torch.tensor(IMAGENET_MEAN) * 2 - 1).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    bias = whole.features[0].bias
    assert torch.allclose(VGG16.forward(whole_first(whole), grey)[0][0, :, 4, 4], bias.relu(), atol=1e-5)


def whole_first(whole: VGG16) -> VGG16:
    """The first two layers of a network."""
    small = VGG16((1,))
    small.load_state_dict({k: v for k, v in whole.state_dict().items() if k in small.state_dict()})
    return small


def test_vgg16_and_the_heads_of_lpips_are_found_by_their_cards(empty):
    state, heads = repeated_state(vgg16_shapes()), repeated_state(lpips_shapes())
    for name, tensors in (("vgg16", state), ("lpips-vgg", heads)):
        torch.save(tensors, empty / f"{name}.download")
        assert adopt(empty / f"{name}.download").name == name
    frozen = load_loss_networks(LossNetworks(perceptual="lpips"), {"perceptual"}, CPU)
    assert torch.equal(frozen.features.features[28].weight, state["features.28.weight"])
    assert [len(h) for h in frozen.heads] == [m.shape[1] for m in frozen.features(torch.zeros(1, 3, 32, 32))]
    assert all(torch.equal(h, heads[f"lin{k}.model.1.weight"].flatten()) for k, h in enumerate(frozen.heads))
    assert not any(p.requires_grad for p in frozen.features.parameters())
    weights.find("lpips-vgg").unlink()
    with pytest.raises(WeightsError, match="mattface weights pull lpips-vgg"):
        load_loss_networks(LossNetworks(perceptual="lpips"), {"perceptual"}, CPU)


def test_resnet_maps_pass_gradients_to_the_picture(need):
    need("identity-resnet")
    features, _ = load_perceptual("resnet-maps", CPU)
    assert isinstance(features, ResNetMaps)
    picture = torch.zeros(1, 3, 48, 48).add(0.1).requires_grad_()
    sum(m.square().sum() for m in features(picture)).backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in features.parameters())


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
    assert lost["found"] == 0 and "pose" not in lost and "shift" not in lost


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
