"""Switching parts of a trained mattface network off, to see what each one earns. Nothing is trained anew.

What is switched off is replaced by a part that says nothing of its own, and the rest runs as it was trained. It has
never seen that silence: a number found this way is what the trained network loses, not what another training would
reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mattface.blend import Blended, TwoStageBlend
from mattface.blend.detail import DetailTransfer
from mattface.errors import UsageError, WeightsError
from mattface.layers import resize
from mattface.methods.mattface import MattfaceMethod, MattfaceNetwork
from mattface.transfer.idatt import LEVELS
from mattface.vocabulary import FeaturePyramid, GeneratorFeatures

SWITCHES = ("on", "off")


@dataclass(frozen=True)
class Ablation:
    """Which parts of a trained network work; the defaults are all that were trained.

    Attributes:
        generator: "on" or "off": the maps that join the blend are zeros in place of what the generator drew.
        levels: IDATT levels that transfer, joined by "+" ("fine", "medium+fine" and all three are MAttFace's table 2);
            the others pass the target's features on. None for those that were trained.
        blend: "on" or "off": the second stage of MAttFace section 3.2 is left out, and the generator's picture itself
            lies under the mask; with detail it takes the decoder's place beside the source's pixels.
    """

    generator: str = "on"
    levels: str | None = None
    blend: str = "on"

    def __post_init__(self) -> None:
        for name in ("generator", "blend"):
            if getattr(self, name) not in SWITCHES:
                raise UsageError(f'{name} must be "on" or "off"; got {getattr(self, name)!r}.')
        if self.levels is not None and (not self.chosen or len(self.chosen) < len(str(self.levels).split("+"))):
            raise UsageError(f'levels must be {", ".join(LEVELS)} or some of them joined by "+"; got {self.levels!r}.')
        if (self.generator, self.blend) == ("off", "off"):
            raise UsageError(
                "blend=off shows the generator's picture, which generator=off does not draw. Leave one of them on."
            )

    @property
    def chosen(self) -> tuple[str, ...]:
        """The levels of `levels`, coarse to fine."""
        return tuple(name for name in LEVELS if name in str(self.levels).split("+"))

    def apply(self, network: MattfaceNetwork, weights: str) -> None:
        """Switches everything else of a network off, in place.

        Args:
            network: trained.
            weights: what to call it in a message.

        Raises:
            UsageError: nothing of the source would reach the result.
            WeightsError: a level is asked for that was not trained.
        """
        if set(self.chosen) - set(network.transfer.levels):
            raise WeightsError(
                f"{weights} was trained to transfer at {'+'.join(network.transfer.levels)}; got levels={self.levels!r}."
            )
        if self.generator == "off" and network.correspond is None:
            raise UsageError("without detail the source comes through the generator alone; got generator off too.")
        parts: dict[str, nn.Module] = {}
        if self.generator == "off":
            parts["generate"] = WithoutGenerator(network.generate)
        if self.chosen:
            parts["transfer"] = SomeLevels(network.transfer, self.chosen)
        if self.blend == "off":
            parts["blend"] = WithoutBlend(network.blend)
            parts["detail"] = DetailTransfer(replace(network.detail.config, lent=0.0))  # what is drawn is not smooth
            network.tiles = False
        for name, wrapped in parts.items():
            setattr(network, name, wrapped)


def ablate(method: Any, options: dict[str, Any]) -> None:
    """Switches parts of a loaded method off, in place.

    Args:
        method: "mattface".
        options: fields of `Ablation`.

    Raises:
        UsageError: another method, or options that do not fit.
        WeightsError: see `Ablation.apply`.
    """
    if not isinstance(method, MattfaceMethod):
        raise UsageError(f"only mattface has parts to switch off; got {method.name} with {', '.join(options)}.")
    Ablation(**options).apply(method.network, str(method.weights))


class WithoutGenerator(nn.Module):
    """Zeros in the shapes of a generator's maps, and no picture.

    Args:
        generator: whose shapes.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, w_plus: torch.Tensor, upto: int | None = None, **_: Any) -> GeneratorFeatures:
        """See `SynthesisNetwork.forward`; whole maps of every block only."""
        nothing, channels = w_plus.new_zeros(()), self.generator.channels
        sizes = {r: c for r, c in channels.items() if upto is None or r <= upto}  # type: ignore[operator, union-attr]
        return GeneratorFeatures({r: nothing.expand(len(w_plus), c, r, r) for r, c in sizes.items()})


class SomeLevels(nn.Module):
    """Identity transfer at some of the trained levels.

    The refinement of the flow was trained with a flow of every level: a level that does not transfer repeats the flow
    of the nearest one that does, of two equally near the finer map.

    Args:
        trained: `PyramidIDATT` with all its levels.
        levels: those that transfer.
    """

    def __init__(self, trained: nn.Module, levels: tuple[str, ...]) -> None:
        super().__init__()
        self.trained, self.chosen = trained, levels
        rank = LEVELS.index
        names = list(trained.get_submodule("levels")._modules)
        self.nearest = {n: min(levels, key=lambda k: abs(rank(k) - rank(n))) for n in names}

    def forward(
        self, source: FeaturePyramid, target: FeaturePyramid, *rest: Any
    ) -> tuple[FeaturePyramid, dict[str, torch.Tensor]]:
        """See `PyramidIDATT.forward`; flows of all trained levels."""
        swapped, flows = self.trained(source, target, *rest)
        kept = {n: getattr(swapped if n in self.chosen else target, n) for n in LEVELS}
        return FeaturePyramid(**kept), {name: flows[near] for name, near in self.nearest.items()}


class WithoutBlend(nn.Module):
    """The generator's picture under the mask, without blended levels and decoder.

    Args:
        blend: `TwoStageBlend`, whose encoder is kept.
    """

    def __init__(self, blend: TwoStageBlend) -> None:
        super().__init__()
        self.encoder = blend.encoder

    def forward(self, side: GeneratorFeatures, target: torch.Tensor, mask: torch.Tensor, *_: Any, **__: Any) -> Blended:
        """See `TwoStageBlend.forward`; the mask stands in place of its logit."""
        if side.image is None:
            raise UsageError("blend=off shows the generator's picture; it drew none.")
        drawn = side.image.float()
        size = drawn.shape[-1]
        return Blended(drawn, {size: resize(mask, size)}, {size: drawn})

    @staticmethod
    def matte(mask: torch.Tensor, floor: float) -> torch.Tensor:
        """The mask itself."""
        return mask
