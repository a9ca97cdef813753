"""The fixed generators by name: "mobile-ffhq" (from the package index) and "stylegan2-ffhq" (the official file).

Both draw from the same W+ codes of 18 StyleGAN2 styles, so that an encoder that gives such codes drives either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from mattface import weights as registry
from mattface.errors import UsageError
from mattface.generate.generator import build_generator
from mattface.generate.mapping import MappingNetwork
from mattface.generate.mobile import MobileSynthesis
from mattface.generate.synthesis import Noise, Start, SynthesisNetwork
from mattface.vocabulary import Box, GeneratorFeatures, WPlus
from mattface.weights.licences import commercial_only, require

EMBEDDED, OFFICIAL = "mobile-ffhq", "stylegan2-ffhq"
MEAN_OF = 4096
"""Styles whose mean is the average style of a file that has none."""


class Synthesis(Protocol):
    """W+ to features and pixels; `SynthesisNetwork` and `MobileSynthesis` keep it.

    Attributes:
        resolution: side of the picture.
        resolutions: of the blocks, rising.
        channels: resolution of a block -> its channels.
        num_styles, w_dim: L and D of its codes.
    """

    resolution: int
    resolutions: tuple[int, ...]
    channels: dict[int, int]
    num_styles: int
    w_dim: int

    def __call__(
        self,
        w_plus: WPlus,
        noise: Noise = "const",
        return_features: bool = False,
        upto: int | None = None,
        start: Start | None = None,
        region: Box | None = None,
    ) -> GeneratorFeatures:
        """See `SynthesisNetwork.forward`."""


@dataclass(frozen=True)
class FixedGenerator:
    """A generator that nobody trains any more.

    Attributes:
        name: of its weights.
        mapping: z to styles.
        synthesis: styles to pixels; a module that keeps `Synthesis`.
    """

    name: str
    mapping: MappingNetwork
    synthesis: Synthesis

    @property
    def commercial_use(self) -> bool:
        """What the card says."""
        return registry.card(self.name).commercial_use


def load_generator(
    name: str = EMBEDDED, device: str | torch.device = "cpu", commercial: bool | None = None
) -> FixedGenerator:
    """Builds a generator whose weights are on this machine.

    Args:
        name: "mobile-ffhq" or "stylegan2-ffhq".
        device: where it runs.
        commercial: refuse one that forbids commercial use; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: another name, or one that forbids the commercial use that is asked for.
        WeightsError: the weights are missing or damaged; the message says what to type.
    """
    builders: dict[str, Callable[[], tuple[MappingNetwork, MobileSynthesis | SynthesisNetwork]]]
    builders = {EMBEDDED: _mobile, OFFICIAL: _official}
    if name not in builders:
        raise UsageError(f"expected a generator, {' or '.join(builders)}; got {name!r}.")
    if commercial_only(commercial):
        require(name, "No fixed generator does; mattface-demo has one of its own.")
    mapping, synthesis = builders[name]()
    for network in (mapping, synthesis):
        network.to(device).eval().requires_grad_(False)
    return FixedGenerator(name, mapping, synthesis)


def _mobile() -> tuple[MappingNetwork, MobileSynthesis]:
    from mattface.weights.archives import read_member
    from mattface.weights.layouts.mobile_stylegan import mapping_tensors, synthesis_tensors
    from mattface.weights.openvino_ir import Topology, read_topology

    members, path = registry.card(EMBEDDED).members, registry.find(EMBEDDED)

    def topology(part: str) -> Topology:
        files = {ending: next(m for m in members if m.endswith(f"{part}.{ending}")) for ending in ("xml", "bin")}
        return read_topology(*(read_member(path, files[ending], members[files[ending]]) for ending in ("xml", "bin")))

    mapping, synthesis = MappingNetwork(), MobileSynthesis()
    state = {"w_avg": mapping.w_avg, **mapping_tensors(topology("MappingNetwork"))}
    registry.load_strictly(mapping, state, EMBEDDED)
    registry.load_strictly(synthesis, synthesis_tensors(topology("SynthesisNetwork")), EMBEDDED)
    with torch.no_grad():
        z = torch.randn(MEAN_OF, mapping.z_dim, generator=torch.Generator().manual_seed(0))
        mapping.w_avg.copy_(mapping.style(z).mean(0))
    return mapping, synthesis


def _official() -> tuple[MappingNetwork, SynthesisNetwork]:
    from mattface.weights.convert import official

    network = build_generator()
    registry.load_strictly(network, official(OFFICIAL), OFFICIAL)
    return network.mapping, network.synthesis
