"""Pictures of people and their mirror images in memory, for a generator that learns a code for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mattface.mesh.shape import canonical_coordinates
from mattface.training.data.portraits import crop_portraits, training_portraits
from mattface.training.data.triplet_batch import pack, unpack
from mattface.training.data.triplets import MemoryTriplets
from mattface.training.randomness import torch_generator
from mattface.training.task import Batch

MOST = 1024
"""Sources of triplets that are taken where there are no portraits."""


class PeoplePictures:
    """Pictures drawn at random; the same position always gives the same batch.

    Args:
        pixels: (N, 3, S, S) packed.
        canonical: (N, 3, s, s) packed canonical coordinates.
        seed: of the choice.
    """

    def __init__(self, pixels: torch.Tensor, canonical: torch.Tensor, seed: int) -> None:
        self.pixels, self.canonical, self.seed = pixels, canonical, seed
        self.count = 2 * len(pixels)

    @classmethod
    def of_portraits(cls, root: Path, size: int, small: int, seed: int) -> PeoplePictures:
        """The training people of a folder of portraits, aligned to `size`; canonical coordinates of size `small`."""
        pixels, where = [], []
        for crop in crop_portraits(training_portraits(root), size):
            if crop.mesh is not None:
                pixels.append(pack("source", crop.pixels[0]))
                found = canonical_coordinates(crop.mesh * (small / size), small)
                where.append(pack("canonical", torch.from_numpy(found)))
        return cls(torch.stack(pixels), torch.stack(where), seed)

    @classmethod
    def of_sources(cls, triplets: MemoryTriplets, seed: int) -> PeoplePictures:
        """The sources of triplets, at most `MOST` of them, evenly chosen."""
        chosen = torch.linspace(0, triplets.count - 1, min(MOST, triplets.count)).long()
        return cls(triplets.maps["source"][chosen], triplets.maps["source_canonical"][chosen], seed)

    def pictures(self, index: torch.Tensor) -> Batch:
        """ "index", "image" and "canonical" of these numbers (B,); the second half of all are mirror images."""
        flip = (index >= len(self.pixels))[:, None, None, None]
        which = index % len(self.pixels)
        image, where = unpack("source", self.pixels[which]), unpack("canonical", self.canonical[which])
        sign = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
        image = torch.where(flip, image.flip(-1), image)
        return {"index": index, "image": image, "canonical": torch.where(flip, where.flip(-1) * sign, where)}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `mattface.training.data.feed.Samples`."""
        rng = torch_generator(self.seed, positions[0])
        return self.pictures(torch.randint(self.count, (len(positions),), generator=rng))

    def describe(self) -> dict[str, Any]:
        """Number of pictures, mirror images counted."""
        return {"pictures": self.count}
