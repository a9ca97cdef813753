"""What every swapping method promises, so that one pipeline, trainer and benchmark serve them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mattface.vocabulary import Crop, Swap


@dataclass(frozen=True)
class CropSpec:
    """The framing a method wants its crops in.

    Attributes:
        template: "ffhq" (oriented square from eyes and mouth) or "arcface" (five-point template).
        size: side in pixels; None lets the pipeline choose the picture's own resolution (between 256 and 4096).
        largest: bound on that choice; None for 4096.
    """

    template: str
    size: int | None
    largest: int | None = None


Steady = Callable[[np.ndarray], np.ndarray]
"""(S, S) float32 matte of this frame -> the matte to use, calmed by those of the frames before."""


@runtime_checkable
class Method(Protocol):
    """One way to swap an aligned face. Arguments are always (source, target).

    A method that uses its matte before it returns it (to blend in bands, say) has `steadies = True` and takes a third,
    optional argument `steady: Steady | None`, which it applies to the matte first; for the others the caller does so.
    """

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

__all__: Sequence[str] = ["Builder", "CropSpec", "Method", "Steady"]
