"""facechanger: FaceChanger (section IV-A): weights 1, 0.5, 1, 1, 1, an l1 term, both directions in a step, 500 epochs.

Captions are asked for with the paper's own prompt (`mattface data prepare --caption-prompt facechanger`); those of 70
words or more are rejected (section IV-A-2), and a longer one in the data takes no part in the loss on text.

Open points. The paper states neither optimiser, batch, nor the weight of its l1 term (before eq. 10): those of
AlphaFace's published script by the same group are taken, with a batch of 8, and 1e-4 on the mean absolute weight. One
epoch is 200 000 pictures.
"""

from __future__ import annotations

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe
from mattface.training.recipes.tiny_networks import shrink

EPOCH = 200_000
ADAMW = Optimiser("adamw", 1e-4, (0.0, 0.99), decay=5e-4, clip=1.0)
LOSS = {
    "identity": 1.0,
    "masked": 0.5,
    "cycle": 0.5,
    "perceptual": 0.5,
    "adversarial": 1.0,
    "clip_text": 1.0,
    "clip_identity": 1.0,
    "weights": 1e-4,
}
"""Eq. 10 with eq. 6 for its second term, and the l1 term beside it."""


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "facechanger",
        Loop(500 * EPOCH, 8, log_every=800, save_every=100_000, grid_every=100_000, score_every=200_000),
        {"swapper": ADAMW, "discriminator": ADAMW},
        method="facechanger",
        size=256,
        both_ways=True,
        loss=LOSS,
        discriminator=DiscriminatorConfig("patch", "log"),
        loss_networks=LossNetworks("arcface", "whole", "vgg16"),
        text="always",
        caption_words=69,
    )


def tiny() -> SwapRecipe:
    """32 px, see `mattface.training.recipes.tiny_networks`."""
    adamw = Optimiser("adamw", 1e-3, (0.0, 0.99), decay=5e-4, clip=1.0)
    return shrink(recipe(), (16, 12, 8), adamw, DiscriminatorConfig("patch", "log", width=8))
