"""What a swap training is made of: its configuration, the faces of a pair, the network it names and what that made."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.methods.psp import official_parts
from mattface.training.judges import Judges
from mattface.training.task import Batch, Recipe

ANSWERED = frozenset({"supervised", "flow", "matte"})
"""Losses that compare with a known answer."""


@dataclass(frozen=True)
class Critic:
    """The discriminator.

    Attributes:
        kind: "global", "patch" or "afsa" (see `mattface.training.critics`).
        form: of `mattface.training.losses.FORMS`.
        width: channels.
        patch: side of AFSA's patches.
        begins: images after which it takes part.
    """

    kind: str = "patch"
    form: str = "log"
    width: int = 64
    patch: int = 64
    begins: int = 0


@dataclass(frozen=True)
class SwapRecipe(Recipe):
    """Configuration of a swap training.

    Attributes:
        network: module with `Config` and `build_network`.
        sizes: fields of its Config that differ from the defaults.
        size: side of the crops.
        same: share of pairs of one person.
        both_ways: every pair is swapped both ways; losses are the sum of both.
        loss: weight of every loss; those with weight 0 are not computed. Names: same, identity, shape, masked, cycle,
            self, feature, perceptual, clip_text, clip_identity, adversarial, weights; and against known answers
            supervised, flow (networks that give one) and matte (networks that predict one). With one of these the
            data folder must hold shards of the studio's triplets, or `answers` must say how many to make.
        answers: swaps that the `mesh` method makes of the portraits in the data folder, kept beside the run.
        critic: the discriminator; None without "adversarial".
        judges: networks that losses ask.
        power: exponent of perceptual and self reconstruction (1 or 2).
        text: "tau" (AlphaFace eq. 7), "always" (FaceChanger eq. 8) or "margin" (AlphaFace's script).
        frozen: parts of the network that do not train.
        start: registered weights that parts of the network start from; None starts from random ones.
    """

    task: str = "swap"
    network: str = "mattface.methods.mattface"
    sizes: dict[str, Any] = field(default_factory=dict)
    size: int = 256
    same: float = 0.0
    both_ways: bool = False
    answers: int = 0
    loss: dict[str, float] = field(default_factory=dict)
    critic: Critic | None = None
    judges: Judges = field(default_factory=Judges)
    power: int = 2
    text: str = "tau"
    frozen: tuple[str, ...] = ()
    start: str | None = None

    def weights(self) -> dict[str, float]:
        """The losses that count."""
        return {name: weight for name, weight in self.loss.items() if weight}


Side = dict[str, Any]
"""Fields of one face of a pair: image, mask, caption, and landmarks where the samples have them."""


def side(batch: Batch, name: str) -> Side:
    """The fields of "source" or "target"."""
    return {k.removeprefix(name + "_"): v for k, v in batch.items() if k.startswith(name + "_")}


def joined(a: Side, b: Side) -> Side:
    """Two batches of faces one after the other."""
    return {k: torch.cat([v, b[k]]) if isinstance(v, torch.Tensor) else [*v, *b[k]] for k, v in a.items()}


@dataclass(frozen=True)
class Made:
    """What a swap network made.

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

    def laid(self, target: torch.Tensor, matte: torch.Tensor | None) -> torch.Tensor:
        """The result with another matte, where the network predicts one; with the answer's, losses on the picture
        cannot be lowered by hiding it.
        """
        if self.matte is None or matte is None:
            return self.picture
        return target + matte * (self.drawn - target)


def module_of(recipe: SwapRecipe) -> ModuleType:
    """The module of the recipe's network, named there and looked up here.

    Raises:
        UsageError: this installation has none.
    """
    try:
        return importlib.import_module(recipe.network)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"recipe {recipe.name} trains {recipe.network}, which this installation does not have ({error}). "
            "Install a version of mattface with it."
        ) from error


class DecoderMaps:
    """Outputs of the decoder's convolutions, layer by layer (MagicMask eq. 8), of what runs inside `with maps as list`.

    Args:
        network: with a `decoder` that has `convs`.
    """

    def __init__(self, network: nn.Module) -> None:
        convs = getattr(network.get_submodule("decoder"), "convs", None)
        if convs is None:
            raise UsageError("loss feature needs a decoder of convolutions (convs); this network's has none.")
        self.maps: list[torch.Tensor] | None = None
        for conv in convs:
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


def network_config(recipe: SwapRecipe) -> Any:
    """The network's own configuration."""
    return module_of(recipe).Config(**recipe.sizes)


def build_swapper(recipe: SwapRecipe) -> nn.Module:
    """The network with its starting weights.

    Raises:
        WeightsError: what the recipe starts from is not here.
    """
    network = module_of(recipe).build_network(network_config(recipe))
    if recipe.start is not None:
        parts = dict(zip(("encoder", "invert", "generate"), official_parts(), strict=True))
        for name, part in parts.items():
            network.get_submodule(name).load_state_dict(part.state_dict())
    return network.to(memory_format=torch.channels_last)


def draw_of(recipe: SwapRecipe, network: nn.Module) -> Any:
    """What draws the maps that the network wants beside the picture; None when it wants none."""
    if "geometry" not in getattr(network, "input_names", ()):
        return None
    return importlib.import_module(recipe.network.rpartition(".")[0] + ".geometry").geometry_maps
