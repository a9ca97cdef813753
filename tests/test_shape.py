"""Whose shape a swapped face has, positions on the mean face, and attention that knows them."""

import numpy as np
import pytest
import torch

from mattface.mesh import topology
from mattface.mesh.shape import align_rigid, blend_shapes, canonical_coordinates
from mattface.transfer.idatt import IDATT, position_grid


def placed(mean: np.ndarray, side: float, turn: float = 0.0) -> np.ndarray:
    """A face of RMS radius 1 in the middle of a crop, turned in the plane by degrees."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return mean @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T * (0.28 * side) + [side / 2, side / 2, 0]


def longer_nose() -> np.ndarray:
    """The mean face with its nose tip lower than it is."""
    mean = topology().mean.copy()
    mean[:, 1] += 0.15 * np.exp(-((mean[:, :2] - mean[4, :2]) ** 2).sum(1) / 0.02)
    return mean


def opened(mean: np.ndarray, factor: float) -> np.ndarray:
    """A mouth of `factor` times the height."""
    ids = np.unique(topology().lip_rings)
    changed, middle = mean.copy(), mean[ids, 1].mean()
    changed[ids, 1] = middle + factor * (mean[ids, 1] - middle)
    return changed


def test_nothing_of_the_source_leaves_the_target():
    target = placed(longer_nose(), 512)
    assert np.allclose(blend_shapes(placed(topology().mean, 256), target, 0.0), target)
    assert np.allclose(blend_shapes(placed(longer_nose(), 256, 30), target, 1.0), target, atol=1e-6)


def test_the_nose_becomes_the_sources_and_the_outline_stays():
    source, target = placed(longer_nose(), 300, 10), placed(topology().mean, 512)
    whole, half = (blend_shapes(source, target, amount) for amount in (1.0, 0.5))
    wanted = align_rigid(source, target)
    assert np.abs(whole - wanted)[4, :2].max() < 0.15 * np.abs(target - wanted)[4, :2].max()
    assert np.allclose(half, (whole + target) / 2)
    assert np.allclose(whole[topology().oval], target[topology().oval])


def test_an_open_mouth_of_the_source_does_not_open_the_targets():
    source, target = placed(opened(topology().mean, 2.0), 512), placed(topology().mean, 512)
    moved = blend_shapes(source, target, 1.0)
    height = [abs(p[13, 1] - p[14, 1]) for p in (moved, target)]
    assert height[0] == pytest.approx(height[1], rel=0.1)


@pytest.mark.parametrize("amount", [-0.1, 1.5])
def test_impossible_amounts_are_rejected(amount):
    with pytest.raises(ValueError, match="between 0 and 1"):
        blend_shapes(topology().mean, topology().mean, amount)


def test_canonical_coordinates_are_those_of_the_mean_face():
    mesh, side = placed(topology().mean, 128, 20), 128
    positions = canonical_coordinates(mesh, side)
    inner = [4, 50, 280, 152, 10]
    at = np.clip(np.floor(mesh[inner, :2]).astype(int), 0, side - 1)
    found = positions[:2, at[:, 1], at[:, 0]].T
    assert np.abs(found - topology().mean[inner, :2]).max() < 0.06
    assert positions[2, 64, 64] == 1 and positions[2, 0, 0] == 0
    assert np.isfinite(positions).all()


def test_attention_finds_the_same_place_of_another_face():
    side = 32
    source, target = (placed(topology().mean, side, turn) for turn in (-15, 20))
    maps = [torch.from_numpy(canonical_coordinates(mesh, side))[None] for mesh in (source, target)]
    block = IDATT(8, canonical=True)
    for layer in (block.query, block.key):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    features = torch.randn(1, 8, side, side)
    _, flow = block(features, features, (maps[0], maps[1]))
    seen = [4, 50, 280, 1, 168]
    at = np.floor(target[seen, :2]).astype(int)
    found = (flow[0, :, at[:, 1], at[:, 0]].T.detach().numpy() + 1) * side / 2
    assert np.abs(found - source[seen, :2]).max() < 1.0, "within a cell"
    own = position_grid(side, side, flow.device, flow.dtype).T.view(2, side, side)
    assert (flow[0, :, :2] - own[:, :2]).abs().max() > 0.1, "beside the face nothing attends to itself"


def test_attention_with_canonical_coordinates_learns_its_sharpness():
    block = IDATT(8, canonical=True)
    block.gamma.data.fill_(1.0)
    maps = torch.from_numpy(canonical_coordinates(placed(topology().mean, 16), 16))[None]
    swapped, flow = block(torch.randn(1, 8, 16, 16), torch.randn(1, 8, 16, 16), (maps, maps))
    (swapped.square().sum() + flow.square().sum()).backward()
    assert block.sharpness.grad is not None and block.sharpness.grad.abs() > 0
