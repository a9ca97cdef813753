"""Switching parts of a trained mattface network off, to see what each one earns. Nothing is trained anew.

What is switched off is replaced by a part that says nothing of its own, and the rest runs as it was trained. It has
never seen that silence: a number found this way is what the trained network loses, not what another training would
reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from mattface.blend import SideEncoder, TwoStageBlend
from mattface.errors import UsageError, WeightsError
from mattface.generate.synthesis import Noise, Start, SynthesisNetwork
from mattface.layers import resize
from mattface.transfer.idatt import LEVELS, PyramidIDATT
from mattface.vocabulary import Box, Correspondence, FeaturePyramid, GeneratorFeatures, Swap, WPlus

if TYPE_CHECKING:
    from mattface.methods.mattface import MattfaceNetwork

SWITCHES = {"detail": (None, "flow", "off"), "generator": ("on", "off"), "blend": ("on", "off")}
"""Options with few values; None means as trained."""


@dataclass(frozen=True)
class Parts:
    """Which parts of a trained network work; the defaults are all that were trained.

    Attributes:
        detail: "flow", "off" (the paper: nothing of the source is sampled), None as trained.
        generator: "on" or "off": the maps that join the blend are zeros in place of what the generator drew.
        levels: IDATT levels that transfer, joined by "+" ("fine", "medium+fine" and all three are MAttFace's table 2);
            the others pass the target's features on. None for those that were trained.
        blend: "on" or "off": the second stage of MAttFace section 3.2 is left out, and the generator's picture itself
            lies under the mask; with detail it takes the decoder's place beside the source's pixels.
    """

    detail: str | None = None
    generator: str = "on"
    levels: str | None = None
    blend: str = "on"

    def __post_init__(self) -> None:
        for name, choices in SWITCHES.items():
            if getattr(self, name) not in choices:
                said = " or ".join(f'"{c}"' for c in choices if c)
                raise UsageError(f"{name} must be {said}; got {getattr(self, name)!r}.")
        if self.levels is not None and (not self.chosen or len(self.chosen) < len(str(self.levels).split("+"))):
            raise UsageError(f'levels must be {", ".join(LEVELS)} or some of them joined by "+"; got {self.levels!r}.')
        if (self.generator, self.blend) == ("off", "off"):
            raise UsageError("blend off shows what the generator draws; got generator off too. Leave one of them on.")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The levels of `levels`, coarse to fine."""
        return tuple(name for name in LEVELS if name in str(self.levels).split("+"))

    def keep(self, network: MattfaceNetwork, weights: str) -> None:
        """Switches everything else of a network off, in place.

        Args:
            network: trained.
            weights: what to call it in a message.

        Raises:
            UsageError: nothing of the source would reach the result.
            WeightsError: a part is asked for that was not trained.
        """
        if self.detail == "flow" and network.correspond is None:
            raise WeightsError(
                f'{weights} was trained without detail; got detail="flow". Leave it out or take other weights.'
            )
        if set(self.chosen) - set(network.transfer.levels):
            raise WeightsError(
                f"{weights} was trained to transfer at {'+'.join(network.transfer.levels)}; got levels={self.levels!r}."
            )
        if self.detail == "off":
            network.correspond = None
        if self.generator == "off" and network.correspond is None:
            raise UsageError("without detail the source comes through the generator alone; got generator off too.")
        if self.generator == "off":
            network.generate = Undrawn(network.generate)
        if self.chosen:
            network.transfer = SomeLevels(network.transfer, self.chosen)
        if self.blend == "off":
            network.blend = SideUnderMask()


class Undrawn(SynthesisNetwork):
    """Zeros in the shapes of a generator's maps, and no picture.

    Args:
        generator: whose shapes.
    """

    def __init__(self, generator: SynthesisNetwork) -> None:
        nn.Module.__init__(self)
        self.channels, self.resolution, self.num_styles = generator.channels, generator.resolution, generator.num_styles

    def forward(
        self,
        w_plus: WPlus,
        noise: Noise = "const",
        return_features: bool = False,
        upto: int | None = None,
        start: Start | None = None,
        region: Box | None = None,
    ) -> GeneratorFeatures:
        """See `SynthesisNetwork.forward`; whole maps of every block only."""
        nothing = w_plus.new_zeros(())
        sizes = {r: c for r, c in self.channels.items() if upto is None or r <= upto}
        return GeneratorFeatures({r: nothing.expand(len(w_plus), c, r, r) for r, c in sizes.items()})


class SomeLevels(PyramidIDATT):
    """Identity transfer at some of the trained levels.

    The refinement of the flow was trained with a flow of every level: a level that does not transfer repeats the flow
    of the nearest one that does, of two equally near the finer map.

    Args:
        trained: with all its levels.
        levels: those that transfer.
    """

    def __init__(self, trained: PyramidIDATT, levels: tuple[str, ...]) -> None:
        nn.Module.__init__(self)
        self.levels = nn.ModuleDict({name: trained.levels[name] for name in levels})
        place = LEVELS.index
        self.nearest = {n: min(levels, key=lambda k: abs(place(k) - place(n))) for n in trained.levels}

    def forward(
        self,
        source: FeaturePyramid,
        target: FeaturePyramid,
        places: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[FeaturePyramid, dict[str, torch.Tensor]]:
        """See `PyramidIDATT.forward`; flows of all trained levels."""
        swapped, flows = super().forward(source, target, places)
        return swapped, {name: flows[near] for name, near in self.nearest.items()}


class SideUnderMask(TwoStageBlend):
    """The generator's picture under the mask, without encoder, blended levels and decoder."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.encoder = SideEncoder({})

    def forward(
        self,
        side: GeneratorFeatures,
        source: dict[int, torch.Tensor],
        source_image: torch.Tensor,
        target_image: torch.Tensor,
        mask: torch.Tensor,
        match: Correspondence | None,
        upto: int | None = None,
        tight: bool = False,
    ) -> Swap:
        """See `TwoStageBlend.forward`. Without detail the matte is `mask`, else the one that comes with the flow."""
        if side.image is None:
            raise UsageError("blend off shows what the generator draws; it drew no picture.")
        drawn = side.image.float()
        size = drawn.shape[-1]
        if match is None:
            return Swap(drawn, resize(mask, size))
        pixels, extras = self._with_detail(
            drawn, drawn, torch.zeros_like(drawn), match, source_image, size, lambda x: x
        )
        return Swap(pixels, resize(self.matte(match.matte), size), extras)
