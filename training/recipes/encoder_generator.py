"""encoder-generator: a small encoder and generator trained together, where the official pSp file is not at hand.

The sizes are those of mattface-demo, whose network can start from the result.
"""

from __future__ import annotations

from mattface.methods.mattface import Config
from mattface.training.config import JointRecipe, Loop, Optimiser
from mattface.training.recipes import mattface_demo
from mattface.training.recipes.generator import default_gamma

ADAM = Optimiser("adam", 2e-3, (0.0, 0.99), clip=10.0)


def recipe() -> JointRecipe:
    """1024 px, batch 8, 400 000 images."""
    return JointRecipe(
        "encoder-generator",
        Loop(
            400_000,
            8,
            accumulate=2,
            precision="bf16",
            average=0.999,
            log_every=400,
            save_every=8_000,
            grid_every=8_000,
            score_every=8_000,
        ),
        {"pair": ADAM, "discriminator": ADAM},
        config=mattface_demo.recipe().config,
        gamma=default_gamma(1024, 8),
    )


def tiny() -> JointRecipe:
    """32 px with narrow layers."""
    config = Config(
        resolution=32,
        encoder_size=32,
        stem=8,
        widths=(8, 16, 16, 16),
        units=(1, 1, 1, 1),
        style=32,
        head_width=16,
        noise=False,
        channels={4: 16, 8: 16, 16: 16, 32: 16},
        detail="off",
    )
    return JointRecipe(
        "encoder-generator",
        Loop(320, 8, average=0.9, log_every=8, save_every=160, grid_every=160, score_every=160),
        {"pair": ADAM, "discriminator": ADAM},
        config=config,
        layers=2,
        loss={"photo": 10.0, "perceptual": 1.0, "identity": 0.5, "adversarial": 0.1, "sampled": 0.1},
        width=2,
        gamma=default_gamma(32, 8),
    )
