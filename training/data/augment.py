"""Augmentation of triplets that keeps their ground truth true: what changes the target changes the swap alike.

Everything works on a batch of tensors and takes its randomness from one `torch.Generator`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from mattface.training.data.triplet_batch import POSITIONS, Triplets

MIRROR = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
    ]
)
"""The 68 landmarks (iBUG order) of a mirrored face."""


def uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Uniform draws in [low, high)."""
    return torch.rand(shape, generator=rng) * (high - low) + low


def mirror(triplets: Triplets, rng: torch.Generator) -> Triplets:
    """Flips both faces of half the triplets left to right."""
    size = triplets.source.shape[-1]
    chosen = torch.rand(len(triplets.source), generator=rng) < 0.5
    flip = chosen[:, None, None, None]
    turned = {name: torch.where(flip, value.flip(-1), value) for name, value in triplets.maps.items()}
    for name in turned.keys() & set(POSITIONS):  # x changes its sign, there as here
        sign = torch.ones(1, turned[name].shape[1], 1, 1)
        sign[:, 0] = -1
        turned[name] = torch.where(flip, turned[name] * sign, turned[name])
    for name in triplets.known.keys() & {"source_landmarks", "target_landmarks"}:
        marks = triplets.known[name]
        turned[name] = torch.where(chosen[:, None, None], mirror_landmarks(marks, size), marks)
    return replace(triplets, **turned)


def mirror_landmarks(landmarks: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 68, 2) landmarks of pictures flipped left to right."""
    turned = landmarks[:, MIRROR].clone()
    turned[..., 0] = size - turned[..., 0]
    return turned


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


def move_points(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(B, 2, N) points in [-1, 1] of a picture, where `resample` by the matrices (B, 2, 3) takes them."""
    return torch.linalg.solve(matrix[:, :, :2], points - matrix[:, :, 2:])


def move_landmarks(triplets: Triplets, name: str, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """The landmarks of that name, where `resample` takes them; nothing where there are none."""
    if name not in triplets.known:
        return {}
    half = triplets.source.shape[-1] / 2
    points = triplets.known[name].transpose(1, 2) / half - 1
    return {name: (move_points(points, matrix) + 1).transpose(1, 2) * half}


def move_target(triplets: Triplets, rng: torch.Generator) -> Triplets:
    """Turns, scales and shifts the target and with it everything drawn on the target's grid."""
    matrix = affine_matrices(len(triplets.target), 12, 1.12, 0.08, rng)
    maps = {name: value for name, value in triplets.maps.items() if name not in ("source", "source_canonical")}
    parts = resample(torch.cat(list(maps.values()), 1), matrix).split([m.shape[1] for m in maps.values()], 1)
    return replace(
        triplets, **dict(zip(maps, parts, strict=True)), **move_landmarks(triplets, "target_landmarks", matrix)
    )


def move_source(triplets: Triplets, rng: torch.Generator) -> Triplets:
    """Turns, scales and shifts the source; the flow follows by the inverse."""
    matrix = affine_matrices(len(triplets.source), 12, 1.12, 0.08, rng)
    flow = move_points(triplets.flow.flatten(2), matrix).view_as(triplets.flow)
    maps = {name: value for name, value in triplets.maps.items() if name in ("source", "source_canonical")}
    parts = resample(torch.cat(list(maps.values()), 1), matrix).split(3, 1)
    return replace(
        triplets,
        flow=flow,
        **dict(zip(maps, parts, strict=True)),
        **move_landmarks(triplets, "source_landmarks", matrix),
    )


def colour_curve(count: int, strength: float, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random gain per channel and gamma per picture."""
    gain = torch.exp(uniform(-strength, strength, (count, 1, 1, 1), rng) + uniform(-0.12, 0.12, (count, 3, 1, 1), rng))
    return gain, torch.exp(uniform(-strength, strength, (count, 1, 1, 1), rng))


def recolour(image: torch.Tensor, gain: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Applies gain and gamma to intensities and clips, as a camera would."""
    return ((image + 1) / 2).clamp(0, 1).pow(gamma).mul(gain).clamp(0, 1) * 2 - 1


def relight(triplets: Triplets, rng: torch.Generator) -> Triplets:
    """Recolours the source on its own, and the target together with the swap."""
    count = len(triplets.source)
    curve = colour_curve(count, 0.2, rng)
    return replace(
        triplets,
        source=recolour(triplets.source, *colour_curve(count, 0.3, rng)),
        target=recolour(triplets.target, *curve),
        swap=recolour(triplets.swap, *curve),
    )


def blob(count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """Soft-edged ellipses and bars at random positions, (B, 1, S, S) in [0, 1]."""
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


def occlude(triplets: Triplets, rng: torch.Generator, covered: float = 0.3) -> Triplets:
    """Lays textured shapes over some targets (kept by the swap) and some sources (not shown by it)."""
    count, size = len(triplets.target), triplets.target.shape[-1]
    covers = []
    for ratio in (covered, covered / 2):
        wanted = (torch.rand((count, 1, 1, 1), generator=rng) < ratio).float()
        zoom = affine_matrices(count, 180, 2.0, 0.6, rng)
        covers.append((blob(count, size, rng) * wanted, resample(triplets.target.roll(1, 0), zoom)))
    (cover, texture), (hide, other) = covers
    keep = 1 - cover
    return replace(
        triplets,
        source=triplets.source * (1 - hide) + other * hide,
        target=triplets.target * keep + texture * cover,
        swap=triplets.swap * keep + texture * cover,
        matte=triplets.matte * keep,
        visible=triplets.visible * keep,
    )


def augment(triplets: Triplets, rng: torch.Generator, move: bool = True, covered: float = 0.3) -> Triplets:
    """All of the above, in the order a camera would meet them.

    Args:
        triplets: a batch.
        rng: of every draw.
        move: whether source and target are turned, scaled and shifted.
        covered: ratio of targets that get a cover; half as many sources do.
    """
    triplets = mirror(triplets, rng)
    if move:
        triplets = move_source(move_target(triplets, rng), rng)
    return occlude(relight(triplets, rng), rng, covered)
