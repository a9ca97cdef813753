"""The paper's chain over a fixed generator: encoder, IDATT at three levels, W+, a 1024 px picture, mask blending.

The encoder is a fixed recognition network, the generator a fixed FFHQ one; transfer and heads are all that was trained.
The picture that the generator draws shows the source in the target's pose, expression and light. It lies nearly where
the target's face lies, but not to the pixel: the same correspondence and blending that `mesh` uses put it there. With
`detail` the photograph itself is placed the same way, and the result is a mean of both where the photograph shows the
place: the drawing has the target's expression and nothing of the source's hair or glasses, the photograph its detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mattface import perception, pixels
from mattface import weights as registry
from mattface.code_heads import CodeHeads
from mattface.embed.body import SIZE, RecognitionBody
from mattface.embed.resnet import read
from mattface.errors import UsageError, WeightsError
from mattface.generate.named import FixedGenerator, Synthesis, load_generator
from mattface.layers import resize
from mattface.methods import mesh
from mattface.methods.contract import CropSpec, Description
from mattface.parse import Parser
from mattface.refine import Progress, refine_code
from mattface.transfer.recognition import RecognitionTransfer
from mattface.vocabulary import Crop, Face, FeaturePyramid, MatteFilter, RecognitionFeatures, Swap, WPlus

CHAIN, FIXED = "chain", "fixed"
"""Metadata key of a checkpoint, and its value for this chain."""
GENERATOR = "generator"
BODY = "identity-resnet"
SEEN_FROM_FAR = 32
"""Side of the picture that refinement holds."""
STAYS = 4.0
"""Weight of that against the squared distance of identities."""
PHOTOGRAPH = 0.5
"""Share of the photograph, with detail, where it shows the place."""


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
        return w_plus, self.draw(w_plus)

    def draw(self, w_plus: WPlus) -> torch.Tensor:
        """(B, 18, 512) to the side image."""
        image = self.generate(w_plus).image
        if image is None:
            raise WeightsError("expected a generator that draws pictures; this one draws none.")
        return image

    def refine(
        self, w_plus: WPlus, source: RecognitionFeatures, steps: int, progress: Progress | None = None
    ) -> WPlus:
        """Moves a code until the recognition network sees the source in its picture.

        Pose, expression and light stay, because the picture at `SEEN_FROM_FAR` pixels does.

        Args:
            w_plus: (1, 18, 512) of `forward`.
            source: of the source.
            steps, progress: see `refine_code`.
        """
        with torch.no_grad():
            far = resize(self.draw(w_plus), SEEN_FROM_FAR)

        def loss_of(code: WPlus) -> torch.Tensor:
            drawn = self.draw(code)
            apart = (self.encode(drawn).identity - source.identity).square().sum(1).mean()
            return apart + STAYS * F.mse_loss(resize(drawn, SEEN_FROM_FAR), far)

        return refine_code(w_plus, self.heads.w_avg, loss_of, steps, progress)


class FixedMethod:
    """The chain behind the method contract.

    Args:
        chain: see there.
        placing: puts a drawn face where the target's lies.
        detail: whether the photograph's own pixels are used.
        weights: name of the trained parts.
        generator: name of the generator.
        device, dtype: where, and in which dtype, the generator runs.
        refine: steps of `FixedChain.refine` for every swap; about a second each on one CPU core.
        notes: sentences for every report.

    Attributes:
        progress: called after every step of refinement; returning False ends it with the best code so far.
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
        refine: int = 0,
        notes: tuple[str, ...] = (),
    ) -> None:
        if refine < 0:
            raise UsageError(f"refine must be 0 steps (none) or more; got {refine}.")
        self.refine, self.notes = refine, notes
        self.progress: Progress | None = None
        self.chain = chain.to(device).eval().requires_grad_(False)
        self.placing, self.detail = placing, detail
        self.weights, self.generator = weights, generator
        self.device, self.dtype = device, dtype
        self.detector = perception.load("detector", device=device)
        self.landmarker = perception.load("landmarks", device=device)

    def encode(self, source: Crop) -> Encoded:
        """Encodes an aligned source crop once."""
        return Encoded(self.chain.encode(source.pixels.to(self.device)), self.placing.encode(source))

    def merge(self, encoded: Sequence[Encoded]) -> Encoded:
        """The first, whose head looks most nearly where the target's does, with the photographs of the others."""
        return replace(encoded[0], photograph=self.placing.merge([one.photograph for one in encoded]))

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.placing.matte.parser.name, notes=self.notes)

    def swap(self, encoded: Encoded, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one 1024 px crop; extras hold "side" (1, 3, 1024, 1024) and "w_plus" besides those of `mesh`.

        Where the generator draws no face that can be found, the matte is empty: nothing is replaced.
        """
        seen = self.chain.encode(target.pixels.to(self.device))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            w_plus, side = self.chain(encoded.features, seen)
        if self.refine:
            with torch.inference_mode(False), torch.enable_grad():
                source_seen = cloned(encoded.features)
                w_plus = self.chain.refine(w_plus.float().clone(), source_seen, self.refine, self.progress)
            side = self.chain.draw(w_plus)
        drawn = self._find(side)
        extras = {"side": side, "w_plus": w_plus}
        if drawn is None:
            return Swap(target.pixels, torch.zeros_like(target.pixels[:, :1]), extras)
        source = self.placing.encode(drawn)
        placed = self.placing.swap(source, target, matte_filter=matte_filter)
        if self.detail:
            photograph = self.placing.merge([encoded.photograph, source])
            placed = mean_swap(placed, self.placing.swap(photograph, target), target.pixels, PHOTOGRAPH)
        return replace(placed, extras=placed.extras | extras)

    def _find(self, side: torch.Tensor) -> Crop | None:
        """A drawn picture as a crop with its mesh; None where no face is found in it."""
        picture = pixels.to_pixels(side, np.uint8)
        found = self.detector(picture)
        if not found:
            return None
        face: Face = self.landmarker(picture, found[0])
        return Crop(side.float().clamp(-1, 1).cpu(), np.eye(3), face.mesh, face.points)


def cloned(features: RecognitionFeatures) -> RecognitionFeatures:
    """The same values outside inference mode, so that gradients may pass."""
    pyramid = FeaturePyramid(*(m.clone() for m in features.pyramid.levels()))
    return RecognitionFeatures(pyramid, features.identity.clone(), features.context.clone())


def mean_swap(first: Swap, second: Swap, target: torch.Tensor, share: float) -> Swap:
    """The swap whose pasted picture is the mean of two pasted pictures.

    Args:
        first, second: swaps of one target; the extras are the first's.
        target: (1, 3, S, S) its pixels in [-1, 1].
        share: of the second.
    """
    matte = torch.maximum(first.matte, second.matte)
    change = (1 - share) * first.matte * (first.pixels - target) + share * second.matte * (second.pixels - target)
    return replace(first, pixels=target + change / matte.clamp_min(1e-4), matte=matte)


def build_fixed(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    name: str,
    detail: str,
    device: torch.device,
    dtype: torch.dtype,
    parser: Parser,
    refine: int = 0,
    commercial: bool | None = None,
    notes: tuple[str, ...] = (),
) -> FixedMethod:
    """Puts the trained parts between the fixed ones.

    Args:
        tensors, metadata: of a checkpoint whose metadata says chain: fixed.
        name: of the checkpoint.
        detail: "flow" or "off".
        device, dtype, parser, refine, notes: see `FixedMethod`.
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
    return FixedMethod(chain, placing, detail == "flow", name, generator.name, device, dtype, refine, notes)
