"""Augmentation of swap pairs that keeps their truth true: what changes a picture changes its answer alike.

Everything works on a batch of tensors and takes its randomness from one `torch.Generator`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class PairBatch:
    """Swap pairs with their answer.

    Attributes:
        source, target, swap: (B, 3, S, S) in [-1, 1]; `swap` is the answer.
        flow: (B, 2, S, S) source position for every target position, in [-1, 1].
        visible: (B, 1, S, S) how far the flow is to be trusted.
        matte: (B, 1, S, S) what the answer replaces.
        mask: (B, 1, S, S) the inner face of the target, an input of the method.
    """

    source: torch.Tensor
    target: torch.Tensor
    swap: torch.Tensor
    flow: torch.Tensor
    visible: torch.Tensor
    matte: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class PlacedPairs(PairBatch):
    """Swap pairs that also know where on the mean face every pixel lies.

    Attributes:
        source_places, places: (B, 3, S, S) of `mattface.mesh.shape.canonical`, of the source and of the shape that the
            answer has.
    """

    source_places: torch.Tensor
    places: torch.Tensor


Pairs = TypeVar("Pairs", bound=PairBatch)


def uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Uniform draws in [low, high)."""
    return torch.rand(shape, generator=rng) * (high - low) + low


def mirror(pair: PlacedPairs, rng: torch.Generator) -> PlacedPairs:
    """Flips both faces of half the pairs left to right."""
    flip = (torch.rand(len(pair.source), generator=rng) < 0.5)[:, None, None, None]
    turned = {name: torch.where(flip, value.flip(-1), value) for name, value in vars(pair).items()}
    for name in ("flow", "source_places", "places"):  # x changes its sign, there as here
        sign = torch.ones(1, turned[name].shape[1], 1, 1)
        sign[:, 0] = -1
        turned[name] = torch.where(flip, turned[name] * sign, turned[name])
    return PlacedPairs(**turned)


def affine_matrices(count: int, angle: float, scale: float, shift: float, rng: torch.Generator) -> torch.Tensor:
    """Random similarities (B, 2, 3): angle in degrees, scale as a factor above 1, shift in half widths."""
    turn = uniform(-angle, angle, (count,), rng) * (math.pi / 180)
    size = torch.exp(uniform(-math.log(scale), math.log(scale), (count,), rng))
    cos, sin = size * torch.cos(turn), size * torch.sin(turn)
    move = uniform(-shift, shift, (count, 2), rng)
    return torch.stack([torch.stack([cos, -sin, move[:, 0]], -1), torch.stack([sin, cos, move[:, 1]], -1)], 1)


def resample(maps: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """out(p) = maps(matrix p), borders repeated."""
    grid = F.affine_grid(matrix, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def move_target(pair: PlacedPairs, rng: torch.Generator) -> PlacedPairs:
    """Turns, scales and shifts the target and with it everything drawn on the target's grid."""
    matrix = affine_matrices(len(pair.target), 12, 1.12, 0.08, rng)
    names = ("target", "swap", "flow", "visible", "matte", "mask", "places")
    joint = torch.cat([getattr(pair, n) for n in names], 1)
    parts = resample(joint, matrix).split([getattr(pair, n).shape[1] for n in names], 1)
    return replace(pair, **dict(zip(names, parts, strict=True)))


def move_source(pair: PlacedPairs, rng: torch.Generator) -> PlacedPairs:
    """Turns, scales and shifts the source; the flow follows by the inverse."""
    matrix = affine_matrices(len(pair.source), 12, 1.12, 0.08, rng)
    linear, move = matrix[:, :, :2], matrix[:, :, 2:]
    b, _, h, w = pair.flow.shape
    flow = torch.linalg.solve(linear, pair.flow.flatten(2) - move).view(b, 2, h, w)
    source, places = resample(torch.cat([pair.source, pair.source_places], 1), matrix).split(3, 1)
    return replace(pair, source=source, source_places=places, flow=flow)


def colour_curve(count: int, strength: float, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random gain per channel and gamma per picture."""
    gain = torch.exp(uniform(-strength, strength, (count, 1, 1, 1), rng) + uniform(-0.12, 0.12, (count, 3, 1, 1), rng))
    return gain, torch.exp(uniform(-strength, strength, (count, 1, 1, 1), rng))


def recolour(image: torch.Tensor, gain: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Applies gain and gamma to intensities and clips, as a camera would."""
    return ((image + 1) / 2).clamp(0, 1).pow(gamma).mul(gain).clamp(0, 1) * 2 - 1


def relight(pair: Pairs, rng: torch.Generator) -> Pairs:
    """Recolours the source on its own, and the target together with the answer."""
    count = len(pair.source)
    curve = colour_curve(count, 0.2, rng)
    return replace(
        pair,
        source=recolour(pair.source, *colour_curve(count, 0.3, rng)),
        target=recolour(pair.target, *curve),
        swap=recolour(pair.swap, *curve),
    )


def blob(count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """Soft-edged ellipses and bars at random places, (B, 1, S, S) in [0, 1]."""
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cx, cy = (uniform(-0.6, 0.6, (count, 1, 1), rng) for _ in range(2))
    turn = uniform(0, math.pi, (count, 1, 1), rng)
    long, short = uniform(0.2, 0.9, (count, 1, 1), rng), uniform(0.06, 0.3, (count, 1, 1), rng)
    u = ((x - cx) * torch.cos(turn) + (y - cy) * torch.sin(turn)) / long
    v = ((y - cy) * torch.cos(turn) - (x - cx) * torch.sin(turn)) / short
    power = torch.where(torch.rand((count, 1, 1), generator=rng) < 0.5, 2.0, 8.0)
    inside = 1 - (u.abs().clamp_min(1e-4) ** power + v.abs().clamp_min(1e-4) ** power) ** (1 / power)
    return (inside * size / 12).clamp(0, 1).unsqueeze(1)


def occlude(pair: Pairs, rng: torch.Generator, share: float = 0.3) -> Pairs:
    """Lays textured shapes over some targets (kept by the answer) and some sources (not shown by it)."""
    count, size = len(pair.target), pair.target.shape[-1]
    covers = []
    for part in (share, share / 2):
        wanted = (torch.rand((count, 1, 1, 1), generator=rng) < part).float()
        zoom = affine_matrices(count, 180, 2.0, 0.6, rng)
        covers.append((blob(count, size, rng) * wanted, resample(pair.target.roll(1, 0), zoom)))
    (cover, texture), (hide, other) = covers
    keep = 1 - cover
    return replace(
        pair,
        source=pair.source * (1 - hide) + other * hide,
        target=pair.target * keep + texture * cover,
        swap=pair.swap * keep + texture * cover,
        matte=pair.matte * keep,
        visible=pair.visible * keep,
    )


def augment(pair: PlacedPairs, rng: torch.Generator) -> PlacedPairs:
    """All of the above, in the order a camera would meet them."""
    pair = mirror(pair, rng)
    pair = move_source(move_target(pair, rng), rng)
    return occlude(relight(pair, rng), rng)
