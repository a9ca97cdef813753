"""psp-mix: W+ codes of the official pSp file, mixed: what can be done without a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mattface import perception
from mattface.encode import Encoder
from mattface.errors import UsageError
from mattface.generate.synthesis import SynthesisNetwork
from mattface.geometry import box, widened
from mattface.latent_heads import LatentHeads
from mattface.layers import resize
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.methods.psp import OFFICIAL, official_parts
from mattface.parse import Parser
from mattface.vocabulary import Crop, MatteFilter, Swap


class PspMixMethod:
    """Untrained stand-in for a swap network: the target's W+ code with the source's styles in the middle layers.

    Coarse styles (0 to 3) carry pose, fine ones (10 to 17) colour and light; both stay the target's. The side image is
    blended in under the inner-face mask. Identity moves only as far as pSp's inversion holds it.
    """

    name = "psp-mix"
    crop = CropSpec("ffhq", 1024)
    mixed = slice(4, 10)

    def __init__(
        self,
        encoder: Encoder,
        invert: LatentHeads,
        generate: SynthesisNetwork,
        parser: Parser,
        weights: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.parts = nn.ModuleList([encoder, invert, generate]).to(device).eval().requires_grad_(False)
        self.encoder, self.invert, self.generate, self.parser = encoder, invert, generate, parser
        self.weights, self.device, self.dtype = weights, device, dtype

    def encode(self, source: Crop) -> torch.Tensor:
        """(1, L, D) W+ code of a crop."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.invert(self.encoder(resize(source.pixels.to(self.device), self.encoder.size)))

    def merge(self, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean code."""
        return torch.stack(list(encoded)).mean(0)

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.parser.name)

    def swap(self, encoded: torch.Tensor, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Mixes the codes, generates what the inner face shows, and masks it; elsewhere pixels are the target's own."""
        w_plus = self.encode(target).clone()
        w_plus[:, self.mixed] = encoded[:, self.mixed]
        mask = self.parser(target).to(self.device)
        side = self.generate.resolution
        face = box((resize(mask, side)[0, 0] > 0).cpu().numpy())
        region = None if face is None else widened(face, 2, (side, side))  # neighbours that resampling sees
        pixels = resize(target.pixels.to(self.device), side).clone()
        if region is not None:
            left, top, right, bottom = region
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                image = self.generate(w_plus, region=region).image
            pixels[:, :, top:bottom, left:right] = image
        return filtered(Swap(resize(pixels.float(), target.size), mask), matte_filter)


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> PspMixMethod:
    """Builds the method.

    Args:
        weights: None or the name of the official pSp file.
        device, dtype: where and in which dtype the networks run.
        commercial: see the contract.
        options: none are known.

    Raises:
        UsageError: other weights, or an option.
        WeightsError: the file is not here, damaged, or another one.
    """
    if options:
        raise UsageError(f"psp-mix has no options; got {', '.join(sorted(options))}.")
    if weights not in (None, OFFICIAL):
        raise UsageError(f"psp-mix runs on the weights {OFFICIAL}; got {weights!r}. Leave weights out.")
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    return PspMixMethod(*official_parts(), parser, OFFICIAL, device, dtype)
