"""alphaface: AlphaFace as its published script trains it.

AdamW (0, 0.99) 1e-4 times 0.97 every 20 000 steps, batch 2, gradients clipped to 1, least squares on a 32x32 map of
patches from step 200 000, every loss the sum of both directions, text loss as a margin. One thing is not copied: the
script feeds CLIP values 255 times too large. Its length (100 000 epochs of a small set) is cut to 500 000 steps.
"""

from __future__ import annotations

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe
from mattface.training.recipes.tiny_networks import shrink

BATCH = 2
ADAMW = Optimiser("adamw", 1e-4, (0.0, 0.99), decay=5e-4, clip=1.0, schedule="step", factor=0.97, every=20_000 * BATCH)
LOSS = {
    "identity": 10.0,
    "masked": 0.5,
    "cycle": 0.5,
    "self": 0.5,
    "perceptual": 0.5,
    "adversarial": 1.0,
    "clip_text": 1.0,
    "clip_identity": 1.0,
}


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "alphaface",
        Loop(500_000 * BATCH, BATCH, log_every=200, save_every=25_000 * BATCH, grid_every=5_000, score_every=20_000),
        {"swapper": ADAMW, "discriminator": ADAMW},
        method="alphaface",
        size=256,
        both_ways=True,
        loss=LOSS,
        discriminator=DiscriminatorConfig("patch", "least-squares", begins=200_000 * BATCH),
        loss_networks=LossNetworks("arcface", "whole", "vgg16"),
        power=1,
        text="margin",
    )


def tiny() -> SwapRecipe:
    """32 px, see `mattface.training.recipes.tiny_networks`."""
    discriminator = DiscriminatorConfig("patch", "least-squares", width=8, begins=80)
    adamw = Optimiser("adamw", 1e-3, (0.0, 0.99), decay=5e-4, clip=1.0)
    return shrink(recipe(), (16, 12, 8, 8, 8), adamw, discriminator)
