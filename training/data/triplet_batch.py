"""Triplets as tensors: source, target, and the swap of one into the other that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mattface.errors import UsageError
from mattface.layers import resize
from mattface.training.task import Batch

POSITIONS = ("flow", "source_canonical", "canonical")
"""Maps that hold positions."""
PICTURES = ("source", "target", "swap")
"""Maps in [-1, 1]; those that are neither positions nor pictures lie in [0, 1]."""


@dataclass(frozen=True)
class Triplets:
    """A batch of swaps with their ground truth.

    Attributes:
        source, target, swap: (B, 3, S, S) in [-1, 1]; `swap` is the ground truth.
        flow: (B, 2, S, S) source position for every target position, in [-1, 1].
        visible: (B, 1, S, S) how far the flow is to be trusted.
        matte: (B, 1, S, S) what the swap replaces.
        mask: (B, 1, S, S) the inner face of the target, an input of the method.
        source_canonical, canonical: (B, 3, S, S) of `mattface.mesh.shape.canonical_coordinates`: where on the mean
            face every pixel lies, in the source and in the shape of the swap; None where that is not known.
        source_landmarks, target_landmarks: (B, 68, 2) in pixels, iBUG order; or None.
        same: (B,) 1 where source and target are one person, else 0; or None.
    """

    source: torch.Tensor
    target: torch.Tensor
    swap: torch.Tensor
    flow: torch.Tensor
    visible: torch.Tensor
    matte: torch.Tensor
    mask: torch.Tensor
    source_canonical: torch.Tensor | None = None
    canonical: torch.Tensor | None = None
    source_landmarks: torch.Tensor | None = None
    target_landmarks: torch.Tensor | None = None
    same: torch.Tensor | None = None

    @property
    def known(self) -> Batch:
        """Every field that is there."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def maps(self) -> dict[str, torch.Tensor]:
        """Every map that is there."""
        return {name: value for name, value in self.known.items() if value.ndim == 4}

    @property
    def canonical_maps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`source_canonical` and `canonical`.

        Raises:
            UsageError: these triplets do not know them.
        """
        if self.source_canonical is None or self.canonical is None:
            raise UsageError("expected triplets with canonical coordinates; these have none.")
        return self.source_canonical, self.canonical

    def shrink(self, size: int) -> Triplets:
        """Area-averages every map to a smaller size; landmarks are left out."""
        same = {} if self.same is None else {"same": self.same}
        return Triplets(**{k: resize(v.float(), size) for k, v in self.maps.items()}, **same)


def concatenate_triplets(parts: Sequence[Triplets]) -> Triplets:
    """Batches with the same fields as one."""
    return Triplets(**{name: torch.cat([vars(part)[name] for part in parts]) for name in parts[0].known})


def pack(name: str, value: torch.Tensor) -> torch.Tensor:
    """A map of `Triplets` as small numbers: positions in half precision, everything else in 8 bits."""
    if name in POSITIONS:
        return value.to(torch.float16)
    low = -1.0 if name in PICTURES else 0.0
    return ((value.clamp(low, 1) - low) / (1 - low) * 255).round().to(torch.uint8)


def unpack(name: str, value: torch.Tensor) -> torch.Tensor:
    """Inverse of `pack`."""
    if name in POSITIONS:
        return value.float()
    low = -1.0 if name in PICTURES else 0.0
    return value.float() / 255 * (1 - low) + low
