"""magicmask: MagicMask (section 4.1, eq. 7 to 12): 224 px, weights 5, 2 and 1, AFSA, l1 on the weights, 500 epochs.

The reverse swap is trained in the same step (end of section 3.3).

Open points. The paper states neither optimiser, batch, nor the weight of its l1 term: Adam 1e-4, 8, and 1e-4 on the
mean absolute weight are taken. Eq. 10 is the loss that AFSA replaces. One epoch is 200 000 pictures.
"""

from __future__ import annotations

from dataclasses import replace

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe
from mattface.training.recipes.tiny_networks import shrink

EPOCH = 200_000
ADAM = Optimiser("adam", 1e-4)
LOSS = {"identity": 5.0, "masked": 2.0, "feature": 2.0, "self": 2.0, "adversarial": 1.0, "weights": 1e-4}


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "magicmask",
        Loop(500 * EPOCH, 8, log_every=800, save_every=100_000, grid_every=100_000, score_every=200_000),
        {"swapper": ADAM, "discriminator": ADAM},
        method="magicmask",
        conditioning="depth-landmarks",
        size=224,
        both_ways=True,
        loss=LOSS,
        discriminator=DiscriminatorConfig("afsa", "log", patch=64),
        loss_networks=LossNetworks("arcface", "whole"),
    )


def tiny() -> SwapRecipe:
    """32 px, see `mattface.training.recipes.tiny_networks`."""
    small = shrink(
        recipe(), (16, 12, 8), Optimiser("adam", 1e-3), DiscriminatorConfig("afsa", "log", width=8, patch=16)
    )
    return replace(small, network=small.network | {"stem": (4, 8, 8, 16), "layers": 1, "heads": 2})
