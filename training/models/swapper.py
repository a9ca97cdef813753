"""The swap network of a recipe: found by its method's name, built, and what it returns."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from mattface.errors import UsageError
from mattface.methods import METHODS
from mattface.training.config import SwapRecipe

DrawMaps = Callable[[np.ndarray, int], torch.Tensor]
"""(468, 3) mesh in pixels and size S to conditioning maps (1, C, S, S)."""


@dataclass(frozen=True)
class SwapOutput:
    """What a swap network returns.

    Attributes:
        picture: (B, 3, S, S) the result.
        drawn: (B, 3, S, S) the network's own pixels, everywhere.
        matte: (B, 1, S, S) in [0, 1] where they replace the target's; None for a network that predicts none.
        flow: (B, 2, S, S) in [-1, 1] source position for every target position; None for a network without.
    """

    picture: torch.Tensor
    drawn: torch.Tensor
    matte: torch.Tensor | None = None
    flow: torch.Tensor | None = None

    def composite(self, target: torch.Tensor, matte: torch.Tensor | None) -> torch.Tensor:
        """The result with another matte, where the network predicts one; with that of the ground truth, losses on the
        picture cannot be lowered by hiding it.
        """
        if self.matte is None or matte is None:
            return self.picture
        return target + matte * (self.drawn - target)


def method_module(recipe: SwapRecipe) -> ModuleType:
    """The module of the recipe's method, by the registry of methods.

    Raises:
        UsageError: there is no such method, or this installation lacks it.
    """
    if recipe.method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(sorted(METHODS))}; got {recipe.method!r}.")
    try:
        return importlib.import_module(METHODS[recipe.method].module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"recipe {recipe.name} trains {recipe.method}, which this installation does not have ({error}). "
            "Install a version of mattface with it."
        ) from error


def network_config(recipe: SwapRecipe) -> Any:
    """The network's own configuration."""
    return method_module(recipe).Config(**recipe.network)


def build_swapper(recipe: SwapRecipe) -> nn.Module:
    """The network with fresh weights."""
    network: nn.Module = method_module(recipe).build_network(network_config(recipe))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def conditioning_maps(recipe: SwapRecipe) -> DrawMaps | None:
    """What draws the maps that the network takes beside the target; None where it takes none."""
    if recipe.conditioning == "none":
        return None
    from mattface.realtime.methods.geometry import geometry_maps

    return geometry_maps


class DecoderMaps:
    """Outputs of every convolution of the decoder, the one to RGB included (MagicMask eq. 8), of what runs inside
    `with maps as list`.

    Args:
        network: with a `decoder` that has `convs`, and `to_rgb` where its last convolution is not among them.
    """

    def __init__(self, network: nn.Module) -> None:
        decoder = network.get_submodule("decoder")
        convs = getattr(decoder, "convs", None)
        if convs is None:
            raise UsageError("loss feature needs a decoder of convolutions (convs); this network's has none.")
        self.maps: list[torch.Tensor] | None = None
        last = getattr(decoder, "to_rgb", None)
        for conv in [*convs, *([] if last is None else [last])]:
            conv.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if self.maps is not None:
            self.maps.append(output)

    def __enter__(self) -> list[torch.Tensor]:
        self.maps = []
        return self.maps

    def __exit__(self, *_: object) -> None:
        self.maps = None

    def __deepcopy__(self, _: dict[int, Any]) -> DecoderMaps:
        return self  # hooks of an averaged copy keep nothing of their own
