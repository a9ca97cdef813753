"""The paper's chain over a fixed generator: encoder, IDATT at three levels, W+, a 1024 px picture, mask blending.

The encoder is a fixed recognition network, the generator a fixed FFHQ one; transfer and heads are all that was taught.
The picture that the generator draws shows the source in the target's pose, expression and light. It lies nearly where
the target's face lies, but not to the pixel: the same correspondence and blending that `mesh` uses put it there. With
`detail` the photograph's own pixels go first where the source shows the place, and the drawn ones fill the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mattface import perception, pixels
from mattface import weights as registry
from mattface.code_heads import CodeHeads
from mattface.embed.body import SIZE, RecognitionBody
from mattface.embed.resnet import read
from mattface.errors import WeightsError
from mattface.generate.named import FixedGenerator, Synthesis, load_generator
from mattface.layers import resize
from mattface.methods import mesh
from mattface.methods.contract import CropSpec, Description
from mattface.parse import Parser
from mattface.transfer.recognition import RecognitionTransfer
from mattface.vocabulary import Crop, Face, MatteFilter, RecognitionFeatures, Swap, WPlus

CHAIN, FIXED = "chain", "fixed"
"""Metadata key of a checkpoint, and its value for this chain."""
GENERATOR = "generator"
BODY = "identity-resnet"


@dataclass(frozen=True)
class Encoded:
    """What is kept of a source.

    Attributes:
        features: what the recognition network sees.
        photograph: its pixels, for `detail`.
    """

    features: RecognitionFeatures
    photograph: mesh.Encoded


class FixedChain(nn.Module):
    """Two faces to the W+ code of the source in the target's place, and its picture.

    Args:
        body: fixed encoder.
        transfer: IDATT at three levels.
        heads: of all styles.
        generate: fixed generator.
    """

    def __init__(
        self, body: RecognitionBody, transfer: RecognitionTransfer, heads: CodeHeads, generate: Synthesis
    ) -> None:
        super().__init__()
        self.body, self.transfer, self.heads = body, transfer, heads
        self.generate = generate

    def encode(self, image: torch.Tensor) -> RecognitionFeatures:
        """(B, 3, S, S) FFHQ crop in [-1, 1] to features."""
        features: RecognitionFeatures = self.body(resize(image.float(), SIZE))
        return features

    def forward(self, source: RecognitionFeatures, target: RecognitionFeatures) -> tuple[WPlus, torch.Tensor]:
        """W+ (B, 18, 512) and side image (B, 3, 1024, 1024)."""
        w_plus = self.heads(self.transfer(source, target))
        image = self.generate(w_plus).image
        if image is None:
            raise WeightsError("expected a generator that draws pictures; this one draws none.")
        return w_plus, image


class FixedMethod:
    """The chain behind the method contract.

    Args:
        chain: see there.
        placing: puts a drawn face where the target's lies.
        detail: whether the photograph's own pixels are used.
        weights: name of the taught parts.
        generator: name of the generator.
        device, dtype: where, and in which dtype, the generator runs.
    """

    name = "mattface"
    crop = CropSpec("ffhq", 1024)

    def __init__(
        self,
        chain: FixedChain,
        placing: mesh.MeshMethod,
        detail: bool,
        weights: str,
        generator: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.chain = chain.to(device).eval().requires_grad_(False)
        self.placing, self.detail = placing, detail
        self.weights, self.generator = weights, generator
        self.device, self.dtype = device, dtype
        self.detector, self.landmarker = (perception.load(kind, device=device) for kind in ("detector", "landmarks"))

    def encode(self, source: Crop) -> Encoded:
        """Encodes an aligned source crop once."""
        return Encoded(self.chain.encode(source.pixels.to(self.device)), self.placing.encode(source))

    def merge(self, encoded: Sequence[Encoded]) -> Encoded:
        """The first, whose head looks most nearly where the target's does, with the photographs of the others."""
        return replace(encoded[0], photograph=self.placing.merge([one.photograph for one in encoded]))

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.placing.matte.parser.name)

    def swap(self, encoded: Encoded, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one 1024 px crop; extras hold "side" (1, 3, 1024, 1024) and "w_plus" besides those of `mesh`.

        Where the generator draws no face that can be found, the matte is empty: nothing is replaced.
        """
        seen = self.chain.encode(target.pixels.to(self.device))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            w_plus, side = self.chain(encoded.features, seen)
        drawn = self._find(side)
        extras = {"side": side, "w_plus": w_plus}
        if drawn is None:
            return Swap(target.pixels, torch.zeros_like(target.pixels[:, :1]), extras)
        source = self.placing.encode(drawn)
        if self.detail:
            source = self.placing.merge([encoded.photograph, source])
        placed = self.placing.swap(source, target, matte_filter=matte_filter)
        return replace(placed, extras=placed.extras | extras)

    def _find(self, side: torch.Tensor) -> Crop | None:
        """A drawn picture as a crop with its mesh; None where no face is found in it."""
        picture = pixels.to_pixels(side, np.uint8)
        found = self.detector(picture)
        if not found:
            return None
        face: Face = self.landmarker(picture, found[0])
        return Crop(side.float().clamp(-1, 1).cpu(), np.eye(3), face.mesh, face.points)


def build_fixed(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    name: str,
    detail: str,
    device: torch.device,
    dtype: torch.dtype,
    parser: Parser,
    commercial: bool | None = None,
) -> FixedMethod:
    """Puts the taught parts between the fixed ones.

    Args:
        tensors, metadata: of a checkpoint whose metadata says chain: fixed.
        name: of the checkpoint.
        detail: "flow" or "off".
        device, dtype, parser: see `FixedMethod`.
        commercial: see the contract.

    Raises:
        UsageError: the generator forbids the commercial use that is asked for.
        WeightsError: recognition network or generator are missing, or the checkpoint is damaged.
    """
    generator: FixedGenerator = load_generator(metadata.get(GENERATOR, "mobile-ffhq"), device, commercial)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if "heads.mean" not in shapes or "heads.project.weight" not in shapes:
        raise WeightsError(f"expected heads in {name}; it holds none. Get it again.")
    heads = CodeHeads(shapes["heads.mean"][0], shapes["heads.project.weight"][0])
    transfer = RecognitionTransfer()
    for prefix, network in (("heads.", heads), ("transfer.", transfer)):
        state = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
        registry.load_strictly(network, state, name)
    body = RecognitionBody(read(registry.find(BODY)))
    chain = FixedChain(body, transfer, heads, generator.synthesis)
    placing = mesh.MeshMethod(mesh.Config(), parser, device)
    return FixedMethod(chain, placing, detail == "flow", name, generator.name, device, dtype)
