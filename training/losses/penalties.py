"""Penalties on gradients and weights: R1, path length, l1 of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch


def r1_penalty(scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """E |grad D(x)|^2 at real pictures (Mescheder et al. 2018, eq. 9, without its gamma / 2).

    Args:
        scores: D(real), any shape.
        real: (B, 3, H, W) that requires a gradient.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(image: torch.Tensor, styles: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """|J^T y| of the generator at each sample (Karras et al. 2020, eq. 4).

    Args:
        image: (B, 3, H, W) generated from `styles`.
        styles: (B, L, D), part of the image's graph.
        noise: (B, 3, H, W) normal y; it is divided by the root of H * W, so that lengths do not depend on the size.

    Returns:
        (B,) root over styles of the mean squared gradient, summed over D.
    """
    y = noise / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * y).sum(), styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_penalty(lengths: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """E (|J^T y| - a)^2 (Karras et al. 2020, eq. 4).

    Args:
        lengths: (B,) from `path_lengths`.
        mean: () a, the running mean of lengths, without gradient.
    """
    return (lengths - mean.detach()).square().mean()


def weight_penalty(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """Mean absolute weight (MagicMask's l1 weight decay, section 4)."""
    tensors = list(parameters)
    return torch.stack([p.abs().sum() for p in tensors]).sum() / sum(p.numel() for p in tensors)
