"""alphaface-paper: AlphaFace as the paper says (section 4.1): Adam 0.01 times 0.9 every 5 epochs, batch 8, 50 epochs.

Open points. One epoch is taken as VGGFace2-HQ's 1.36 million pictures together with CelebA-HQ's 30 000; `--set
loop.images` fits another set. Perceptual loss: the paper prints no formula, squares are taken.
"""

from __future__ import annotations

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe
from mattface.training.recipes.tiny_networks import shrink

EPOCH = 1_392_000
ADAM = Optimiser("adam", 1e-2, schedule="step", factor=0.9, every=5 * EPOCH)
LOSS = {
    "identity": 10.0,
    "masked": 0.5,
    "cycle": 0.5,
    "perceptual": 0.5,
    "adversarial": 1.0,
    "clip_text": 1.0,
    "clip_identity": 1.0,
}
"""Eq. 9: lambda ID 10, AP 0.5 (for each of its three terms, eq. 6), Adv 1, CLIP 1 (for both)."""


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "alphaface-paper",
        Loop(50 * EPOCH, 8, log_every=800, save_every=100_000, grid_every=100_000, score_every=200_000),
        {"swapper": ADAM, "discriminator": ADAM},
        method="alphaface-paper",
        size=256,
        loss=LOSS,
        discriminator=DiscriminatorConfig("patch", "log"),
        loss_networks=LossNetworks("arcface", "whole", "vgg16"),
    )


def tiny() -> SwapRecipe:
    """32 px and a tenth of the learning rate, see `mattface.training.recipes.tiny_networks`."""
    return shrink(recipe(), (16, 12, 8), Optimiser("adam", 1e-3), DiscriminatorConfig("patch", "log", width=8))
