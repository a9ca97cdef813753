"""WPlus -> WPlus: the same person with another pose or expression, by measured directions.

Attributes were measured by the face mesh on drawn people and regressed on their codes; a direction changes one of them
by one unit, leaves the others, and changes what a recognition network sees as little as it can
(`mattface.training.drawn.directions`; the linear idea is Shen et al. 2020, arXiv 1907.10786).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mattface import weights as registry
from mattface.errors import UsageError, WeightsError
from mattface.vocabulary import WPlus
from mattface.weights.licences import commercial_only, require

WEIGHTS = "ffhq-directions"


@dataclass(frozen=True)
class Attribute:
    """One thing that can be changed.

    Attributes:
        unit: what 1 is, for people.
        most: largest change that still draws people, either way.
        layers: first style that moves, and the first that does not any more.
        direction: (D,) of one unit.
    """

    unit: str
    most: float
    layers: tuple[int, int]
    direction: torch.Tensor


@dataclass(frozen=True)
class Directions:
    """All attributes by name. Read them with `load_directions`."""

    attributes: Mapping[str, Attribute]

    def move(self, w_plus: WPlus, changes: Mapping[str, float]) -> WPlus:
        """Moves codes.

        Args:
            w_plus: (B, L, D).
            changes: name -> how many units.

        Raises:
            UsageError: an unknown attribute, or more than draws people.
        """
        moved = w_plus.clone()
        for name, amount in changes.items():
            if name not in self.attributes:
                raise UsageError(f"expected an attribute, one of {', '.join(self.attributes)}; got {name!r}.")
            attribute = self.attributes[name]
            if not abs(amount) <= attribute.most:
                raise UsageError(f"{name} must be within +-{attribute.most:g} {attribute.unit}; got {amount:g}.")
            first, end = attribute.layers
            moved[:, first:end] += amount * attribute.direction.to(moved)
        return moved


def load_directions(weights: str = WEIGHTS, commercial: bool | None = None) -> Directions:
    """Reads the directions.

    Args:
        weights: name or file.
        commercial: refuse those that forbid commercial use; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: they forbid the commercial use that is asked for.
        WeightsError: missing, damaged or of another kind.
    """
    if commercial_only(commercial):
        require(weights, "No others are known: leave the edit out.")
    tensors, metadata = registry.load_tensors(weights)
    try:
        said = json.loads(metadata["attributes"])
        found = {
            name: Attribute(one["unit"], float(one["most"]), tuple(one["layers"]), tensors[name].float())
            for name, one in said.items()
        }
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise WeightsError(
            f"expected directions in {weights}; {error!r} is missing or damaged. Get it again."
        ) from error
    return Directions(found)


def read_changes(text: str) -> dict[str, float]:
    """ "yaw=20,smile=1" to {"yaw": 20.0, "smile": 1.0}.

    Raises:
        UsageError: anything else.
    """
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise UsageError(f"expected NAME=NUMBER,...; got {text!r}. Example: yaw=20,smile=1") from None
