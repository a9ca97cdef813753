"""Triplets of the studio in shards as samples with a known answer: KEY.source.png, KEY.target.png, KEY.swap.png, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mattface.errors import InputError
from mattface.training.data.feed import shuffled
from mattface.training.data.shards import index_shards, read_bytes

FIELDS = ("source", "target", "swap", "flow", "visible", "matte", "mask")
"""What a pair with its answer holds, see `mattface.training.augment.PairBatch`."""


class TripletShards:
    """Samples of shards by position, in an order shuffled anew in every epoch.

    Args:
        root: folder of *.tar files; damaged ones are left out and named in `notes`.
        seed: of the order.

    Raises:
        InputError: no triplet is there.
    """

    def __init__(self, root: Path, seed: int) -> None:
        samples, notes = index_shards(sorted(root.glob("*.tar")))
        self.samples = [members for _, members in sorted(samples.items()) if "swap.png" in members]
        self.root, self.seed, self.notes = root, seed, tuple(notes)
        if not self.samples:
            raise InputError(f"{root} must hold shards of triplets; found none{''.join(f' ({n})' for n in notes)}.")

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """Fields of a pair: pictures and flow in [-1, 1], masks in [0, 1]."""
        from mattface.training.studio.stream import decoded, tensors

        members = self.samples[shuffled(position, len(self.samples), self.seed)]
        made = tensors(decoded({extension: read_bytes(member) for extension, member in members.items()}))
        return {name: made[name] for name in FIELDS}

    def describe(self) -> dict[str, Any]:
        """Number of triplets."""
        return {"triplets": len(self.samples)}
