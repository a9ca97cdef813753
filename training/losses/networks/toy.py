"""Small networks with fixed random weights that have the interface of CLIP and of the 3D regressor but know nothing.

Tiny recipes train with them, so that every loss of a paper runs without a download.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import nn

CODE = 16
"""Length of CLIP's toy embeddings."""
SHAPE = 80
"""Number of shape coefficients, as the real regressor gives."""
WORDS = 256
"""Rows of the toy vocabulary; words are hashed into it."""


class ToyPicture(nn.Module):
    """Means of a picture over a 4x4 grid through a fixed matrix.

    Args:
        outputs: length of the result.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.pool, self.project = nn.AdaptiveAvgPool2d(4), nn.Linear(48, outputs)
        weight = torch.randn(outputs, 48, generator=torch.Generator().manual_seed(outputs)) / 48**0.5
        self.load_state_dict({"project.weight": weight, "project.bias": torch.zeros(outputs)})
        self.requires_grad_(False).eval()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [-1, 1] to (B, outputs)."""
        return self.project(self.pool(pictures.float()).flatten(1))


Encoders = tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Sequence[str]], torch.Tensor]]
"""Pictures to (B, D), and texts to (B, D)."""


def toy_clip(device: torch.device) -> Encoders:
    """Encoders of pictures and texts, (B, `CODE`) each; a text is the mean of its words' vectors."""
    table = torch.randn(WORDS, CODE, generator=torch.Generator().manual_seed(1)).to(device)

    def text(captions: Sequence[str]) -> torch.Tensor:
        rows = [[zlib.crc32(word.encode()) % WORDS for word in caption.lower().split()] for caption in captions]
        return torch.stack([table[row].mean(0) if row else table.new_zeros(CODE) for row in rows])

    return ToyPicture(CODE).to(device), text


def toy_shape(device: torch.device) -> ToyPicture:
    """Pictures to (B, `SHAPE`) coefficients."""
    return ToyPicture(SHAPE).to(device)
