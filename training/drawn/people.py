"""Draws people, one per seed and number, and notes what is seen of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mattface import perception
from mattface import weights as registry
from mattface.embed.body import SIZE, RecognitionBody
from mattface.embed.resnet import read
from mattface.generate.named import FixedGenerator
from mattface.vocabulary import RecognitionFeatures, WPlus

STRIDE = 1_000_003
"""Between the random numbers of two seeds."""
TRUNCATION = (0.65, 1.0)
MIXED = 0.6
"""Share of people whose later styles are another's: so that styles are not all alike, as no photograph's are."""
CROSSINGS = (2, 13)
"""First style of the other, from the first number up to before the second."""


@dataclass(frozen=True)
class DrawnPerson:
    """One person.

    Attributes:
        w_plus: (1, 18, 512) float32, exactly what drew the picture.
        picture: (256, 256, 3) uint8 RGB, an FFHQ crop.
        features: what the recognition network sees, batch of one.
        mesh: (468, 3) landmarks in pixels of the picture; None where no face was found.
    """

    w_plus: WPlus
    picture: np.ndarray
    features: RecognitionFeatures
    mesh: np.ndarray | None


def random_code(generator: FixedGenerator, seed: int, number: int) -> WPlus:
    """(1, 18, 512) code of a person: seed and number alone decide."""
    rng = torch.Generator().manual_seed(seed * STRIDE + number)
    w = generator.mapping.style(torch.randn(2, generator.mapping.z_dim, generator=rng))
    low, high = TRUNCATION
    average = generator.mapping.w_avg
    w = average + (low + (high - low) * torch.rand(2, 1, generator=rng)) * (w - average)
    code = w[:1].repeat(generator.synthesis.num_styles, 1)
    if torch.rand((), generator=rng) < MIXED:
        code[int(torch.randint(*CROSSINGS, (), generator=rng)) :] = w[1]
    return code[None]


class Artist:
    """Draws people and measures them.

    Args:
        generator: fixed; runs in bfloat16, half a level from single precision.
    """

    def __init__(self, generator: FixedGenerator) -> None:
        self.generator = generator
        self.body = RecognitionBody(read(registry.find("identity-resnet")))
        self.detector, self.landmarker = perception.load("detector"), perception.load("landmarks")

    @torch.inference_mode()
    def picture(self, w_plus: WPlus) -> np.ndarray:
        """(256, 256, 3) uint8 RGB of a (1, 18, 512) code."""
        with torch.autocast("cpu", torch.bfloat16):
            half: Any = self.generator.synthesis(w_plus, half=True)  # type: ignore[call-arg]
        small = F.avg_pool2d(half.image.float(), half.image.shape[-1] // SIZE)[0]
        levels = ((small.permute(1, 2, 0) + 1) * 127.5 + 0.5).clamp(0, 255)
        return levels.byte().numpy()

    @torch.inference_mode()
    def measure(self, w_plus: WPlus) -> DrawnPerson:
        """Draws a code and notes what is seen of it."""
        picture = self.picture(w_plus)
        features = self.body(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)
        found = self.detector(picture)
        mesh = self.landmarker(picture, found[0]).mesh if found else None
        return DrawnPerson(w_plus, picture, features, mesh)

    def people(self, seed: int, numbers: range) -> Iterator[DrawnPerson]:
        """The people of a seed, one after the other."""
        for number in numbers:
            yield self.measure(random_code(self.generator, seed, number))
