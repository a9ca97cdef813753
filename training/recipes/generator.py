"""generator: StyleGAN2 (Karras et al. 2020, configuration F at 1024 px) with augmentation for few pictures."""

from __future__ import annotations

from mattface.training.task import Loop, Optimiser
from mattface.training.tasks.generator import GeneratorRecipe, default_gamma, half_life

ADAM = Optimiser("adam", 2e-3, (0.0, 0.99), 1e-8)


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
        {"generator": ADAM, "critic": ADAM},
    )


def tiny() -> GeneratorRecipe:
    """32 px with narrow layers."""
    return GeneratorRecipe(
        "generator",
        Loop(480, 8, average=half_life(64, 8), log_every=8, save_every=240, grid_every=240),
        {"generator": ADAM, "critic": ADAM},
        size=32,
        style=32,
        layers=2,
        channel_base=512,
        channel_max=32,
        gamma=default_gamma(32, 8),
        span=2_000,
    )
