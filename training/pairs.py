"""Swap pairs made by the training-free `mesh` method: the first, inexact teacher."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mattface import align, detect, landmarks, picture_io
from mattface.errors import InputError
from mattface.methods import mesh
from mattface.parse import inner_face
from mattface.training.augment import PairBatch
from mattface.vocabulary import Crop


def held_out(path: Path) -> bool:
    """Whether a portrait belongs to the evaluation people, who never train: a quarter, by a hash of the file's stem."""
    return zlib.crc32(path.stem.encode()) % 4 == 0


def training_portraits(folder: Path) -> list[Path]:
    """Portraits of the training people in a folder, sorted by name."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png") and not held_out(p))
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

    Args:
        crops: aligned crops of one size.
    """

    def __init__(self, crops: Sequence[Crop]) -> None:
        self.crops = crops
        self.method = mesh.build(None, torch.device("cpu"), torch.float32)
        self.encoded = [self.method.encode(c) for c in crops]

    def pair(self, source: int, target: int, size: int | None = None) -> PairBatch:
        """The pair (source, target) with the mesh method's answer, as a batch of one, shrunk to `size`."""
        s, t = self.crops[source], self.crops[target]
        if t.mesh is None:
            raise InputError("a training crop must have dense landmarks; got none.")
        swap = self.method.swap(self.encoded[source], t)
        flow, visible = swap.extras["flow"], swap.extras["visibility"]
        made = PairBatch(s.pixels, t.pixels, swap.pixels, flow, visible, swap.matte, inner_face(t.mesh, t.size))
        return made if size is None else shrink(made, size)


def shrink(pair: PairBatch, size: int) -> PairBatch:
    """Area-averages every map of a pair to a smaller side."""
    return PairBatch(**{k: F.interpolate(v.float(), size=(size, size), mode="area") for k, v in vars(pair).items()})


class PairStore:
    """Pairs in memory as small numbers.

    Args:
        maps: field of `PairBatch` -> (N, C, S, S) packed maps.
    """

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        self.maps = maps
        self.count = len(maps["source"])

    def batch(self, indices: Sequence[int]) -> PairBatch:
        """The pairs of these indices, unpacked to float32."""
        chosen = torch.tensor(indices)
        return PairBatch(**{name: unpack(name, maps[chosen]) for name, maps in self.maps.items()})


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
    """Flow to half precision, everything else to 8 bits."""
    if name == "flow":
        return value.to(torch.float16)
    low = -1.0 if name in ("source", "target", "swap") else 0.0
    return ((value.clamp(low, 1) - low) / (1 - low) * 255).round().to(torch.uint8)


def unpack(name: str, value: torch.Tensor) -> torch.Tensor:
    """Inverse of `pack`."""
    if name == "flow":
        return value.float()
    low = -1.0 if name in ("source", "target", "swap") else 0.0
    return value.float() / 255 * (1 - low) + low
