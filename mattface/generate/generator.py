"""z -> GeneratorFeatures: mapping and synthesis together."""

from __future__ import annotations

import torch
from torch import nn

from mattface.generate.mapping import MappingNetwork
from mattface.generate.synthesis import Noise, SynthesisNetwork
from mattface.vocabulary import GeneratorFeatures


class Generator(nn.Module):
    """StyleGAN2 generator of the parts it is given.

    Args:
        mapping: z to styles.
        synthesis: styles to pixels.
    """

    def __init__(self, mapping: MappingNetwork, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def forward(
        self,
        z: torch.Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        return_features: bool = False,
    ) -> GeneratorFeatures:
        """(B, z_dim) normal samples to pixels; see `MappingNetwork.forward` and `SynthesisNetwork.forward`."""
        w_plus = self.mapping(z, truncation_psi, truncation_cutoff)
        return self.synthesis(w_plus, noise, return_features)


def build_generator(resolution: int = 1024, w_dim: int = 512, num_layers: int = 8, **synthesis: object) -> Generator:
    """Generator with as many styles as its resolution needs; further options go to `SynthesisNetwork`."""
    network = SynthesisNetwork(w_dim, resolution, **synthesis)  # type: ignore[arg-type]
    return Generator(MappingNetwork(w_dim, w_dim, network.num_styles, num_layers), network)
