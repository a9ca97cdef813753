"""Losses on embeddings: who it is, what shape the head has, what a caption says. Embeddings are (B, D), any length."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def identity_loss(embedding: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - cosine of two (B, D) identity embeddings (MAttFace eq. 16, AlphaFace eq. 3, FaceChanger 2, MagicMask 7)."""
    return (1 - F.cosine_similarity(embedding, truth, dim=-1)).mean()


def shape_loss(coefficients: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - cosine of (B, 80) shape coefficients of a 3D face regressor for result and source (MAttFace eq. 17)."""
    return (1 - F.cosine_similarity(coefficients, truth, dim=-1)).mean()


def clip_text_loss(swap: torch.Tensor, text: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
    """1 - cosine of CLIP's image embedding of the result and its text embedding of the target's caption.

    Args:
        swap: (B, D) image embeddings of results.
        text: (B, D) embeddings of the captions of targets.
        target: (B, D) image embeddings of targets; with it a sample counts only while the result fits the caption
            worse than the target does (tau, AlphaFace eq. 7); without it always (FaceChanger eq. 8).

    Returns:
        Mean over the batch; samples that do not count are zeros in it.
    """
    fit = F.cosine_similarity(swap, text, dim=-1)
    if target is None:
        return (1 - fit).mean()
    tau = F.cosine_similarity(target, text, dim=-1) > fit  # eq. 7: an indicator, without gradient
    return (tau.to(fit.dtype) * (1 - fit)).mean()


def clip_text_margin_loss(swap: torch.Tensor, text: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """max(0, cos(target, text) - cos(result, text)), summed over the batch: AlphaFace's published script for its eq. 7.

    Arguments as in `clip_text_loss`.
    """
    return (F.cosine_similarity(target, text, dim=-1) - F.cosine_similarity(swap, text, dim=-1)).clamp_min(0).sum()


def clip_identity_loss(swap: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """1 - cosine of CLIP's image embeddings (B, D) of result and source (AlphaFace eq. 8, FaceChanger eq. 9)."""
    return (1 - F.cosine_similarity(swap, source, dim=-1)).mean()
