"""What every swapping method promises, so that one pipeline, trainer and benchmark serve them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mattface.vocabulary import Crop, Swap


@dataclass(frozen=True)
class CropSpec:
    """The framing a method wants its crops in.

    Attributes:
        template: "ffhq" (oriented square from eyes and mouth) or "arcface" (five-point template).
        size: side in pixels; None lets the pipeline choose the picture's own resolution (between 256 and 4096).
    """

    template: str
    size: int | None


@runtime_checkable
class Method(Protocol):
    """One way to swap an aligned face. Arguments are always (source, target)."""

    name: str
    crop: CropSpec
    weights: str | None
    """Name of the weights in use, None for methods without any."""

    def encode(self, source: Crop) -> Any:
        """Encodes the source crop once; the result is opaque to the pipeline."""

    def swap(self, encoded: Any, target: Crop) -> Swap:
        """Swaps one target crop (batch of one), returning pixels and matte of the target crop's size."""


Builder = Any
"""build(weights: str | None, device: torch.device, dtype: torch.dtype, **options) -> Method."""

__all__: Sequence[str] = ["Builder", "CropSpec", "Method"]
