"""Adversarial losses on scores of any shape: one per picture (global) or one per patch (B, 1, h, w).

MAttFace eq. 13, FaceChanger eq. 7 and MagicMask eq. 10 print the minimax game of logarithms, where D is the sigmoid of
a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mattface.errors import UsageError

FORMS = ("log", "minimax", "least-squares", "hinge")
"""log: with the non-saturating loss for the generator (Goodfellow et al. 2014, section 3); minimax: as printed;
least-squares: Mao et al. 2017 (AlphaFace's script); hinge: Lim and Ye 2017."""

REGIONS = {
    "eye": range(36, 48),
    "nose": range(27, 36),
    "mouth": range(48, 68),
    "jaw": range(0, 17),
}
"""Landmarks (of 68, iBUG order) whose bounding box is each AFSA patch (MagicMask, before eq. 11: N = 4)."""
MARGIN = 1.2
"""Size of a patch in units of its landmarks' extents: the paper's "small margin", which it does not state."""


def discriminator_loss(form: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """What the discriminator minimises.

    Args:
        form: one of `FORMS`.
        real, fake: scores of real and generated pictures.
    """
    check_form(form)
    if form == "least-squares":
        return (real - 1).square().mean() + fake.square().mean()
    if form == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()  # -log D(x) - log(1 - D(x~)), eq. 13


def generator_loss(form: str, fake: torch.Tensor) -> torch.Tensor:
    """What the generator minimises, from scores of its pictures.

    Args:
        form: one of `FORMS`.
        fake: scores.
    """
    check_form(form)
    if form == "least-squares":
        return (fake - 1).square().mean()
    if form == "hinge":
        return -fake.mean()
    if form == "minimax":
        return -F.softplus(fake).mean()  # log(1 - D(x~)), eq. 13
    return F.softplus(-fake).mean()  # -log D(x~)


def check_form(form: str) -> None:
    """Rejects an unknown form.

    Raises:
        UsageError: naming those there are.
    """
    if form not in FORMS:
        raise UsageError(f"adversarial form must be one of {', '.join(FORMS)}; got {form!r}.")


def landmark_patches(pictures: torch.Tensor, landmarks: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cuts the parts that AFSA compares: eyes, nose, mouth, jaw (MagicMask, before eq. 11). Differentiable.

    Args:
        pictures: (B, 3, S, S).
        landmarks: (B, 68, 2) in pixels of the pictures, centres at +0.5.
        size: P of a patch.

    Returns:
        One (B, 3, P, P) per region of `REGIONS`; beyond the picture its border is repeated.
    """
    if landmarks.shape[1:] != (68, 2) or len(landmarks) != len(pictures):
        raise UsageError(f"landmarks must be ({len(pictures)}, 68, 2); got {tuple(landmarks.shape)}.")
    side = pictures.shape[-1]
    axis = (torch.arange(size, device=pictures.device) + 0.5) * (2 / size) - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    unit = torch.stack([u, v], -1)  # (P, P, 2), x before y
    patches = []
    for index in REGIONS.values():
        points = landmarks[:, list(index)].to(pictures)
        low, high = points.amin(1), points.amax(1)
        half = (high - low).clamp_min(4) * (MARGIN / 2)  # (B, 2)
        grid = ((low + high) / 2)[:, None, None] + half[:, None, None] * unit  # (B, P, P, 2) pixels
        grid = grid * (2 / side) - 1
        patches.append(F.grid_sample(pictures, grid, padding_mode="border", align_corners=False))
    return patches


def afsa_discriminator_loss(form: str, real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """Adversarial facial silhouette alignment, the discriminator's side (MagicMask eq. 11).

    Args:
        form: one of `FORMS`.
        real, fake: scores of the patches of each region.
    """
    return torch.stack([discriminator_loss(form, r, f) for r, f in zip(real, fake, strict=True)]).mean()


def afsa_generator_loss(form: str, fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """Adversarial facial silhouette alignment, the generator's side (MagicMask eq. 11).

    Args:
        form: one of `FORMS`.
        fake: scores of the patches of each region.
    """
    return torch.stack([generator_loss(form, f) for f in fake]).mean()
