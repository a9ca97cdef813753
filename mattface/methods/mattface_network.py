"""The network of `mattface`: pSp features, IDATT at three levels, StyleGAN2, two-stage blending (the MAttFace paper).

`Config` holds every size; the official one and the small bundled one build the same classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from mattface import weights as registry
from mattface.blend import TwoStageBlend, View, whole
from mattface.blend.detail import DetailConfig, DetailTransfer, restrict
from mattface.blend.tiling import MARGIN, blend_inside
from mattface.encode import Encoder
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import PREFIX as LATENTS
from mattface.generate.synthesis import Noise, SynthesisNetwork, num_styles
from mattface.latent_heads import OFFICIAL_LEVELS, LatentHeads
from mattface.layers import Window, resize
from mattface.matte import MatteConfig
from mattface.transfer.correspond import Correspond
from mattface.transfer.idatt import LEVELS, PyramidIDATT
from mattface.vocabulary import Correspondence, FeaturePyramid, GeneratorFeatures, Swap

RENAMED = {"places": "coordinates"}
"""Field in the checkpoints of earlier versions -> its name now."""


@dataclass(frozen=True)
class Config:
    """Every size of the network. The defaults are the official ones.

    Attributes:
        resolution: side of the output.
        encoder_size: side of the encoder's input; the pyramid has a quarter, an eighth and a sixteenth of it.
        stem, widths, units: the encoder's first width, stage widths and units per stage.
        style: width of a W+ style vector; head_width: channels inside the latent heads.
        noise: whether the generator has noise inputs.
        channels: resolution -> channels of generator, side encoder and decoder.
        levels: IDATT levels that transfer.
        detail: "flow" (source detail through the attention's flow) or "off" (the paper).
        detail_widths: channels of the flow's refinement.
        coordinates: whether encoder and attention are given canonical coordinates: where on the mean face every pixel
            lies (ours).
        shape: with coordinates, how much of the source's proportions the result has, 0 to 1
            (`mattface.mesh.shape.blend_shapes`).
        matte, transfer: settings of the matte and of the transfer of detail: not trained, but they shape the result.
    """

    resolution: int = 1024
    encoder_size: int = 256
    stem: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    units: tuple[int, int, int, int] = (3, 4, 14, 3)
    style: int = 512
    head_width: int = 512
    noise: bool = True
    channels: dict[int, int] = field(
        default_factory=lambda: {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    )
    levels: tuple[str, ...] = LEVELS
    detail: str = "flow"
    detail_widths: tuple[int, int, int] = (128, 64, 48)
    coordinates: bool = False
    shape: float = 0.0
    matte: MatteConfig = field(default_factory=MatteConfig)
    transfer: DetailConfig = field(default_factory=DetailConfig)

    def __post_init__(self) -> None:
        if self.detail not in ("flow", "off"):
            raise UsageError(f'detail must be "flow" or "off"; got {self.detail!r}.')
        if max(self.channels) != self.resolution:
            raise UsageError(f"channels must reach resolution {self.resolution}; got {sorted(self.channels)}.")
        if not 0 <= self.shape <= 1:
            raise UsageError(f"shape must be from 0 (the target's) to 1 (the source's); got {self.shape}.")
        if self.shape and not self.coordinates:
            raise UsageError(f"shape {self.shape} needs canonical coordinates. Set coordinates=True, or shape=0.")

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads what `to_json` wrote, also in earlier versions: fields it did not have yet take their defaults."""
        values = {RENAMED.get(name, name): value for name, value in tuples_for_lists(json.loads(text)).items()}
        values["channels"] = {int(r): c for r, c in values["channels"].items()}
        settings = {"matte": MatteConfig, "transfer": DetailConfig}
        return cls(**values | {name: kind(**values.get(name, {})) for name, kind in settings.items()})

    def to_json(self) -> str:
        """The configuration as JSON, as kept in a checkpoint's metadata."""
        return json.dumps(asdict(self))


def tuples_for_lists(value: Any) -> Any:
    """What JSON holds, with tuples for lists."""
    if isinstance(value, dict):
        return {k: tuples_for_lists(v) for k, v in value.items()}
    return tuple(map(tuples_for_lists, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Encoded:
    """What the network keeps of a source: (B, ...) tensors.

    Attributes:
        pyramid: encoder features.
        image: (B, 3, S, S) crop in [-1, 1].
        features: resolution -> side encoder features; empty when detail is off.
        coordinates: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates`; None when the network does without.
        mesh: (468, 3) dense landmarks in pixels of the crop, where the shape is the source's in part.
        seen: (B, 1, s, s) in [0, 1], how far the crop shows the face itself; None where that is not known.
    """

    pyramid: FeaturePyramid
    image: torch.Tensor
    features: dict[int, torch.Tensor]
    coordinates: torch.Tensor | None = None
    mesh: np.ndarray | None = None
    seen: torch.Tensor | None = None


class MattfaceNetwork(nn.Module):
    """The whole chain for aligned crops. Parts come from `build_network`.

    Attributes:
        tiles: whether fine levels may be made around the matte alone, see `mattface.blend.tiling`.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        transfer: PyramidIDATT,
        invert: LatentHeads,
        generate: SynthesisNetwork,
        blend: TwoStageBlend,
        correspond: Correspond | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.transfer = transfer
        self.invert = invert
        self.generate = generate
        self.blend = blend
        self.correspond = correspond
        self.detail = DetailTransfer(config.transfer)
        self.tiles = True

    def encode(self, image: torch.Tensor, coordinates: torch.Tensor | None = None) -> FeaturePyramid:
        """Features of a crop's encoder-sized copy.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            coordinates: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates`, for a network that wants them.

        Raises:
            UsageError: coordinates are missing or not wanted.
        """
        if (coordinates is None) == self.config.coordinates:
            wants = "wants" if self.config.coordinates else "takes no"
            raise UsageError(f"this network {wants} canonical coordinates; got {type(coordinates).__name__}.")
        small = resize(image, self.config.encoder_size)
        if coordinates is not None:
            small = torch.cat([small, resize(coordinates, self.config.encoder_size).to(small.dtype)], 1)
        return self.encoder(small)

    def encode_source(
        self, image: torch.Tensor, coordinates: torch.Tensor | None = None, upto: int | None = None
    ) -> Encoded:
        """Everything about a source that does not depend on the target.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            coordinates: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates`, for a network that wants them.
            upto: highest resolution to compute; None for the network's own.
        """
        features = self.blend.encoder(image, upto=upto) if self.correspond is not None else {}
        return Encoded(self.encode(image, coordinates), image, features, coordinates)

    def forward(
        self,
        source: Encoded,
        image: torch.Tensor,
        mask: torch.Tensor,
        coordinates: torch.Tensor | None = None,
        upto: int | None = None,
        tight: bool = False,
    ) -> Swap:
        """Swaps aligned crops.

        Args:
            source: from `encode_source`.
            image: (B, 3, S, S) target crops in [-1, 1].
            mask: (B, 1, S, S) inner face of the targets in [0, 1].
            coordinates: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates` for the shape that the result shall
                have, for a network that wants them.
            upto: highest resolution to compute; None for the network's own.
            tight: True makes fine levels only around the matte (with detail), with equal pixels there but for
                rounding; elsewhere the matte is 0 and pixels are the target's.

        Returns:
            Swap of the highest resolution computed. Extras: "decoded" (the decoder's picture), "matte_logit",
            "mask_logit_R", "flow_LEVEL" and, with detail, "flow", "warped" and "confidence", all of the part that was
            made; "side", the generator's picture.
        """
        target = self.encode(image, coordinates)
        both = None if source.coordinates is None or coordinates is None else (source.coordinates, coordinates)
        swapped, flows = self.transfer(source.pyramid, target, both)
        w_plus = self.invert(swapped)
        noise: Noise = "const" if self.config.noise else "none"
        side = self.generate(w_plus, noise=noise, return_features=True, upto=upto)
        match = None
        if self.correspond is not None:
            match = self.correspond(source.pyramid, target, swapped, flows, source.image, image, mask, both)
            match = restrict(match, source.seen)
        swap = self._compose(side, source, image, mask, match, upto, tight)
        swap.extras.update({f"flow_{name}": flow for name, flow in flows.items()})
        if side.image is not None:
            swap.extras["side"] = side.image
        return swap

    def _compose(
        self,
        side: GeneratorFeatures,
        source: Encoded,
        image: torch.Tensor,
        mask: torch.Tensor,
        match: Correspondence | None,
        upto: int | None,
        tight: bool,
    ) -> Swap:
        """Blends, and with a correspondence brings the source's detail along; arguments as in `forward`."""
        floor = self.config.matte.floor
        if match is None:
            blended = self.blend(side, image, mask, upto=upto)
            logit = blended.logits[blended.size]
            extras = {f"mask_logit_{r}": x for r, x in blended.logits.items()}
            extras |= {"decoded": blended.decoded, "matte_logit": logit}
            return Swap(blended.decoded, self.blend.matte(logit, floor), extras)
        matte = TwoStageBlend.matte(match.matte, floor)
        window = Window.around(matte, MARGIN) if tight and self.tiles else None

        def extra(r: int, view: View) -> torch.Tensor:
            return self.detail.features(source.features, match, r, view)

        if window is None:
            blended = self.blend(side, image, mask, extra, upto)
        else:
            blended = blend_inside(self.blend, window, side, image, mask, extra, upto)
        part = window if blended.size > Window.GRID else None
        view = whole if part is None else part.cut
        pixels, more = self.detail(blended.pictures, source.image, image, match, matte, view)
        if part is not None:
            pixels = part.put_back(pixels, resize(image, blended.size))
        extras = {f"mask_logit_{r}": x for r, x in blended.logits.items()} | more
        extras |= {"decoded": blended.decoded, "matte_logit": match.matte}
        return Swap(pixels, resize(matte, blended.size), extras)


def build_network(config: Config) -> MattfaceNetwork:
    """Builds the network with fresh weights."""
    _, coarse, medium, fine = config.widths
    detail = config.detail == "flow"
    inputs = 6 if config.coordinates else 3
    encoder = Encoder(config.encoder_size, config.stem, config.widths, config.units, inputs=inputs)
    sides = [config.encoder_size // k for k in (4, 8, 16)]
    readers = OFFICIAL_LEVELS[: num_styles(config.resolution)]
    invert = LatentHeads((coarse, medium, fine), sides, config.head_width, w_dim=config.style, levels=readers)
    generate = SynthesisNetwork(config.style, config.resolution, channels=config.channels, use_noise=config.noise)
    match = Correspond(coarse, len(config.levels), config.detail_widths, config.coordinates) if detail else None
    blend = TwoStageBlend(config.channels, detail)
    transfer = PyramidIDATT((coarse, medium, fine), config.levels, config.coordinates)
    return MattfaceNetwork(config, encoder, transfer, invert, generate, blend, match)


def network_of(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], name: str) -> MattfaceNetwork:
    """The network of a checkpoint; the latents beside it, from which people are drawn, are left aside.

    Args:
        tensors, metadata: of the file.
        name: what to call it in a message.

    Raises:
        WeightsError: another kind of file, or other tensors than its configuration says.
    """
    if "config" not in metadata:
        raise WeightsError(f"{name} must carry a mattface configuration in its metadata; got none. Train or pull one.")
    network = build_network(Config.from_json(metadata["config"]))
    own = {k: v.float() for k, v in tensors.items() if not k.startswith(LATENTS)}
    registry.load_strictly(network, own, name)
    return network
