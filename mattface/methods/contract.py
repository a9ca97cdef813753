"""What every swapping method promises, so that one pipeline, trainer and benchmark serve them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from mattface.align import native_size
from mattface.vocabulary import Crop, Face, Swap


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

    def side(self, face: Face) -> int | None:
        """Side of the crop of a face; None leaves the choice to `mattface.align.cut`."""
        if self.size is not None or self.largest is None:
            return self.size
        return min(native_size(face, self.template), self.largest)


Steady = Callable[[np.ndarray], np.ndarray]
"""(S, S) float32 matte of this frame -> the matte to use, calmed by those of the frames before."""


@runtime_checkable
class Method(Protocol):
    """One way to swap an aligned face. Arguments are always (source, target).

    A method that uses its matte before it returns it (to blend in bands, say) has `steadies = True` and takes a third,
    optional argument `steady: Steady | None`, which it applies to the matte first; for the others `steadied` does so.
    """

    name: str
    crop: CropSpec
    weights: str | None
    """Name of the weights in use, None for methods without any."""

    def encode(self, source: Crop) -> Any:
        """Encodes the source crop once; the result is opaque to the pipeline."""

    def swap(self, encoded: Any, target: Crop) -> Swap:
        """Swaps one target crop (batch of one), returning pixels and matte of the target crop's size."""


def steadied(method: Method, encoded: Any, target: Crop, steady: Steady | None) -> Swap:
    """Swaps one target crop, its matte calmed over time where `steady` is given: by the method itself, or afterwards.

    Args:
        method: swaps.
        encoded: from the method's `encode`.
        target: crop, batch of one.
        steady: calms the matte.
    """
    if steady is None:
        return method.swap(encoded, target)
    if getattr(method, "steadies", False):
        return method.swap(encoded, target, steady)  # type: ignore[call-arg]
    swap = method.swap(encoded, target)
    matte = steady(swap.matte[0, 0].float().cpu().numpy())
    return replace(swap, matte=torch.from_numpy(matte)[None, None].to(swap.matte))


Builder = Any
"""build(weights: str | None, device: torch.device, dtype: torch.dtype, **options) -> Method."""

__all__: Sequence[str] = ["Builder", "CropSpec", "Method", "Steady", "steadied"]
