"""Where triplets come from, in memory or on the disk, and the one dataset that shuffles and augments them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from mattface.errors import InputError
from mattface.training.data.augment import augment
from mattface.training.data.shards import Member, index_shards, read_bytes
from mattface.training.data.triplet_batch import Triplets, concatenate_triplets, unpack
from mattface.training.randomness import shuffled_index, torch_generator
from mattface.training.studio.stream import as_tensors, decode_triplet
from mattface.training.studio.triplet import Triplet
from mattface.training.task import Batch


class TripletSource(Protocol):
    """Triplets by number."""

    count: int

    def batch(self, indices: Sequence[int]) -> Triplets:
        """The triplets of these numbers."""


class MemoryTriplets:
    """Triplets in memory as small numbers.

    Args:
        maps: map of `Triplets` -> (N, C, S, S), packed.
    """

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        self.maps = maps
        self.count = len(maps["source"])

    @classmethod
    def concatenate(cls, parts: Sequence[MemoryTriplets]) -> MemoryTriplets:
        """All triplets of these."""
        return cls({name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps})

    def batch(self, indices: Sequence[int]) -> Triplets:
        """See `TripletSource`; unpacked to float32."""
        chosen = torch.tensor(indices)
        return Triplets(**{name: unpack(name, maps[chosen]) for name, maps in self.maps.items()})


class ShardTriplets:
    """Triplets in the studio's shards, read when they are asked for.

    Args:
        folders: of *.tar files; damaged ones are left out and named in `notes`.
        size: S; shards of another size are rejected.

    Raises:
        InputError: no triplet is there, or of another size.
    """

    def __init__(self, folders: Sequence[Path], size: int) -> None:
        paths = [path for folder in folders for path in sorted(folder.glob("*.tar"))]
        samples, notes = index_shards(paths)
        self.samples = [members for _, members in sorted(samples.items()) if "swap.png" in members]
        self.count, self.notes = len(self.samples), tuple(notes)
        if not self.samples:
            listed = ", ".join(str(folder) for folder in folders)
            raise InputError(
                f"expected shards of triplets in {listed}; found none{''.join(f' ({n})' for n in notes)}. "
                "Make them: mattface studio shards."
            )
        found = read_triplet(self.samples[0]).swap.shape[0]
        if found != size:
            raise InputError(
                f"expected triplets of {size} px as the recipe trains; {self.samples[0]['swap.png']} has {found}. "
                f"Make them with --size {size}, or set size={found}."
            )

    def batch(self, indices: Sequence[int]) -> Triplets:
        """See `TripletSource`; with landmarks and `same`."""
        return concatenate_triplets([as_batch(read_triplet(self.samples[k])) for k in indices])


def read_triplet(members: dict[str, Member]) -> Triplet:
    """A triplet out of its members."""
    return decode_triplet({extension: read_bytes(member) for extension, member in members.items()})


def as_batch(triplet: Triplet) -> Triplets:
    """One triplet as a batch, with landmarks and `same`."""
    made = {name: value[None] for name, value in as_tensors(triplet).items() if name != "exact"}
    marks = {f"{k}_landmarks": torch.from_numpy(triplet.landmarks[k][None, :, :2].copy()) for k in ("source", "target")}
    source, target = triplet.notes[:2]
    return Triplets(**made, **marks, same=torch.tensor([float(source == target)]))


class TripletSamples:
    """Triplets in an order that changes with every epoch, augmented; the same positions always give the same batch.

    Args:
        triplets: where they come from.
        seed: of order and augmentation.
        move: see `augment`; crops that must stay aligned are not moved.
        covered: see `augment`.
    """

    def __init__(self, triplets: TripletSource, seed: int, move: bool = True, covered: float = 0.3) -> None:
        self.triplets, self.seed, self.move, self.covered = triplets, seed, move, covered

    def augmented(self, positions: Sequence[int]) -> Triplets:
        """The triplets at these positions."""
        chosen = [shuffled_index(position, self.triplets.count, self.seed) for position in positions]
        rng = torch_generator(self.seed, positions[0])
        return augment(self.triplets.batch(chosen), rng, self.move, self.covered)

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `mattface.training.data.feed.Samples`: the fields of `Triplets`."""
        return self.augmented(positions).known

    def describe(self) -> dict[str, Any]:
        """Number of triplets."""
        return {"triplets": self.triplets.count}


class SwapTriplets(TripletSamples):
    """The same for `mattface.training.tasks.swap`: "source_image", "target_image" (B, 3, S, S) in [-1, 1];
    "source_landmarks", "target_landmarks" (B, 68, 2) in pixels; "target_mask" (B, 1, S, S); "same" (B,); and the ground
    truth: "truth_image" (B, 3, S, S), "truth_matte" and "truth_visible" (B, 1, S, S), "truth_flow" (B, 2, S, S).

    Args:
        triplets: with landmarks and `same`.
        seed: of order and augmentation.
    """

    def __init__(self, triplets: TripletSource, seed: int) -> None:
        super().__init__(triplets, seed, move=False)

    def batch(self, positions: Sequence[int]) -> Batch:
        """See the class."""
        found = self.augmented(positions)
        return {
            "source_image": found.source,
            "target_image": found.target,
            "source_landmarks": found.source_landmarks,
            "target_landmarks": found.target_landmarks,
            "target_mask": found.mask,
            "same": found.same,
            "truth_image": found.swap,
            "truth_matte": found.matte,
            "truth_visible": found.visible,
            "truth_flow": found.flow,
        }
