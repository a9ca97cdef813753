"""Small fixed parts with random weights: a recognition body, a generator of 18 styles, and people they draw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from mattface.code_heads import CodeHeads
from mattface.embed.body import RecognitionBody
from mattface.embed.resnet import IdentityResNet
from mattface.generate.mobile import MobileSynthesis
from mattface.training.drawn.people import DrawnPerson
from mattface.vocabulary import FeaturePyramid, RecognitionFeatures

STYLE = 512


def tiny_body() -> RecognitionBody:
    """The real architecture; random weights scaled so that every stage tells pictures apart."""
    torch.manual_seed(0)
    return RecognitionBody(IdentityResNet().eval())


def tiny_generator() -> MobileSynthesis:
    """18 styles of 512 and 1024 px, as the real one, with 4 channels everywhere."""
    torch.manual_seed(1)
    network = MobileSynthesis(STYLE, {4 << i: 4 for i in range(8)})
    for name, parameter in network.named_parameters():
        if name.endswith("affine.bias") or name.endswith("up.bias"):
            torch.nn.init.ones_(parameter)
    return network.eval().requires_grad_(False)


def random_features(count: int, seed: int = 0) -> RecognitionFeatures:
    """Features of `count` faces that nobody has."""
    rng = torch.Generator().manual_seed(seed)
    maps = [torch.randn(count, c, s, s, generator=rng) for c, s in ((64, 17), (128, 8), (256, 2))]
    identity, context = torch.randn(count, 128, generator=rng), torch.randn(count, 4352, generator=rng)
    return RecognitionFeatures(FeaturePyramid(*maps), identity, context)


class TinyArtist:
    """Draws noise for people whose attributes are told by their codes."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def people(self, seed: int, numbers: range) -> Iterator[DrawnPerson]:
        """See `Artist.people`; every seventh has no face."""
        for number in numbers:
            self.drawn.append(number)
            rng = np.random.default_rng(seed * 1000 + number)
            mesh = None if number % 7 == 6 else rng.normal(size=(468, 3)).astype(np.float32)
            code = torch.from_numpy(rng.normal(size=(1, 18, 512)).astype(np.float32))
            picture = rng.integers(0, 255, (256, 256, 3), np.uint8)
            yield DrawnPerson(code, picture, random_features(1, number), mesh)


def tiny_heads(inputs: int) -> CodeHeads:
    """Heads of rank 4 with small random weights."""
    torch.manual_seed(2)
    heads = CodeHeads(inputs, 4).eval().requires_grad_(False)
    heads.expand.weight.mul_(0.1)
    return heads
