"""magicmask: MagicMask (section 4.1, eq. 7 to 12): 224 px, weights 5, 2 and 1, AFSA, l1 on the weights, 500 epochs.

Open points. The paper states neither optimiser, batch, nor the weight of its l1 term: Adam 1e-4, 8, and 1e-4 on the
mean absolute weight are taken. Eq. 10 is the loss that AFSA replaces. One epoch is 200 000 pictures.
"""

from __future__ import annotations

from mattface.training.judges import Judges
from mattface.training.recipes.alphaface import SIZES
from mattface.training.swapping import Critic, SwapRecipe
from mattface.training.task import Loop, Optimiser

EPOCH = 200_000
ADAM = Optimiser("adam", 1e-4)
LOSS = {"identity": 5.0, "masked": 2.0, "feature": 2.0, "self": 2.0, "adversarial": 1.0, "weights": 1e-4}


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "magicmask",
        Loop(500 * EPOCH, 8, log_every=800, save_every=100_000, grid_every=100_000, score_every=200_000),
        {"swapper": ADAM, "critic": ADAM},
        network="mattface.realtime.methods.magicmask",
        size=224,
        loss=LOSS,
        critic=Critic("afsa", "log", patch=64),
        judges=Judges("arcface", "whole"),
    )


def tiny() -> SwapRecipe:
    """32 px with the identity ResNet in ArcFace's place."""
    adam = Optimiser("adam", 1e-3)
    return SwapRecipe(
        "magicmask",
        Loop(160, 4, log_every=4, save_every=80, grid_every=80),
        {"swapper": adam, "critic": adam},
        network="mattface.realtime.methods.magicmask",
        sizes=SIZES | {"decoder": (16, 12, 8), "stem": (4, 8, 8, 16), "layers": 1, "heads": 2},
        size=32,
        loss=LOSS,
        critic=Critic("afsa", "log", width=8, patch=16),
        judges=Judges("resnet", "whole"),
    )
