"""Samples by position, and the one feed that makes their batches ahead of time.

What is at a position depends on the position and the seed alone: a run that continues sees what it would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from mattface.align import sixty_eight
from mattface.errors import InputError
from mattface.landmarks import five_points
from mattface.training.data.catalogue import Catalogue
from mattface.training.data.records import Record, read_caption, read_image, read_mask, read_mesh
from mattface.training.randomness import numpy_generator, shuffled_index
from mattface.training.task import Batch

NICENESS = 10
Draw = Callable[[np.ndarray, int], torch.Tensor]


class Samples(Protocol):
    """Samples by position."""

    def batch(self, positions: Sequence[int]) -> Batch:
        """A batch of the samples at these positions."""

    def describe(self) -> dict[str, Any]:
        """What it is made of, for the run's config."""


class Collated:
    """Samples that do not depend on each other, by `self[position]`."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at a position."""
        raise NotImplementedError

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Samples`."""
        made: Batch = default_collate([self[position] for position in positions])
        return made


class Faces(Collated):
    """Single pictures: "image" (3, S, S) in [-1, 1], half of them mirrored.

    Args:
        catalogue: where they come from.
        size: S.
        seed: of order and mirroring.
    """

    def __init__(self, catalogue: Catalogue, size: int, seed: int) -> None:
        self.catalogue, self.size, self.seed = catalogue.large_enough(min(size, 64)), size, seed

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = shuffled_index(position, len(self.catalogue.records), self.seed)
        pixels = as_tensor(read_image(self.catalogue.records[index], self.size))
        return {"image": pixels.flip(-1) if numpy_generator(self.seed, position).random() < 0.5 else pixels}

    def describe(self) -> dict[str, Any]:
        """Layout and number of pictures."""
        return {"layout": self.catalogue.layout, "pictures": len(self.catalogue.records), "size": self.size}


class FacePairs(Collated):
    """Sources and targets. Keys, each with the prefix "source_" and "target_":

    "image" (3, S, S) in [-1, 1]; "mask" (1, S, S) inner face; "caption" text, empty without one; with meshes "mesh"
    (468, 3), "landmarks" (68, 2) and "points" (5, 2) in pixels, and "maps", what `draw` makes. Without prefix: "same",
    1.0 for one person, else 0.0.

    Args:
        catalogue: where they come from.
        size: S.
        same: ratio of pairs of one person (another picture where there is one, else the same).
        seed: of order, pairing and mirroring.
        meshes: whether landmarks are needed.
        masks: whether masks are needed.
        draw: mesh and size to maps (1, C, S, S) that the network wants beside the picture.

    Raises:
        InputError: one person only, or records without a mask or mesh that is needed.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        size: int,
        same: float,
        seed: int,
        meshes: bool = False,
        masks: bool = True,
        draw: Draw | None = None,
    ) -> None:
        catalogue = catalogue.large_enough(min(size, 64))
        self.catalogue, self.size, self.same, self.seed = catalogue, size, same, seed
        self.meshes, self.draw, self.people = meshes, draw, catalogue.identities()
        if len(self.people) < 2 and same < 1:
            raise InputError(
                f"{catalogue.root} must hold at least two people to swap between; found {len(self.people)} "
                f"({len(catalogue.records)} pictures). Add pictures of others, or train with same = 1."
            )
        for needed, what, has in (
            (masks, "mask", [bool(r.masks) or r.mesh is not None for r in catalogue.records]),
            (meshes, "mesh", [r.mesh is not None for r in catalogue.records]),
        ):
            if needed and not all(has):
                raise InputError(
                    f"every picture of {catalogue.root} must have a {what}; {has.count(False)} of {len(has)} have "
                    f"none. Run: mattface data prepare {catalogue.root} OUT"
                )

    def __getitem__(self, position: int) -> dict[str, Any]:
        rng, records = numpy_generator(self.seed, position), self.catalogue.records
        target = records[shuffled_index(position, len(records), self.seed)]
        same = bool(rng.random() < self.same)
        source = self._partner(target, same, rng)
        sample: dict[str, Any] = {"same": np.float32(same)}
        for name, record in (("source", source), ("target", target)):
            flip = bool(rng.random() < 0.5)
            sample |= {f"{name}_{k}": v for k, v in self._face(record, flip).items()}
        return sample

    def _partner(self, target: Record, same: bool, rng: np.random.Generator) -> Record:
        own = self.people[target.identity]
        records = self.catalogue.records
        if same:
            others = [i for i in own if records[i] is not target]
            return records[int(rng.choice(others))] if others else target
        while True:
            source = records[int(rng.integers(len(records)))]
            if source.identity != target.identity:
                return source

    def _face(self, record: Record, flip: bool) -> dict[str, Any]:
        return face_sample(record, self.size, self.meshes, flip, self.draw)

    def describe(self) -> dict[str, Any]:
        """Layout, number of pictures and people, ratio of one person."""
        shape = {"layout": self.catalogue.layout, "pictures": len(self.catalogue.records), "size": self.size}
        return shape | {"people": len(self.people), "same": self.same}


def face_sample(
    record: Record, size: int, meshes: bool, flip: bool = False, draw: Draw | None = None
) -> dict[str, Any]:
    """What `FacePairs` holds of one record."""
    from mattface.mesh import topology
    from mattface.parse import inner_face

    pixels = as_tensor(read_image(record, size))
    mask, mesh = read_mask(record, size), read_mesh(record, size)
    if mask is not None:
        area = torch.from_numpy(mask)[None]
    elif mesh is not None:
        area = inner_face(mesh, size)[0]
    else:
        area = torch.zeros(1, size, size)
    if flip:
        pixels, area = pixels.flip(-1), area.flip(-1)
        mesh = mirror_mesh(mesh, size, topology().mirror) if mesh is not None else None
    sample: dict[str, Any] = {"image": pixels, "mask": area, "caption": read_caption(record)}
    if meshes and mesh is not None:
        sample |= {"mesh": mesh.astype(np.float32), "points": five_points(mesh).astype(np.float32)}
        sample["landmarks"] = sixty_eight(mesh).astype(np.float32)
        if draw is not None:
            sample["maps"] = draw(mesh, size)[0]
    return sample


def mirror_mesh(mesh: np.ndarray, size: int, partner: np.ndarray) -> np.ndarray:
    """(468, 3) landmarks of the picture flipped left to right."""
    turned = mesh[partner].copy()
    turned[:, 0] = size - turned[:, 0]
    return turned


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to (3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


class _Batches(Dataset):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        return self.samples.batch(positions)


def lower_priority(_: int) -> None:
    """Lets the training go first where workers share its cores: they use what it leaves idle."""
    import cv2

    cv2.setNumThreads(0)
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def leave(batch: Any) -> Any:
    """The batch as it is."""
    return batch


class PositionFeed:
    """Batches of samples by position, made ahead by worker processes; a `mattface.training.task.Feed`.

    Args:
        samples: what they are made of.
        workers: processes; 0 makes batches in this one.
    """

    def __init__(self, samples: Samples, workers: int = 0) -> None:
        self.samples, self.workers = samples, workers

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        loader: DataLoader[Any] = DataLoader(
            _Batches(self.samples),
            sampler=positions,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.workers,
            collate_fn=leave,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=lower_priority,
        )
        return iter(loader)

    def describe(self) -> dict[str, Any]:
        """What the samples are."""
        return self.samples.describe()
