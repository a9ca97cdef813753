"""generator: StyleGAN2 (Karras et al. 2020, configuration F at 1024 px) with augmentation for few pictures."""

from __future__ import annotations

import math

from mattface.training.config import GeneratorRecipe, Loop, Optimiser

ADAM = Optimiser("adam", 2e-3, (0.0, 0.99), 1e-8)


def default_gamma(size: int, batch: int) -> float:
    """R1's weight that suits a resolution: 0.0002 size^2 / batch (Karras et al. 2020, "limited data", appendix C)."""
    return 0.0002 * size**2 / batch


def half_life(images: int, batch: int) -> float:
    """Decay per step of an average whose weights halve in so many images."""
    return math.pow(0.5, batch / images)


def recipe() -> GeneratorRecipe:
    """FFHQ's settings: batch 32, gamma 10, 25 million images, averages that halve in 10 000."""
    return GeneratorRecipe(
        "generator",
        Loop(
            25_000_000,
            32,
            accumulate=4,
            precision="bf16",
            average=half_life(10_000, 32),
            log_every=4_000,
            save_every=200_000,
            grid_every=200_000,
        ),
        {"generator": ADAM, "discriminator": ADAM},
    )


def tiny() -> GeneratorRecipe:
    """32 px with narrow layers."""
    return GeneratorRecipe(
        "generator",
        Loop(480, 8, average=half_life(64, 8), log_every=8, save_every=240, grid_every=240),
        {"generator": ADAM, "discriminator": ADAM},
        size=32,
        style=32,
        layers=2,
        channel_base=512,
        channel_max=32,
        gamma=default_gamma(32, 8),
        span=2_000,
    )
