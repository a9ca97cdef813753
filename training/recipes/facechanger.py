"""facechanger: FaceChanger (section IV-A): weights 1, 0.5, 1, 1, 1, both directions in every step, 500 epochs.

Open points. The paper states neither optimiser nor batch: those of AlphaFace's published script by the same group are
taken, with a batch of 8. One epoch is 200 000 pictures.
"""

from __future__ import annotations

from mattface.training.judges import Judges
from mattface.training.recipes.alphaface import shrunk
from mattface.training.swapping import Critic, SwapRecipe
from mattface.training.task import Loop, Optimiser

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
}
"""Eq. 10 with eq. 6 for its second term."""


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "facechanger",
        Loop(500 * EPOCH, 8, log_every=800, save_every=100_000, grid_every=100_000, score_every=200_000),
        {"swapper": ADAMW, "critic": ADAMW},
        network="mattface.realtime.methods.facechanger",
        size=256,
        both_ways=True,
        loss=LOSS,
        critic=Critic("patch", "log"),
        judges=Judges("arcface", "whole", "vgg16"),
        text="always",
    )


def tiny() -> SwapRecipe:
    """32 px; the identity ResNet stands in for ArcFace and VGG16; CLIP's losses are left out."""
    adamw = Optimiser("adamw", 1e-3, (0.0, 0.99), decay=5e-4, clip=1.0)
    return shrunk(recipe(), (16, 12, 8), adamw, Critic("patch", "log", width=8))
