"""The official pSp FFHQ file: an encoder, latent heads and a generator that fit each other."""

from __future__ import annotations

from mattface import weights
from mattface.encode import Encoder
from mattface.generate.synthesis import SynthesisNetwork
from mattface.latent_heads import LatentHeads
from mattface.weights.convert import official

OFFICIAL = "psp-ffhq"


def official_parts() -> tuple[Encoder, LatentHeads, SynthesisNetwork]:
    """Encoder, latent heads and generator of the official file, or of one converted from it.

    Raises:
        WeightsError: the file is not here, damaged, or another one.
    """
    tensors = official(OFFICIAL)
    encoder, heads, generate = Encoder(), LatentHeads(), SynthesisNetwork()
    networks = {"encoder.": encoder, "heads.": heads, "generator.synthesis.": generate}
    for start, network in networks.items():
        state = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        weights.load_strictly(network, state, OFFICIAL)
    return encoder, heads, generate
