"""Losses as pure functions: tensors in, one scalar out. Networks are handed in, none is loaded here.

Pictures are (B, 3, H, W) in [-1, 1], flows (B, 2, H, W) in [-1, 1], masks (B, 1, H, W) in [0, 1] with 1 on the face.
Papers print norms of whole pictures; here they are means, so that a weight means the same at every size.
"""

from __future__ import annotations

from mattface.training.losses.adversarial import (
    FORMS,
    REGIONS,
    afsa_discriminator_loss,
    afsa_generator_loss,
    discriminator_loss,
    generator_loss,
    landmark_patches,
)
from mattface.training.losses.identity import (
    clip_identity_loss,
    clip_text_loss,
    clip_text_margin_loss,
    identity_loss,
    shape_loss,
)
from mattface.training.losses.penalties import path_lengths, path_penalty, r1_penalty, weight_penalty
from mattface.training.losses.reconstruction import (
    Features,
    cycle_loss,
    feature_loss,
    lpips_loss,
    masked_loss,
    perceptual_loss,
    same_identity_loss,
    self_loss,
)
from mattface.training.losses.supervised import (
    balanced_loss,
    charbonnier,
    cover_loss,
    flow_loss,
    matte_loss,
    photo_loss,
    smoothness_loss,
    supervised_loss,
    weighted_mean,
)

__all__ = [
    "FORMS",
    "REGIONS",
    "Features",
    "afsa_discriminator_loss",
    "afsa_generator_loss",
    "balanced_loss",
    "charbonnier",
    "clip_identity_loss",
    "clip_text_loss",
    "clip_text_margin_loss",
    "cover_loss",
    "cycle_loss",
    "discriminator_loss",
    "feature_loss",
    "flow_loss",
    "generator_loss",
    "identity_loss",
    "landmark_patches",
    "lpips_loss",
    "masked_loss",
    "matte_loss",
    "path_lengths",
    "path_penalty",
    "perceptual_loss",
    "photo_loss",
    "r1_penalty",
    "same_identity_loss",
    "self_loss",
    "shape_loss",
    "smoothness_loss",
    "supervised_loss",
    "weight_penalty",
    "weighted_mean",
]
