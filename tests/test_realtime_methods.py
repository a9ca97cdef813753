"""The real-time methods behind their contract: swaps in pictures, codes, geometry, checkpoints, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_swappers import CPU, FOLDED, NAMES, TINY, Means, coder, crop, face_mesh, inputs, method, module, network

import mattface
from mattface import pipeline
from mattface.data.topology import SIXTY_EIGHT
from mattface.errors import UsageError, WeightsError
from mattface.landmarks import five_points
from mattface.methods.contract import CropSpec, Method
from mattface.parse import Parser
from mattface.realtime.methods import alphaface_small, facechanger, magicmask
from mattface.realtime.methods.aligned import build_trained, save_checkpoint
from mattface.realtime.methods.geometry import depth_map, geometry_maps, landmark_map
from mattface.vocabulary import Face


@NAMES
def test_a_swap_in_a_picture_leaves_everything_outside_the_matte(name: str) -> None:
    built = method(name)
    assert isinstance(built, Method)
    mesh = face_mesh(100) + np.array([30, 20, 0])
    face = Face(np.array([30.0, 20, 130, 120]), 0.9, five_points(mesh), mesh)
    swapper = pipeline.Swapper(built, Found(face), Same(), None, CPU)
    source, target = (np.random.default_rng(k).integers(0, 256, (160, 180, 3), np.uint8) for k in range(2))
    result = swapper.swap(source, target)
    inside = result.matte > 0
    assert 0.02 < inside.mean() < 0.5
    assert (result.image[~inside] == target[~inside]).all() and (result.image[inside] != target[inside]).mean() > 0.5
    assert result.report["engine"] == "eager" and result.report["faces"][0]["crop_size"] == 128


def test_a_predicted_matte_is_the_matte_and_its_ends_are_certain(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "alphaface-small", FOLDED, alphaface_small.build_network(FOLDED))
    monkeypatch.setattr("mattface.perception.load", loaded)
    built = alphaface_small.build(str(path), CPU, torch.float32)
    assert built.crop == CropSpec("ffhq", 32)
    code, matte = built.encode(crop()), torch.linspace(-1, 1, 32)
    built.run = lambda target, code: torch.cat([target * 0, matte.expand(1, 1, 32, 32)], 1)
    swap = built.swap(code, crop())
    assert swap.pixels.shape == (1, 3, 32, 32) and swap.matte.shape == (1, 1, 32, 32)
    assert swap.matte[0, 0, 0, :2].tolist() == [0, 0] and swap.matte[0, 0, 0, -2:].tolist() == [1, 1]
    assert (swap.matte[0, 0, 0].diff() >= 0).all()


def loaded(kind: str, *_: Any, **__: Any) -> Any:
    """Parts that need no weights."""
    return coder().embedder if kind == "identity" else Parser("mesh")


class Found:
    name = "fake"

    def __init__(self, face: Face) -> None:
        self.face = face

    def __call__(self, rgb: np.ndarray) -> list[Face]:
        return [self.face]


class Same:
    name = "fake"

    def __call__(self, rgb: np.ndarray, face: Face, passes: int = 2) -> Face:
        return face


def test_the_code_is_of_the_whole_resized_crop_times_the_matrix() -> None:
    given, matrix = crop(64), torch.randn(16, 16)
    small = F.interpolate(given.pixels, (16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = F.normalize(Means()(small) @ matrix, dim=1)
    torch.testing.assert_close(coder(matrix)(given), expected)
    assert float(coder()(given).norm()) == pytest.approx(1, abs=1e-5)
    own = coder(framing="own")(given)  # the fake part's framing is half the crop's scale: its upper left 32 pixels
    torch.testing.assert_close(own, F.normalize(Means()(F.avg_pool2d(given.pixels, 2)[..., :16, :16]), dim=1))
    with pytest.raises(UsageError, match="identity_crop must be one of whole, own"):
        coder(framing="half")


# Geometry


def test_geometry_needs_a_mesh() -> None:
    built = method("magicmask")
    with pytest.raises(UsageError, match="needs dense landmarks"):
        built.swap(torch.zeros(1, 16), replace(crop(), mesh=None))


def test_depth_is_nearest_at_the_nose_and_nothing_outside() -> None:
    mesh = face_mesh(128)
    depth = depth_map(mesh, 128)
    nose, cheek = mesh[1, :2].astype(int), mesh[234, :2].astype(int)
    assert depth[nose[1], nose[0]] > depth.max() - 0.02
    assert depth[cheek[1], cheek[0] + 2] < depth[nose[1], nose[0]] - 0.05
    assert not depth[0].any() and not depth[:, 0].any() and 0.1 < (depth > 0).mean() < 0.6
    nearer = depth_map(mesh - np.array([0, 0, 6.4]), 128)
    covered = depth > 0
    np.testing.assert_allclose((nearer - depth)[covered], 0.05, atol=1e-5)


def test_landmark_spots_lie_on_the_landmarks() -> None:
    mesh = face_mesh(128)
    mesh[SIXTY_EIGHT[30], :2] = [40.5, 50.5]  # onto the centre of a pixel
    spots = landmark_map(mesh, 128)
    assert spots[50, 40] == 1 and spots[50, 41] == pytest.approx(np.exp(-1 / (2 * 1.28**2)), abs=1e-5)
    outside = landmark_map(mesh + np.array([500, 0, 0]), 128)
    assert not outside.any()
    maps = geometry_maps(mesh, 128)
    assert maps.shape == (1, 2, 128, 128) and maps.dtype == torch.float32 and maps.min() >= 0 and maps.max() <= 1


# Checkpoints and errors


@NAMES
def test_a_checkpoint_comes_back_as_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = network(name), tmp_path / "own.safetensors"
    save_checkpoint(path, name, TINY[name], net)
    monkeypatch.setattr("mattface.perception.load", loaded)
    built = module(name).build(str(path), CPU, torch.float32)
    assert built.weights == str(path) and built.crop == CropSpec("arcface", 32) and built.coder.name == "means"
    given = inputs(net)
    with torch.inference_mode():
        torch.testing.assert_close(built.run(*given), net(*given), atol=1e-6, rtol=1e-5)


def test_checkpoints_of_another_method_or_variant_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "facechanger", TINY["facechanger"], network("facechanger"))
    with pytest.raises(WeightsError, match="must carry the method magicmask"):
        magicmask.build(str(path), CPU, torch.float32)
    with pytest.raises(WeightsError, match=r"trained with norm='bn\+in'; got norm='in'"):
        facechanger.build(str(path), CPU, torch.float32, norm="in")
    with pytest.raises(UsageError, match="norm must be one of"):
        facechanger.build(str(path), CPU, torch.float32, norm="some")
    with pytest.raises(UsageError, match="options are"):
        facechanger.build(str(path), CPU, torch.float32, colour="blue")
    wrong = network("facechanger", blocks=1)
    save_checkpoint(path, "facechanger", TINY["facechanger"], wrong)
    with pytest.raises(WeightsError, match="expected the tensors of facechanger"):
        kind, make = facechanger.Config, facechanger.build_network
        build_trained("facechanger", kind, make, str(path), CPU, torch.float32, None, {})


@pytest.mark.parametrize("name", ["alphaface-paper", "facechanger", "magicmask"])
def test_without_weights_the_builder_says_what_to_pass(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"{name} has no published weights.*\.safetensors"):
        mattface.load(name)
