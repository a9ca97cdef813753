"""A photograph -> the W+ code that draws it: the pSp job (Richardson et al. 2021), with optional refinement.

The code comes from one pass of encoder and heads. Refinement moves the code, and nothing else, by gradient descent
until the drawn picture agrees with the photograph in pixels and in what a recognition network sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mattface import align, perception, picture_io, pixels
from mattface import weights as registry
from mattface.code_heads import CodeHeads, flatten_features
from mattface.devices import resolve_device
from mattface.embed.body import SIZE, RecognitionBody
from mattface.embed.resnet import read
from mattface.errors import NoFaceError, UsageError
from mattface.generate.named import EMBEDDED, Synthesis, load_generator
from mattface.layers import resize
from mattface.refine import Progress, refine_code
from mattface.vocabulary import WPlus
from mattface.weights.licences import commercial_only, require

WEIGHTS, BODY = "ffhq-encoder", "identity-resnet"
SAME = 0.6
"""Distance of identities below which its makers call two pictures one person."""
FEATURES = 0.1
"""Weight of what the recognition network sees beside pixels."""


@dataclass(frozen=True)
class Inversion:
    """A code and how well it draws its photograph.

    Attributes:
        w_plus: (1, 18, 512).
        target: (1, 3, S, S) the photograph's FFHQ crop in [-1, 1].
        drawn: (1, 3, S, S) what the generator draws.
        report: "identity_distance" (below 0.6: the same person to the recognition network), "psnr" (dB, whole crop),
            "steps", "generator", "notes".
    """

    w_plus: WPlus
    target: torch.Tensor
    drawn: torch.Tensor
    report: dict[str, Any]


class Inverter:
    """Photographs to codes. Build one with `load_inverter`.

    Attributes:
        body, heads: picture to code.
        generate: code to picture.
        generator: name of its weights.
        device: where they run.
    """

    def __init__(
        self, body: RecognitionBody, heads: CodeHeads, generate: Synthesis, generator: str, device: torch.device
    ) -> None:
        self.body, self.heads, self.generate, self.generator, self.device = body, heads, generate, generator, device

    @torch.inference_mode()
    def encode(self, crop: torch.Tensor) -> WPlus:
        """(B, 3, S, S) FFHQ crops in [-1, 1], S at least 256, to (B, 18, 512)."""
        return self.heads(self.body(resize(crop.to(self.device), SIZE)))

    def refine(self, crop: torch.Tensor, w_plus: WPlus, steps: int, progress: Progress | None = None) -> WPlus:
        """Moves a code so that it draws a crop better; gives the best one seen, also when `progress` ends it early.

        Args:
            crop: (1, 3, S, S) in [-1, 1].
            w_plus: (1, 18, 512) to start from.
            steps: of Adam (Kingma and Ba 2015).
            progress: called after every step; returning False ends it.
        """
        wanted = resize(crop.to(self.device), SIZE)
        with torch.no_grad():
            seen = self._standard(wanted)

        def loss_of(code: WPlus) -> torch.Tensor:
            drawn = resize(self._draw(code), SIZE)
            return F.mse_loss(drawn, wanted) + FEATURES * F.mse_loss(self._standard(drawn), seen)

        return refine_code(w_plus, self.heads.w_avg, loss_of, steps, progress)

    def __call__(self, crop: torch.Tensor, steps: int = 0, progress: Progress | None = None) -> Inversion:
        """Inverts one aligned crop.

        Args:
            crop: (1, 3, S, S) FFHQ crop in [-1, 1].
            steps: of refinement; about a second each on one CPU core.
            progress: see `refine`.

        Raises:
            UsageError: a negative number of steps.
        """
        if steps < 0:
            raise UsageError(f"steps must be 0 (the encoder alone) or more; got {steps}.")
        w_plus = self.encode(crop).clone()
        if steps:
            w_plus = self.refine(crop, w_plus, steps, progress)
        with torch.inference_mode():
            drawn = self._draw(w_plus)
            report = self._report(crop.to(self.device), drawn, steps)
        return Inversion(w_plus, crop, drawn, report)

    def _draw(self, code: WPlus) -> torch.Tensor:
        image = self.generate(code).image
        if image is None:
            raise UsageError("this generator draws no picture. Take another.")
        return image

    def _standard(self, image: torch.Tensor) -> torch.Tensor:
        return self.heads.standardise(flatten_features(self.body(image)))

    def _report(self, crop: torch.Tensor, drawn: torch.Tensor, steps: int) -> dict[str, Any]:
        small, made = resize(crop, SIZE), resize(drawn, SIZE)
        far = float((self.body(small).identity - self.body(made).identity).norm())
        error = float(F.mse_loss(made.clamp(-1, 1), small))
        notes = []
        if far > SAME:
            notes.append(
                f"the drawn face is {far:.2f} from the photographed one, more than {SAME}: another person to the "
                "recognition network. Is it a photograph of a face? More --steps may help."
            )
        return {
            "identity_distance": round(far, 3),
            "psnr": round(float(10 * np.log10(4 / max(error, 1e-12))), 2),
            "steps": steps,
            "generator": self.generator,
            "notes": notes,
        }


def load_inverter(
    generator: str = EMBEDDED,
    weights: str = WEIGHTS,
    device: str | torch.device = "auto",
    commercial: bool | None = None,
) -> Inverter:
    """Builds an inverter.

    Args:
        generator: "mobile-ffhq" or "stylegan2-ffhq"; codes of one drive the other.
        weights: the heads, by name or file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        commercial: refuse parts that forbid commercial use, as all known ones do; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: an unknown generator, or a part that forbids the commercial use that is asked for.
        WeightsError: heads, recognition network or generator are missing or damaged.
    """
    where = resolve_device(device)
    if commercial_only(commercial):
        require(weights, "Pictures cannot be inverted for commercial use: no other encoder is known.")
    tensors, _ = registry.load_tensors(registry.checkpoint_in(weights))
    heads = CodeHeads(len(tensors["mean"]), len(tensors["project.weight"])) if "mean" in tensors else CodeHeads()
    registry.load_strictly(heads, {name: value.float() for name, value in tensors.items()}, weights)
    body = RecognitionBody(read(registry.find(BODY)))
    fixed = load_generator(generator, where, commercial)
    for network in (body, heads):
        network.to(where).eval().requires_grad_(False)
    return Inverter(body, heads, fixed.synthesis, fixed.name, where)


def crop_of(picture: Any, name: str = "the picture") -> torch.Tensor:
    """The FFHQ crop of the largest face, (1, 3, S, S) in [-1, 1] with S at least 256.

    Args:
        picture: whatever `picture_io.read` takes.
        name: for messages.

    Raises:
        NoFaceError: no face.
        InputError: it cannot be read.
    """
    found = picture_io.read(picture)
    eight = pixels.eight_bit(found.pixels)
    faces = perception.load("detector")(eight)
    if not faces:
        height, width = eight.shape[:2]
        raise NoFaceError(f"expected a face in {name} to invert; none was found in {width}x{height} pixels.")
    face = perception.load("landmarks")(eight, faces[0])
    return align.cut(found.pixels, face, "ffhq", 1024).pixels


def invert(
    picture: Any,
    steps: int = 0,
    generator: str = EMBEDDED,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    commercial: bool | None = None,
) -> WPlus:
    """The W+ code of a photograph's largest face.

    Args:
        picture: path, PIL image, array or Picture.
        steps: of refinement; 0 is the encoder alone.
        generator, device, commercial: see `load_inverter`.
        progress: called after every step; returning False ends it, and the best code so far is given.

    Returns:
        (1, 18, 512).

    Raises:
        NoFaceError, InputError, WeightsError, UsageError: see `crop_of` and `load_inverter`.
    """
    return load_inverter(generator, device=device, commercial=commercial)(crop_of(picture), steps, progress).w_plus
