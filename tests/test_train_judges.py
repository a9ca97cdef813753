"""Judges of a training: read, refused by name where they are missing, and never those that score."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from mattface.errors import InputError, UsageError, WeightsError
from mattface.training import judges as judging
from mattface.training.judges import VGG16, Judges, ResNetMaps, load_judges, load_perceptual
from mattface.training.scoring import HeldOut, load_scorer

CPU = torch.device("cpu")


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
