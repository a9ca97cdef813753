"""alphaface: AlphaFace as its published script trains it.

AdamW (0, 0.99) 1e-4 times 0.97 every 20 000 steps, batch 2, gradients clipped to 1, least squares on a 32x32 map of
patches from step 200 000, every loss the sum of both directions, text loss as a margin. One thing is not copied: the
script feeds CLIP values 255 times too large. Its length (100 000 epochs of a small set) is cut to 500 000 steps.
"""

from __future__ import annotations

from dataclasses import replace

from mattface.training.judges import Judges
from mattface.training.swapping import Critic, SwapRecipe
from mattface.training.task import Loop, Optimiser

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
SIZES = {"size": 32, "widths": (8, 12, 16, 24), "blocks": 2, "code": 128}
"""Of the tiny networks of this family; 128 is the length of the identity ResNet's code."""


def recipe() -> SwapRecipe:
    """See the module."""
    return SwapRecipe(
        "alphaface",
        Loop(500_000 * BATCH, BATCH, log_every=200, save_every=25_000 * BATCH, grid_every=5_000, score_every=20_000),
        {"swapper": ADAMW, "critic": ADAMW},
        network="mattface.realtime.methods.alphaface",
        size=256,
        both_ways=True,
        loss=LOSS,
        critic=Critic("patch", "least-squares", begins=200_000 * BATCH),
        judges=Judges("arcface", "whole", "vgg16"),
        power=1,
        text="margin",
    )


def tiny() -> SwapRecipe:
    """32 px; the identity ResNet stands in for ArcFace and VGG16; CLIP's losses are left out."""
    critic = Critic("patch", "least-squares", width=8, begins=80)
    return shrunk(recipe(), (16, 12, 8, 8, 8), Optimiser("adamw", 1e-3, (0.0, 0.99), decay=5e-4, clip=1.0), critic)


def shrunk(whole: SwapRecipe, decoder: tuple[int, ...], optimiser: Optimiser, critic: Critic) -> SwapRecipe:
    """A recipe of this family at 32 px, without CLIP, judged by the identity ResNet; the rest as it is.

    Args:
        whole: the recipe.
        decoder: channels of the tiny decoder.
        optimiser: of both networks.
        critic: the tiny critic.
    """
    return replace(
        whole,
        loop=Loop(160, 4, log_every=4, save_every=80, grid_every=80),
        optimisers={"swapper": optimiser, "critic": optimiser},
        sizes=SIZES | {"decoder": decoder},
        size=32,
        loss={k: v for k, v in whole.loss.items() if not k.startswith("clip")},
        critic=critic,
        judges=Judges("resnet", "whole", "resnet-maps"),
    )
