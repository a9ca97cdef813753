"""What every swapping method promises, so that one pipeline, trainer and benchmark serve them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch

from mattface.align import native_size
from mattface.vocabulary import Crop, Face, MatteFilter, Swap


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


@dataclass(frozen=True)
class Description:
    """What reports say of a method.

    Attributes:
        name: registry key.
        weights: name of the weights in use, None for a method without any.
        parser: the part that finds the inner face.
        engine: what runs the network; None for a method that has no choice.
        notes: sentences for every report.
    """

    name: str
    weights: str | None
    parser: str
    engine: str | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Method(Protocol):
    """One way to swap an aligned face. Arguments are always (source, target)."""

    @property
    def name(self) -> str:
        """Registry key."""

    @property
    def crop(self) -> CropSpec:
        """The framing it wants."""

    def encode(self, source: Crop) -> Any:
        """Encodes the source crop once; the result is opaque to the pipeline."""

    def merge(self, encoded: Sequence[Any]) -> Any:
        """One source out of several pictures of one person.

        Args:
            encoded: at least two from `encode`, the one whose head looks most nearly where the target's does first.
        """

    def swap(self, encoded: Any, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop.

        Args:
            encoded: from `encode` or `merge`.
            target: batch of one.
            matte_filter: of the face that is followed through moving pictures; None in stills.

        Returns:
            Pixels and matte of the target crop's size.
        """

    def describe(self) -> Description:
        """What reports say of it."""


class Builder(Protocol):
    """Builds a method."""

    def __call__(
        self,
        weights: str | None,
        device: torch.device,
        dtype: torch.dtype,
        commercial: bool | None = None,
        **options: Any,
    ) -> Method:
        """The method, ready to swap.

        Args:
            weights: name or path; None takes the method's default.
            device, dtype: where the networks run, and the dtype in which they multiply.
            commercial: pick only parts that allow commercial use; None: as $MATTFACE_COMMERCIAL says. Method and named
                weights are checked before, see `mattface.methods.require_commercial`.
            options: the method's own.

        Raises:
            UsageError: an unknown option or value, or a part that forbids the commercial use that is asked for.
            WeightsError: weights are missing or damaged.
        """


def filtered(swap: Swap, matte_filter: MatteFilter | None) -> Swap:
    """The swap with its matte filtered over time: for methods that need the matte for nothing else."""
    if matte_filter is None:
        return swap
    matte = matte_filter(swap.matte[0, 0].float().cpu().numpy())
    return replace(swap, matte=torch.from_numpy(matte)[None, None].to(swap.matte))
