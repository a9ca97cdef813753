"""mattface: the MAttFace paper (sections 3.4 and 4.3) on CelebAMask-HQ, prepared with `mattface data prepare`.

Open points. The paper gives no weights of its losses; these make each term of order one at the start. It does not say
what its discriminator is: StyleGAN2's, on whole results, with lazy R1. Its batch deviation spans the whole accumulated
batch. Encoder and generator start from the official pSp file and do not train, as there; heads, IDATT and the blend do.
"""

from __future__ import annotations

from dataclasses import replace

from mattface.training.config import DiscriminatorConfig, Loop, LossNetworks, Optimiser, SwapRecipe
from mattface.training.recipes.generator import default_gamma

ADAM = Optimiser("adam", 1e-4, (0.9, 0.999))
BATCH = 6


def recipe() -> SwapRecipe:
    """Adam 1e-4, 50 000 steps of 6 pairs, half of them of one person; eq. 12 to 17."""
    return SwapRecipe(
        "mattface",
        Loop(
            300_000,
            BATCH,
            accumulate=6,
            precision="bf16",
            average=0.999,
            log_every=300,
            save_every=6_000,
            grid_every=6_000,
            score_every=30_000,
        ),
        {"swapper": ADAM, "discriminator": ADAM},
        start="psp-ffhq",
        method="mattface",
        source="picture",
        network={"detail": "off"},
        size=1024,
        same=0.5,
        loss={"adversarial": 1.0, "same": 10.0, "perceptual": 1.0, "identity": 5.0, "shape": 1.0},
        discriminator=DiscriminatorConfig("global", "log", width=32, gamma=default_gamma(1024, BATCH)),
        loss_networks=LossNetworks("arcface", "own", "lpips"),
        frozen=("encoder", "generate"),
    )


def tiny() -> SwapRecipe:
    """64 px from scratch; the identity ResNet stands in for ArcFace and LPIPS, a toy for the 3D regressor."""
    network = {
        "resolution": 64,
        "encoder_size": 64,
        "stem": 8,
        "widths": (8, 16, 16, 16),
        "units": (1, 1, 1, 1),
        "style": 32,
        "head_width": 16,
        "noise": False,
        "channels": {4: 16, 8: 16, 16: 16, 32: 16, 64: 8},
        "detail": "off",
    }
    adam = Optimiser("adam", 1e-3)
    return replace(
        recipe(),
        loop=Loop(
            240, BATCH, accumulate=2, average=0.9, log_every=6, save_every=120, grid_every=120, score_every=120
        ),
        optimisers={"swapper": adam, "discriminator": adam},
        start=None,
        network=network,
        size=64,
        loss={"adversarial": 0.1, "same": 10.0, "perceptual": 1.0, "identity": 1.0, "shape": 1.0},
        discriminator=DiscriminatorConfig("global", "log", width=4, gamma=default_gamma(64, BATCH)),
        loss_networks=LossNetworks("resnet", "own", "resnet-maps", shape="toy"),
        frozen=(),
    )
