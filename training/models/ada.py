"""Augmentation of what a discriminator sees, so that few pictures are enough (Karras et al. 2020, "limited data").

Every transformation is drawn with probability p for every picture, real and generated alike, and p follows a sign of
overfitting. A smaller set than the paper's: flip, quarter turns, whole-pixel shifts; scale, turn, stretch; brightness,
contrast, saturation, hue. All differentiable once; R1 is therefore taken at the augmented pictures.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

GREY = (1 / 3**0.5,) * 3


def choose(count: int, p: torch.Tensor) -> torch.Tensor:
    """(count,) 1 with probability p."""
    return (torch.rand(count, device=p.device) < p).float()


def rotation(angle: torch.Tensor) -> torch.Tensor:
    """(B, 2, 2) rotations."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)


def draw_geometry(count: int, size: int, p: torch.Tensor) -> torch.Tensor:
    """(B, 2, 3) from result to picture, both in [-1, 1]."""
    device = p.device
    flip = 1 - 2 * choose(count, p) * torch.randint(2, (count,), device=device)
    matrix = torch.diag_embed(torch.stack([flip, torch.ones_like(flip)], 1))
    quarter = choose(count, p) * torch.randint(4, (count,), device=device)
    matrix = rotation(quarter * (math.pi / 2)) @ matrix
    grow = torch.exp2(torch.randn(count, device=device) * 0.2 * choose(count, p))
    stretch = torch.exp2(torch.randn(count, device=device) * 0.2 * choose(count, p))
    scales = torch.diag_embed(torch.stack([grow * stretch, grow / stretch], 1))
    angle = (torch.rand(count, device=device) * 2 - 1) * math.pi * choose(count, 1 - torch.sqrt(1 - p))
    matrix = rotation(angle) @ scales @ matrix
    shift = torch.round((torch.rand(count, 2, device=device) * 2 - 1) * 0.125 * size) * (2 / size)
    return torch.cat([matrix, (shift * choose(count, p)[:, None])[:, :, None]], 2)


def draw_colours(count: int, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 3, 3) matrices and (B, 3) offsets on RGB in [-1, 1]."""
    device = p.device
    grey = torch.tensor(GREY, device=device)
    along = torch.outer(grey, grey)
    eye = torch.eye(3, device=device)
    brightness = torch.randn(count, device=device) * 0.2 * choose(count, p)
    contrast = torch.exp2(torch.randn(count, device=device) * 0.5 * choose(count, p))
    saturation = torch.exp2(torch.randn(count, device=device) * choose(count, p))
    hue = (torch.rand(count, device=device) * 2 - 1) * math.pi * choose(count, p)
    cross = torch.tensor([[0, -grey[2], grey[1]], [grey[2], 0, -grey[0]], [-grey[1], grey[0], 0]], device=device)
    cos, sin = torch.cos(hue)[:, None, None], torch.sin(hue)[:, None, None]
    turn = cos * eye + sin * cross + (1 - cos) * along  # about the grey axis
    saturate = along + (eye - along) * saturation[:, None, None]
    return contrast[:, None, None] * (saturate @ turn), brightness[:, None].expand(-1, 3)


def augment(pictures: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Augments every picture on its own; the border is mirrored.

    Args:
        pictures: (B, 3, S, S) in [-1, 1].
        p: () probability of each transformation.

    Returns:
        (B, 3, S, S); the very same tensor while p is 0.
    """
    if float(p) <= 0:
        return pictures
    grid = F.affine_grid(draw_geometry(len(pictures), pictures.shape[-1], p), list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures.float(), grid, padding_mode="reflection", align_corners=False)
    matrix, offset = draw_colours(len(pictures), p)
    return torch.einsum("bij,bjhw->bihw", matrix, moved) + offset[:, :, None, None]


class Statistics(nn.Module):
    """What a generator's training remembers beside its weights; saved with them.

    Attributes:
        p: () probability of augmentation.
        sign: () running mean of the sign of scores of real pictures: 0 at first, 1 when the discriminator knows
            them all.
        path: () running mean of path lengths.
    """

    p: torch.Tensor
    sign: torch.Tensor
    path: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("p", "sign", "path"):
            self.register_buffer(name, torch.zeros([]))

    @torch.no_grad()
    def follow(self, sign: torch.Tensor, target: float, images: int, span: int) -> None:
        """Moves p so that the sign stays near its target (Karras et al. 2020, section 3.1).

        Args:
            sign: () mean sign of scores of real pictures of this step.
            target: of the sign; 0.6 in the paper.
            images: seen in this step.
            span: images in which p can go from 0 to 1.
        """
        self.sign.lerp_(sign.to(self.sign), 0.1)
        self.p.add_(torch.sign(self.sign - target) * (images / span)).clamp_(0, 0.85)
