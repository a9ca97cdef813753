"""mattface: pSp features, IDATT at three levels, StyleGAN2, two-stage mask blending (the MAttFace paper).

`Config` holds every size; the official one and the small bundled one build the same classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mattface import perception
from mattface import weights as registry
from mattface.blend import TwoStageBlend
from mattface.encode import Encoder
from mattface.errors import UsageError, WeightsError
from mattface.generate.latents import PREFIX as LATENTS
from mattface.generate.synthesis import Noise, SynthesisNetwork, num_styles
from mattface.invert import OFFICIAL_LEVELS, LatentHeads
from mattface.layers import resize, warp
from mattface.mesh import Drawing
from mattface.mesh.openings import fitting
from mattface.mesh.regions import Regions
from mattface.mesh.shape import canonical, mixed
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.methods.psp import OFFICIAL
from mattface.parse import Parser
from mattface.transfer.correspond import Correspond
from mattface.transfer.idatt import LEVELS, PyramidIDATT
from mattface.vocabulary import Crop, FeaturePyramid, MatteFilter, Swap

OPENINGS = 256
"""Side at which mouth and eyes are drawn to see whether they fit."""
SOFT = 1 / 128
"""Softness of their borders, over the side."""


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
        places: whether encoder and attention are told where on the mean face every pixel lies (ours).
        shape: with places, how much of the source's proportions the result has, 0 to 1 (`mattface.mesh.shape.mixed`).
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
    places: bool = False
    shape: float = 0.0

    def __post_init__(self) -> None:
        if self.detail not in ("flow", "off"):
            raise UsageError(f'detail must be "flow" or "off"; got {self.detail!r}.')
        if max(self.channels) != self.resolution:
            raise UsageError(f"channels must reach resolution {self.resolution}; got {sorted(self.channels)}.")
        if not 0 <= self.shape <= 1:
            raise UsageError(f"shape must be from 0 (the target's) to 1 (the source's); got {self.shape}.")
        if self.shape and not self.places:
            raise UsageError(f"shape {self.shape} needs a network that is told places. Set places=True, or shape=0.")

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["channels"] = {int(r): c for r, c in values["channels"].items()}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    def to_json(self) -> str:
        """The configuration as JSON, as kept in a checkpoint's metadata."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Encoded:
    """What the network keeps of a source: (B, ...) tensors.

    Attributes:
        pyramid: encoder features.
        image: (B, 3, S, S) crop in [-1, 1].
        features: resolution -> side encoder features; empty when detail is off.
        places: (B, 3, s, s) places on the mean face; None when the network does without.
        mesh: (468, 3) dense landmarks in pixels of the crop, where the shape is the source's in part.
        seen: (B, 1, s, s) in [0, 1], how far the crop shows the face itself; None where that is not known.
    """

    pyramid: FeaturePyramid
    image: torch.Tensor
    features: dict[int, torch.Tensor]
    places: torch.Tensor | None = None
    mesh: np.ndarray | None = None
    seen: torch.Tensor | None = None


class MattfaceNetwork(nn.Module):
    """The whole chain for aligned crops. Parts come from `build_network`."""

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

    def encode(self, image: torch.Tensor, places: torch.Tensor | None = None) -> FeaturePyramid:
        """(B, 3, S, S) crop in [-1, 1], with its places (B, 3, s, s) -> feature pyramid of its encoder-sized copy."""
        if (places is None) == self.config.places:
            raise UsageError(f"places must be given if and only if config.places; got {type(places).__name__}.")
        small = resize(image, self.config.encoder_size)
        if places is not None:
            small = torch.cat([small, resize(places, self.config.encoder_size).to(small.dtype)], 1)
        return self.encoder(small)

    def encode_source(
        self, image: torch.Tensor, places: torch.Tensor | None = None, upto: int | None = None
    ) -> Encoded:
        """Everything about a source that does not depend on the target.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            places: (B, 3, s, s) of `mattface.mesh.shape.canonical`, for a network that is told them.
            upto: highest resolution to compute; None for the network's own.
        """
        features = self.blend.encoder(image, upto=upto) if self.correspond is not None else {}
        return Encoded(self.encode(image, places), image, features, places)

    def forward(
        self,
        source: Encoded,
        image: torch.Tensor,
        mask: torch.Tensor,
        places: torch.Tensor | None = None,
        upto: int | None = None,
        tight: bool = False,
    ) -> Swap:
        """Swaps aligned crops.

        Args:
            source: from `encode_source`.
            image: (B, 3, S, S) target crops in [-1, 1].
            mask: (B, 1, S, S) inner face of the targets in [0, 1].
            places: (B, 3, s, s) of `mattface.mesh.shape.canonical` for the shape that the result shall have, for a
                network that is told them.
            upto: highest resolution to compute; None for the network's own.
            tight: True computes fine levels only around the matte, see `mattface.blend.TwoStageBlend`.
        """
        target = self.encode(image, places)
        both = None if source.places is None or places is None else (source.places, places)
        swapped, flows = self.transfer(source.pyramid, target, both)
        w_plus = self.invert(swapped)
        noise: Noise = "const" if self.config.noise else "none"
        side = self.generate(w_plus, noise=noise, return_features=True, upto=upto)
        match = None
        if self.correspond is not None:
            match = self.correspond(source.pyramid, target, swapped, flows, source.image, image, mask, both)
            if source.seen is not None:  # what hides the source's face is not brought along
                match = replace(match, confidence=match.confidence * warp(source.seen, match.flow))
        swap = self.blend(side, source.features, source.image, image, mask, match, upto, tight)
        swap.extras.update({f"flow_{name}": flow for name, flow in flows.items()})
        if side.image is not None:
            swap.extras["side"] = side.image
        return swap


def build_network(config: Config) -> MattfaceNetwork:
    """Builds the network with fresh weights."""
    _, coarse, medium, fine = config.widths
    detail = config.detail == "flow"
    inputs = 6 if config.places else 3
    encoder = Encoder(config.encoder_size, config.stem, config.widths, config.units, inputs=inputs)
    sides = [config.encoder_size // k for k in (4, 8, 16)]
    readers = OFFICIAL_LEVELS[: num_styles(config.resolution)]
    invert = LatentHeads((coarse, medium, fine), sides, config.head_width, w_dim=config.style, levels=readers)
    generate = SynthesisNetwork(config.style, config.resolution, channels=config.channels, use_noise=config.noise)
    match = Correspond(coarse, len(config.levels), config.detail_widths, config.places) if detail else None
    blend = TwoStageBlend(config.channels, detail)
    transfer = PyramidIDATT((coarse, medium, fine), config.levels, config.places)
    return MattfaceNetwork(config, encoder, transfer, invert, generate, blend, match)


class MattfaceMethod:
    """mattface behind the method contract."""

    name = "mattface"

    def __init__(
        self, network: MattfaceNetwork, parser: Parser, weights: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.parser = parser
        self.network = network.to(device).eval().requires_grad_(False)
        self.crop = CropSpec("ffhq", network.config.resolution)
        self.weights = weights
        self.device, self.dtype = device, dtype
        self.engine: str | None = None

    def encode(self, source: Crop) -> Encoded:
        """Encodes an aligned source crop once."""
        places = self._places(source, source.mesh)
        with self._precision():
            encoded = self.network.encode_source(source.pixels.to(self.device), places)
        return replace(encoded, mesh=source.mesh, seen=None if source.mesh is None else self._seen(source))

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.parser.name, self.engine)

    def swap(self, encoded: Encoded, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop of the network's resolution."""
        mask = self.parser(target).to(self.device)
        mesh = target.mesh
        if mesh is not None and encoded.mesh is not None:
            mesh = mixed(encoded.mesh, mesh, self.network.config.shape)
        places = self._places(target, mesh)
        with self._precision():
            swap = self.network(encoded, target.pixels.to(self.device), mask, places, tight=True)
        matte = torch.minimum(swap.matte, mask)  # never more than the parser lets through
        if target.mesh is not None and encoded.mesh is not None:
            matte = matte * self._openings(encoded.mesh, target.mesh * (OPENINGS / target.size), target.size)
        return filtered(replace(swap, matte=matte), matte_filter)

    def _openings(self, source: np.ndarray, target: np.ndarray, size: int) -> torch.Tensor:
        """(1, 1, S, S) factor on the matte: mouth and eyes that do not fit stay the target's."""
        keep = fitting(source, target, Regions.draw(Drawing.of(target, OPENINGS)), SOFT * OPENINGS)
        return resize(torch.from_numpy(keep)[None, None].to(self.device), size)

    def _seen(self, source: Crop) -> torch.Tensor:
        """(1, 1, s, s) how far a source shows its face, shrunk without aliasing to the sizes of flows."""
        seen = self.parser.seen(source)
        return resize(seen, min(seen.shape[-1], self.network.config.encoder_size)).to(self.device)

    def _places(self, crop: Crop, mesh: np.ndarray | None) -> torch.Tensor | None:
        """(1, 3, s, s) places of a mesh in this crop, for a network that is told them."""
        side = self.network.config.encoder_size
        if not self.network.config.places:
            return None
        if mesh is None:
            raise UsageError("these weights need dense landmarks; this crop has no mesh. Find landmarks first.")
        return torch.from_numpy(canonical(mesh * (side / crop.size), side))[None].to(self.device)

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def build(weights: str | None, device: torch.device, dtype: torch.dtype, **options: Any) -> MattfaceMethod:
    """Builds the method from a checkpoint that carries its configuration.

    Args:
        weights: name of registered weights, a safetensors file, or a folder that holds one; None takes mattface-demo.
        device, dtype: where and in which dtype the network runs.
        options: `detail`, "flow" or "off" (the paper: nothing of the source is sampled); as trained by default.

    Raises:
        UsageError: an unknown option or value.
        WeightsError: weights that are missing, damaged, without a trained IDATT, or trained without the detail that is
            asked for.
    """
    detail = options.pop("detail", None)
    if options:
        raise UsageError(f"mattface has the option detail; got {', '.join(sorted(options))}.")
    if detail not in (None, "flow", "off"):
        raise UsageError(f'detail must be "flow" or "off"; got {detail!r}.')
    if weights == OFFICIAL:
        raise WeightsError(
            f"{OFFICIAL} holds encoder and generator, but no trained IDATT and no blend; both are needed to swap. "
            "Train them, take --weights mattface-demo, or mix W+ codes instead: --method psp-mix."
        )
    name = weights or "mattface-demo"
    tensors, metadata = registry.load_tensors(registry.checkpoint_in(name))
    network = network_of(tensors, metadata, name)
    if detail == "flow" and network.correspond is None:
        raise WeightsError(f'{name} was trained without detail; got detail="flow". Leave it out or take other weights.')
    if detail == "off":
        network.correspond = None
    return MattfaceMethod(network, perception.load("parser", device=device, dtype=dtype), name, device, dtype)


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
