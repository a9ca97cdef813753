"""Triplets whose swap the training-free `mesh` method makes of two portraits: pseudo ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mattface import perception
from mattface.align import sixty_eight
from mattface.errors import InputError
from mattface.mesh.shape import blend_shapes, canonical_coordinates
from mattface.methods import mesh
from mattface.training.data.portraits import crop_portraits, training_portraits
from mattface.training.data.triplet_batch import Triplets, concatenate_triplets, pack
from mattface.training.data.triplets import MemoryTriplets
from mattface.training.randomness import torch_generator
from mattface.training.studio.stream import write_shards
from mattface.training.studio.triplet import Triplet
from mattface.training.task import Batch
from mattface.vocabulary import Crop

CONFIG = mesh.Config(local_light=0.4)
"""Light follows the target less closely than by default, lest features of its face be taken for light."""
PARSER = "visible"
"""Who says what of a target's face is seen: the bundled part, so that a run does not depend on what else is here."""
PER_SHARD = 500


class MeshSwapper:
    """Swaps by the `mesh` method between crops, with everything a training may need.

    The swap has part of the source's shape, and less of the target's local light than by default: what a network
    learns of light comes from the studio.

    Args:
        crops: aligned crops of one size.
        shape: how much of the source's proportions the swap has, 0 to 1 (`mattface.mesh.shape.blend_shapes`).
        config: of the method.
    """

    def __init__(self, crops: Sequence[Crop], shape: float = 0.0, config: mesh.Config = CONFIG) -> None:
        self.crops, self.shape = crops, shape
        self.method = mesh.MeshMethod(config, perception.load("parser", PARSER), torch.device("cpu"))
        self.encoded = [self.method.encode(c) for c in crops]

    def triplet(self, source: int, target: int, size: int | None = None) -> Triplets:
        """A batch of one of the crops of these numbers, shrunk to `size`."""
        s, t = self.crops[source], self.crops[target]
        if t.mesh is None or s.mesh is None:
            raise InputError("a training crop must have dense landmarks; got none.")
        shaped = blend_shapes(s.mesh, t.mesh, self.shape)
        swap = self.method.swap(self.encoded[source], replace(t, mesh=shaped))
        flow, visible = swap.extras["flow"], swap.extras["visibility"]
        mask, side = self.method.matte.parser(t), t.size if size is None else size
        known = [torch.from_numpy(canonical_coordinates(m * (side / t.size), side))[None] for m in (s.mesh, shaped)]
        made = Triplets(s.pixels, t.pixels, swap.pixels, flow, visible, swap.matte, mask, *known)
        return made if size is None else made.shrink(size)


class MeshSamples:
    """Full-resolution triplets that are made when they are asked for.

    Args:
        swapper: makes them.
        seed: of the choice.
    """

    def __init__(self, swapper: MeshSwapper, seed: int) -> None:
        self.swapper, self.seed = swapper, seed

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `mattface.training.data.feed.Samples`: the fields of `Triplets`."""
        made = []
        for position in positions:
            rng = torch_generator(self.seed, position)
            source, target = torch.randint(len(self.swapper.crops), (2,), generator=rng).tolist()
            made.append(self.swapper.triplet(source, target))
        return concatenate_triplets(made).known

    def describe(self) -> dict[str, Any]:
        """Number of people."""
        return {"people": len(self.swapper.crops)}


def make_mesh_triplets(swapper: MeshSwapper, size: int, count: int, same: float, seed: int) -> MemoryTriplets:
    """Random triplets in memory.

    Args:
        swapper: makes them.
        size: of the maps.
        count: number of triplets.
        same: ratio of those whose source is the target itself.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    people = len(swapper.crops)
    target = rng.integers(0, people, count)
    source = (target + rng.integers(1, people, count)) % people
    chosen = np.where(rng.random(count) < same, target, source)
    maps: dict[str, list[torch.Tensor]] = {}
    for s, t in tqdm(list(zip(chosen.tolist(), target.tolist(), strict=True)), desc="mesh swaps", disable=None):
        for name, value in swapper.triplet(s, t, size).maps.items():
            maps.setdefault(name, []).append(pack(name, value[0]))
    return MemoryTriplets({name: torch.stack(values) for name, values in maps.items()})


class MeshTripletMaker:
    """Triplets of the training portraits of a folder as the studio writes them, by number.

    Args:
        portraits: folder of pictures; held-out people are left out.
        size: of the pictures.
        same: ratio of triplets whose source is the target itself.
        seed: of the choice.

    Raises:
        InputError: fewer than two training portraits.
    """

    def __init__(self, portraits: Path, size: int, same: float, seed: int) -> None:
        self.swapper = MeshSwapper(crop_portraits(training_portraits(portraits), size))
        self.same, self.seed = same, seed

    def __call__(self, number: int) -> Triplet:
        """The triplet of a number."""
        crops, rng = self.swapper.crops, np.random.default_rng([self.seed, number])
        target = int(rng.integers(len(crops)))
        same = rng.random() < self.same
        source = target if same else (target + int(rng.integers(1, len(crops)))) % len(crops)
        made, size = self.swapper.triplet(source, target), crops[target].size
        masks = {k: made.known[k][0, 0].numpy() for k in ("visible", "matte", "mask")}
        pictures = {k: eight_bit(made.known[k][0]) for k in ("source", "target", "swap")}
        meshes = {"source": crops[source].mesh, "target": crops[target].mesh}
        marks = {k: sixty_eight(mesh).astype(np.float32) for k, mesh in meshes.items() if mesh is not None}
        flow = (made.flow[0].permute(1, 2, 0).numpy() + 1) * (size / 2)
        none = np.zeros((size, size), np.float32)
        return Triplet(
            **pictures, **masks, flow=flow, occluder=none, depth=none, landmarks=marks, coefficients={}, kind="inexact",
            seed=number, notes=(f"portrait {source}", f"portrait {target}", "mesh"),
        )  # fmt: skip


def write_mesh_triplets(portraits: Path, out: Path, count: int, size: int, same: float, seed: int) -> None:
    """Writes the triplets of `MeshTripletMaker` as shards, unless they are there.

    Args:
        out: folder of the shards.
        count: triplets in all.
        portraits, size, same, seed: see `MeshTripletMaker`.
    """
    if len(list(out.glob("*.tar"))) < -(-count // PER_SHARD):
        write_shards(MeshTripletMaker(portraits, size, same, seed), out, count, PER_SHARD)


def eight_bit(picture: torch.Tensor) -> np.ndarray:
    """(3, S, S) in [-1, 1] to (S, S, 3) uint8."""
    return ((picture.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
