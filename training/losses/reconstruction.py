"""Losses that keep what is not identity: pixels, feature maps, perceptual distances.

A feature network is any callable from pictures (B, 3, H, W) in [-1, 1] to a list of maps (B, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mattface.layers import resize

Features = Callable[[torch.Tensor], Sequence[torch.Tensor]]
TINY = 1e-8


def same_identity_loss(swap: torch.Tensor, target: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Distance of result and target where source and target are one person (MAttFace eq. 14).

    Args:
        swap, target: (B, 3, H, W).
        same: (B,) 1 where both are one person, else 0.

    Returns:
        Mean over those pairs of the root mean square of the difference (eq. 14's norm over the root of its count); 0
        when there are none.
    """
    norms = ((swap - target).square().mean((1, 2, 3)) + TINY).sqrt() - TINY**0.5
    return (norms * same).sum() / same.sum().clamp_min(1)


def masked_loss(swap: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over all pixels of |(1 - m) (x - x_t)| (AlphaFace eq. 4, FaceChanger eq. 3, first term of MagicMask eq. 8).

    Args:
        swap, target: (B, 3, H, W).
        mask: (B, 1, H, W), 1 on the target's face.
    """
    return ((1 - mask) * (swap - target)).abs().mean()


def cycle_loss(back: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the target and the result swapped back with it (AlphaFace eq. 5, FaceChanger eq. 4).

    Args:
        back: (B, 3, H, W) swap(source=target, target=result).
        target: (B, 3, H, W).
    """
    return (back - target).abs().mean()


def self_loss(own: torch.Tensor, target: torch.Tensor, power: int = 2) -> torch.Tensor:
    """Mean |x_{t->t} - x_t|^power of the target swapped with itself (MagicMask eq. 9; AlphaFace's script: power 1)."""
    difference = own - target
    return difference.square().mean() if power == 2 else difference.abs().mean()


def feature_loss(swap: Sequence[torch.Tensor], target: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Sum over decoder layers of mean ((1 - m_i) (z_i - z_t,i))^2 (second term of MagicMask eq. 8).

    Args:
        swap, target: maps (B, C_i, h_i, w_i) of the decoder for x_{t->s} and for x_{t->t}.
        mask: (B, 1, H, W), 1 on the target's face; area-averaged to every layer's size.
    """
    terms = [((1 - resize(mask, a.shape[-1])) * (a - b)).square().mean() for a, b in zip(swap, target, strict=True)]
    return torch.stack(terms).sum()


def perceptual_loss(features: Features, swap: torch.Tensor, target: torch.Tensor, power: int = 2) -> torch.Tensor:
    """Sum over layers of the mean |f_i(x) - f_i(x_t)|^power.

    FaceChanger eq. 5 squares; AlphaFace prints no formula, its script takes power 1 of four layers of VGG16.

    Args:
        features: feature network; the target's side gets no gradient.
        swap, target: (B, 3, H, W).
        power: 1 or 2.
    """
    with torch.no_grad():
        truth = features(target)
    terms = [a - b for a, b in zip(features(swap), truth, strict=True)]
    return torch.stack([d.square().mean() if power == 2 else d.abs().mean() for d in terms]).sum()


def lpips_loss(
    features: Features, heads: Sequence[torch.Tensor], swap: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """LPIPS (Zhang et al. 2018, eq. 1), MAttFace's perceptual loss (eq. 15).

    Args:
        features: feature network.
        heads: (C_i,) weight of every channel of layer i.
        swap, target: (B, 3, H, W).
    """
    with torch.no_grad():
        truth = features(target)
    layers = zip(features(swap), truth, heads, strict=True)
    return torch.stack([(w[:, None, None] * (unit(a) - unit(b)).square()).sum(1).mean() for a, b, w in layers]).sum()


def unit(maps: torch.Tensor) -> torch.Tensor:
    """Maps whose (C,) vector at every place has length 1."""
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()
