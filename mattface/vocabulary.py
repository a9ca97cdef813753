"""The nouns of face swapping. Every other file in this package is an arrow between two of them.

`Picture -detect-> Face -align-> Crop -encode-> FeaturePyramid -transfer-> FeaturePyramid -invert-> WPlus
-generate-> GeneratorFeatures -blend-> Swap -paste-> Picture`

Letters in shapes: B batch, C channels, H W height and width, S side of a square crop, L styles, D embedding.
Pixel coordinates are x before y; the centre of the top-left pixel is (0.5, 0.5), so an image spans [0, W] x [0, H].
Inside, pixels are (B, 3, H, W) float RGB in [-1, 1]; outside they are HxWx3 in the caller's own type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

WPlus = torch.Tensor
"""(B, L, 512): one style vector per generator layer."""


class MatteFilter(Protocol):
    """What is remembered of one face from frame to frame, owned by whoever follows the face."""

    def __call__(self, matte: np.ndarray) -> np.ndarray:
        """(S, S) float32 matte of this frame -> the matte to use, filtered over time."""

    def visible(self, every: int, look: Callable[[], np.ndarray]) -> np.ndarray:
        """What `look` finds now, or what it found at most `every` - 1 frames ago.

        Args:
            every: frames from one look to the next, from 1 on.
            look: finds how far the face is visible, (s, s) float32 in a square that follows its mesh.
        """


@dataclass(frozen=True)
class Picture:
    """A decoded picture with everything needed to write it back as it came.

    Attributes:
        pixels: (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1], upright (orientation already applied).
        alpha: (H, W) of the same type, or None.
        origin: format name as the reader gives it ("PNG", "JPEG", "TIFF", ...), or None for arrays.
        metadata: what travels with it untouched: "icc" bytes, "exif" bytes, "dpi" (x, y), "xmp" bytes.
        notes: sentences worth telling the user ("animated image: first of 12 frames used").
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    origin: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True)
class Face:
    """One face in a picture, in pixels of that picture.

    Attributes:
        box: (4,) left, top, right, bottom.
        score: detector confidence in [0, 1].
        points: (5, 2) eye on the left of the picture, other eye, nose tip, mouth corners left and right
            (left and right as seen on an upright face).
        mesh: (468, 3) dense landmarks, or None before the landmark stage. z is depth in pixels, smaller is nearer.
        presence: how sure the landmark stage is that there is a face, in [0, 1]; None before it.
    """

    box: np.ndarray
    score: float
    points: np.ndarray
    mesh: np.ndarray | None = None
    presence: float | None = None


@dataclass(frozen=True)
class Crop:
    """An aligned square cut out of a picture.

    Attributes:
        pixels: (1, 3, S, S) float32 RGB in [-1, 1].
        image_to_crop: (3, 3) float64 matrix taking picture pixels (x, y, 1) to crop pixels.
        mesh: (468, 3) dense landmarks in crop pixels (z scaled alike), or None.
        points: (5, 2) sparse points in crop pixels.
    """

    pixels: torch.Tensor
    image_to_crop: np.ndarray
    mesh: np.ndarray | None
    points: np.ndarray

    @property
    def size(self) -> int:
        """Side S in pixels."""
        return self.pixels.shape[-1]


@dataclass(frozen=True)
class FeaturePyramid:
    """Encoder features of a 256 px face (MAttFace eq. 1).

    The names are MAttFace's, whose attention has most positions at the coarse level: "coarse" is the encoder's first
    and largest map. pSp, whose encoder it is, names styles the other way round: its coarse styles are read from `fine`
    (`mattface.latent_heads`).

    Attributes:
        coarse: (B, 128, 64, 64) at the official size.
        medium: (B, 256, 32, 32).
        fine: (B, 512, 16, 16).
    """

    coarse: torch.Tensor
    medium: torch.Tensor
    fine: torch.Tensor

    def levels(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Coarse, medium, fine."""
        return self.coarse, self.medium, self.fine


@dataclass(frozen=True)
class RecognitionFeatures:
    """What a recognition network sees of an FFHQ crop.

    Attributes:
        pyramid: maps of the face itself, coarse, medium and fine.
        identity: (B, 128), not unit length; the same person below a Euclidean distance of 0.6.
        context: (B, K) the whole crop in short: pose, hair, background.
    """

    pyramid: FeaturePyramid
    identity: torch.Tensor
    context: torch.Tensor


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; right and bottom lie outside."""


@dataclass(frozen=True)
class GeneratorFeatures:
    """What the generator leaves for the blend.

    Attributes:
        features: resolution -> (B, C, R, R) feature map at the end of the block of that resolution.
        image: (B, 3, S, S) side image in about [-1, 1]; None when it was not asked for.
        boxes: resolution -> the part (left, top, right, bottom) in pixels of that resolution that its map holds, the
            image being that of the highest one; None when everything is whole.
    """

    features: dict[int, torch.Tensor]
    image: torch.Tensor | None = None
    boxes: dict[int, Box] | None = None


@dataclass(frozen=True)
class Swap:
    """A swapped crop before it is pasted back.

    Attributes:
        pixels: (B, 3, S, S) float RGB in [-1, 1].
        matte: (B, 1, S, S) float in [0, 1]; 0 means the target's own pixel.
        extras: further maps a method offers for inspection and training (flow, gain, side image, ...).
    """

    pixels: torch.Tensor
    matte: torch.Tensor
    extras: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """A source person, encoded once and used many times.

    Attributes:
        method: name of the method that prepared it.
        crops: the aligned source crops, one per picture.
        primary: index of the crop whose embedding is nearest to the mean.
        embedding: (D,) unit length mean embedding, or None when no identity network is available.
        encoded: what the method keeps of every crop (feature pyramid, textures, ...), in their order.
        hashes: SHA-256 of the pictures, as files where they came as files.
    """

    method: str
    crops: tuple[Crop, ...]
    primary: int
    embedding: np.ndarray | None
    encoded: tuple[Any, ...]
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SwappedFace:
    """One swapped face of a result, in pixels of the target picture.

    Attributes:
        index: position among the faces found, largest first.
        face: the target's face.
        image_to_crop: (3, 3) picture pixels to crop pixels.
        crop: (S, S, 3) uint8 swapped crop.
        report: numbers and names of this face (identity cosine when measured, crop size, ...).
    """

    index: int
    face: Face
    image_to_crop: np.ndarray
    crop: np.ndarray
    report: dict[str, Any]


@dataclass(frozen=True)
class SwapResult:
    """What `Swapper.swap` returns.

    Attributes:
        image: the picture in the target's own type (path or PIL image gives PIL image where 8-bit, array gives array),
            size and bit depth.
        matte: (H, W) float32 in [0, 1]; where it is 0 the image equals the target bit for bit.
        faces: the faces that were swapped.
        report: device, parts, op implementations, seconds per stage, notes.
        picture: the same image as a `Picture`, ready for writing with its metadata.
    """

    image: Any
    matte: np.ndarray
    faces: tuple[SwappedFace, ...]
    report: dict[str, Any]
    picture: Picture


@dataclass(frozen=True)
class Correspondence:
    """Where in the source every position of the target is shown, and how far to use it (our option `detail`).

    Attributes:
        flow: (B, 2, h, w) float32 source position, x and y in [-1, 1] over the source crop.
        confidence: (B, 1, h, w) in [0, 1]: how much of a pixel the source's own detail should give.
        matte: (B, 1, h, w) logit of the soft mask of what is replaced.
    """

    flow: torch.Tensor
    confidence: torch.Tensor
    matte: torch.Tensor
