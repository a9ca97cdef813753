"""Losses against ground truth: picture, flow, matte. Shapes and ranges are those of the package."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of (B, C, H, W) values under (B, 1, H, W) weights; 0 where nothing has weight."""
    total = weight.sum() * values.shape[1]
    return (values * weight).sum() / total.clamp_min(1e-6)


def charbonnier(a: torch.Tensor, b: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Smooth absolute difference, element by element."""
    return torch.sqrt((a - b) ** 2 + epsilon**2) - epsilon


def flow_loss(flow: torch.Tensor, truth: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Distance of two flows where the truth is visible (Charbonnier, robust to outliers of pseudo ground truth)."""
    return weighted_mean(charbonnier(flow, truth), visible)


def photo_loss(picture: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor, octaves: int = 3) -> torch.Tensor:
    """L1 reconstruction (MAttFace eq. 14 with L1 for L2) summed over octaves of a Laplacian pyramid.

    Equal weight for every band keeps fine detail from drowning in the low frequencies.
    """
    loss = torch.zeros((), device=picture.device)
    difference = picture - truth
    for _ in range(octaves):
        low = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(low, scale_factor=2, mode="nearest")
        loss = loss + weighted_mean(band.abs(), weight)
        difference, weight = low, F.avg_pool2d(weight, 2)
    return loss + weighted_mean(difference.abs(), weight)


def matte_loss(logit: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of a soft mask against its soft truth, less the truth's own entropy: 0 is perfect."""
    truth = truth.clamp(1e-4, 1 - 1e-4)
    entropy = -(truth * truth.log() + (1 - truth) * (1 - truth).log()).mean()
    return F.binary_cross_entropy_with_logits(logit, truth) - entropy


def balanced_loss(probability: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in which what is true and what is not count alike, however rare one of them is.

    Args:
        probability, truth: (B, 1, H, W) in [0, 1].
        weight: (B, 1, H, W) of every pixel, beside that.
    """
    each = F.binary_cross_entropy_with_logits(torch.logit(probability.float(), 1e-4), truth, reduction="none")
    return (weighted_mean(each, weight * truth) + weighted_mean(each, weight * (1 - truth))) / 2


def cover_loss(matte: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """`matte_loss` of a mask that is given as (B, 1, H, W) values in [0, 1]."""
    return matte_loss(torch.logit(matte, 1e-6), truth)


def supervised_loss(picture: torch.Tensor, truth: torch.Tensor, matte: torch.Tensor) -> torch.Tensor:
    """`photo_loss` of a swap against the ground truth, with a tenth of the weight outside what that replaces.

    Args:
        picture, truth: (B, 3, H, W).
        matte: (B, 1, H, W).
    """
    return photo_loss(picture, truth, matte + 0.1)


def smoothness_loss(field: torch.Tensor) -> torch.Tensor:
    """Mean absolute second difference of a map: 0 for anything affine."""
    dxx = field[..., 2:] - 2 * field[..., 1:-1] + field[..., :-2]
    dyy = field[..., 2:, :] - 2 * field[..., 1:-1, :] + field[..., :-2, :]
    return dxx.abs().mean() + dyy.abs().mean()
