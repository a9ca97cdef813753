"""Swap pairs made by the training-free `mesh` method: the first, inexact teacher."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mattface import align, detect, landmarks, picture_io
from mattface.errors import InputError
from mattface.layers import resize
from mattface.mesh.shape import canonical, mixed
from mattface.methods import mesh
from mattface.parse import load_parser
from mattface.training.augment import PlacedPairs
from mattface.vocabulary import Crop

TAUGHT = mesh.Config(local_light=0.4)
"""The teacher: light follows the target less closely than by default, lest features of its face be taken for light."""
PARSER = "visible"
"""Who says what of a target's face is seen: the bundled part, so that a run does not depend on what else is here."""
POSITIONS = ("flow", "source_places", "places")
"""Fields that hold positions."""


def held_out(path: Path) -> bool:
    """Whether a portrait belongs to the evaluation people, who never train: a quarter, by a hash of the file's stem."""
    return zlib.crc32(path.stem.encode()) % 4 == 0


def pictures(folder: Path) -> list[Path]:
    """Picture files in a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


def training_portraits(folder: Path) -> list[Path]:
    """Portraits of the training people in a folder, sorted by name."""
    paths = [p for p in pictures(folder) if not held_out(p)]
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least two portraits of training people; found {len(paths)}.")
    return paths


def crops_of(paths: Sequence[Path], size: int) -> list[Crop]:
    """Detects, aligns and cuts the largest face of every portrait that has one."""
    find, measure = detect.load_detector(), landmarks.load_landmarker()
    crops = []
    for path in tqdm(paths, desc=f"aligning at {size} px", disable=None):
        pixels = picture_io.read(path).pixels
        faces = find(pixels)
        if faces:
            crops.append(align.cut(pixels, measure(pixels, faces[0]), "ffhq", size))
    return crops


class Teacher:
    """Answers of the `mesh` method for pairs of crops.

    The answer has part of the source's shape, and less of the target's local light than by default: what the pupil
    learns of light comes from the studio.

    Args:
        crops: aligned crops of one size.
        shape: how much of the source's proportions the answer has, 0 to 1 (`mattface.mesh.shape.mixed`).
        config: of the method.
    """

    def __init__(self, crops: Sequence[Crop], shape: float = 0.0, config: mesh.Config = TAUGHT) -> None:
        self.crops, self.shape = crops, shape
        self.method = mesh.MeshMethod(config, load_parser(PARSER), torch.device("cpu"))
        self.encoded = [self.method.encode(c) for c in crops]

    def pair(self, source: int, target: int, size: int | None = None) -> PlacedPairs:
        """The pair (source, target) with the mesh method's answer, as a batch of one, shrunk to `size`."""
        s, t = self.crops[source], self.crops[target]
        if t.mesh is None or s.mesh is None:
            raise InputError("a training crop must have dense landmarks; got none.")
        shaped = mixed(s.mesh, t.mesh, self.shape)
        swap = self.method.swap(self.encoded[source], replace(t, mesh=shaped))
        flow, visible = swap.extras["flow"], swap.extras["visibility"]
        mask, side = self.method.matte.parser(t), t.size if size is None else size
        known = [torch.from_numpy(canonical(m * (side / t.size), side))[None] for m in (s.mesh, shaped)]
        made = PlacedPairs(s.pixels, t.pixels, swap.pixels, flow, visible, swap.matte, mask, *known)
        return made if size is None else shrink(made, size)


def shrink(pair: PlacedPairs, size: int) -> PlacedPairs:
    """Area-averages every map of a pair to a smaller side."""
    return PlacedPairs(**{k: resize(v.float(), size) for k, v in vars(pair).items()})


class PairStore:
    """Pairs in memory as small numbers.

    Args:
        maps: field of `PlacedPairs` -> (N, C, S, S) packed maps.
    """

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        self.maps = maps
        self.count = len(maps["source"])

    @classmethod
    def joined(cls, stores: Sequence[PairStore]) -> PairStore:
        """All pairs of these stores."""
        return cls({name: torch.cat([s.maps[name] for s in stores]) for name in stores[0].maps})

    def batch(self, indices: Sequence[int]) -> PlacedPairs:
        """The pairs of these indices, unpacked to float32."""
        chosen = torch.tensor(indices)
        return PlacedPairs(**{name: unpack(name, maps[chosen]) for name, maps in self.maps.items()})


def make_pairs(teacher: Teacher, size: int, count: int, same: float, seed: int) -> PairStore:
    """Lets the teacher answer random pairs.

    Args:
        teacher: who answers.
        size: side of the stored maps.
        count: number of pairs.
        same: share of pairs whose source is the target itself.
        seed: of the choice of pairs.
    """
    rng = np.random.default_rng(seed)
    people = len(teacher.crops)
    target = rng.integers(0, people, count)
    source = (target + rng.integers(1, people, count)) % people
    chosen = np.where(rng.random(count) < same, target, source)
    maps: dict[str, list[torch.Tensor]] = {}
    for s, t in tqdm(list(zip(chosen.tolist(), target.tolist(), strict=True)), desc="mesh swaps", disable=None):
        for name, value in vars(teacher.pair(s, t, size)).items():
            maps.setdefault(name, []).append(pack(name, value[0]))
    return PairStore({name: torch.stack(values) for name, values in maps.items()})


def pack(name: str, value: torch.Tensor) -> torch.Tensor:
    """Positions to half precision, everything else to 8 bits."""
    if name in POSITIONS:
        return value.to(torch.float16)
    low = -1.0 if name in ("source", "target", "swap") else 0.0
    return ((value.clamp(low, 1) - low) / (1 - low) * 255).round().to(torch.uint8)


def unpack(name: str, value: torch.Tensor) -> torch.Tensor:
    """Inverse of `pack`."""
    if name in POSITIONS:
        return value.float()
    low = -1.0 if name in ("source", "target", "swap") else 0.0
    return value.float() / 255 * (1 - low) + low
