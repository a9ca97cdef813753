"""Swaps whose answer is known, by position: triplets of the studio, and swaps that the `mesh` method made of portraits.

Both lie in shards of one format (`mattface.training.studio.stream`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mattface.align import sixty_eight
from mattface.errors import InputError
from mattface.training.augment import PairBatch, occlude, relight
from mattface.training.data.feed import shuffled
from mattface.training.data.shards import Member, index_shards, read_bytes
from mattface.training.pairs import Teacher, crops_of, training_portraits
from mattface.training.studio.stream import decoded, tensors, write_shards
from mattface.training.studio.triplet import Triplet

MIRROR = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
    ]
)
"""The 68 landmarks (iBUG order) of a mirrored face."""
PER_SHARD = 500
COVERED, SHARE = 0.4, 0.7
"""Share of samples that may be covered, and of those whose target is; half as many sources are."""


class Answered:
    """Samples for `mattface.training.tasks.swap`: "source_image", "target_image" (3, S, S) in [-1, 1], their
    "source_landmarks" and "target_landmarks" (68, 2) in pixels, "target_mask" (1, S, S), "same" (1.0 where source and
    target are one person), and the answer: "answer_image" (3, S, S), "answer_matte" and "answer_visible" (1, S, S),
    "answer_flow" (2, S, S) in [-1, 1].

    Half of them are mirrored, all are relit, some covered, so that the answer stays true.

    Args:
        folders: of *.tar files; damaged ones are left out and named in `notes`.
        size: S; shards of another size are refused.
        seed: of order and augmentation.

    Raises:
        InputError: no triplet is there, or of another size.
    """

    def __init__(self, folders: Sequence[Path], size: int, seed: int) -> None:
        paths = [path for folder in folders for path in sorted(folder.glob("*.tar"))]
        samples, notes = index_shards(paths)
        self.samples = [members for _, members in sorted(samples.items()) if "swap.png" in members]
        self.size, self.seed, self.notes = size, seed, tuple(notes)
        if not self.samples:
            listed = ", ".join(str(folder) for folder in folders)
            raise InputError(
                f"expected shards of triplets with answers in {listed}; found none{''.join(f' ({n})' for n in notes)}. "
                "Make them: mattface studio shards."
            )
        found = read(self.samples[0]).swap.shape[0]
        if found != size:
            raise InputError(
                f"expected answers of {size} px as the recipe trains; {self.samples[0]['swap.png']} has {found}. "
                f"Make them with --size {size}, or set size={found}."
            )

    def __getitem__(self, position: int) -> dict[str, Any]:
        triplet = read(self.samples[shuffled(position, len(self.samples), self.seed)])
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        made = tensors(triplet)
        marks = {k: triplet.landmarks[k][:, :2].copy() for k in ("source", "target")}
        if torch.rand((), generator=rng) < 0.5:
            made = {k: v.flip(-1) if v.ndim == 3 else v for k, v in made.items()}
            made["flow"] = made["flow"] * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
            marks = {k: mirrored(v, self.size) for k, v in marks.items()}
        pair = PairBatch(**{k: made[k][None] for k in PairBatch.__dataclass_fields__})
        pair = relight(pair, rng)
        if torch.rand((), generator=rng) < COVERED:
            pair = occlude(pair, rng, SHARE)
        source, target = triplet.notes[:2]
        return {
            "source_image": pair.source[0],
            "target_image": pair.target[0],
            "source_landmarks": marks["source"],
            "target_landmarks": marks["target"],
            "target_mask": pair.mask[0],
            "same": np.float32(source == target),
            "answer_image": pair.swap[0],
            "answer_matte": pair.matte[0],
            "answer_visible": pair.visible[0],
            "answer_flow": pair.flow[0],
        }

    def describe(self) -> dict[str, Any]:
        """Number of answers and their size."""
        return {"answers": len(self.samples), "size": self.size}


def read(members: dict[str, Member]) -> Triplet:
    """A triplet out of its members."""
    return decoded({extension: read_bytes(member) for extension, member in members.items()})


def mirrored(landmarks: np.ndarray, size: int) -> np.ndarray:
    """(68, 2) landmarks of the picture flipped left to right."""
    turned = landmarks[MIRROR].copy()
    turned[:, 0] = size - turned[:, 0]
    return turned


class MeshSwaps:
    """Swaps of the training portraits of a folder by the `mesh` method, as inexact triplets by number.

    Args:
        portraits: folder of pictures; those that evaluate are left out (`mattface.training.pairs.held_out`).
        size: side of the pictures.
        same: share of swaps whose source is the target itself.
        seed: of the choice.

    Raises:
        InputError: fewer than two training portraits.
    """

    def __init__(self, portraits: Path, size: int, same: float, seed: int) -> None:
        self.teacher = Teacher(crops_of(training_portraits(portraits), size))
        self.same, self.seed = same, seed

    def __call__(self, number: int) -> Triplet:
        """The triplet of a number."""
        crops, rng = self.teacher.crops, np.random.default_rng([self.seed, number])
        target = int(rng.integers(len(crops)))
        same = rng.random() < self.same
        source = target if same else (target + int(rng.integers(1, len(crops)))) % len(crops)
        pair, size = self.teacher.pair(source, target), crops[target].size
        masks = {k: getattr(pair, k)[0, 0].numpy() for k in ("visible", "matte", "mask")}
        pictures = {k: eight_bit(getattr(pair, k)[0]) for k in ("source", "target", "swap")}
        meshes = {"source": crops[source].mesh, "target": crops[target].mesh}
        marks = {k: sixty_eight(mesh).astype(np.float32) for k, mesh in meshes.items() if mesh is not None}
        flow = (pair.flow[0].permute(1, 2, 0).numpy() + 1) * (size / 2)
        none = np.zeros((size, size), np.float32)
        return Triplet(
            **pictures, **masks, flow=flow, occluder=none, depth=none, landmarks=marks, coefficients={}, kind="inexact",
            seed=number, notes=(f"portrait {source}", f"portrait {target}", "mesh"),
        )  # fmt: skip


def write_mesh_swaps(portraits: Path, out: Path, count: int, size: int, same: float, seed: int) -> None:
    """Writes `MeshSwaps` as shards, unless they are there.

    Args:
        out: folder of the shards.
        count: swaps in all.
        portraits, size, same, seed: see `MeshSwaps`.
    """
    if len(list(out.glob("*.tar"))) < -(-count // PER_SHARD):
        write_shards(MeshSwaps(portraits, size, same, seed), out, count, PER_SHARD)


def eight_bit(picture: torch.Tensor) -> np.ndarray:
    """(3, S, S) in [-1, 1] to (S, S, 3) uint8."""
    return ((picture.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
