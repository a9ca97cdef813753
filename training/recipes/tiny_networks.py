"""What the tiny versions of the real-time recipes share: sizes, and toy networks in place of the loss networks."""

from __future__ import annotations

from dataclasses import replace

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe

SIZES = {"size": 32, "widths": (8, 12, 16, 24), "blocks": 2, "code": 128}
"""Of the tiny networks; 128 is the length of the identity ResNet's code."""
LOOP = Loop(160, 4, log_every=4, save_every=80, grid_every=80)
TOYS = LossNetworks("resnet", "whole", "resnet-maps", clip="toy", shape="toy")
"""The identity ResNet stands in for ArcFace and VGG16; CLIP is a toy."""


def shrink(
    recipe: SwapRecipe, decoder: tuple[int, ...], optimiser: Optimiser, discriminator: DiscriminatorConfig
) -> SwapRecipe:
    """A recipe at 32 px with every loss it has; the rest as it is.

    Args:
        recipe: the recipe.
        decoder: channels of the tiny decoder.
        optimiser: of both networks.
        discriminator: the tiny one.
    """
    return replace(
        recipe,
        loop=LOOP,
        optimisers={"swapper": optimiser, "discriminator": optimiser},
        network=SIZES | {"decoder": decoder},
        size=32,
        discriminator=discriminator,
        loss_networks=TOYS,
    )
