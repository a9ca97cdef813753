"""mattface: the MAttFace paper (sections 3.4 and 4.3) on CelebAMask-HQ, prepared with `mattface data prepare`.

Open points. The paper gives no weights of its losses; these make each term of order one at the start. It does not say
what its discriminator is: StyleGAN2's, on whole results. Encoder and generator start from the official pSp file and do
not train, as there; heads, IDATT and the blend do.
"""

from __future__ import annotations

from mattface.training.judges import Judges
from mattface.training.swapping import Critic, SwapRecipe
from mattface.training.task import Loop, Optimiser

ADAM = Optimiser("adam", 1e-4, (0.9, 0.999))


def recipe() -> SwapRecipe:
    """Adam 1e-4, 50 000 steps of 6 pairs, half of them of one person; eq. 12 to 17."""
    return SwapRecipe(
        "mattface",
        Loop(
            300_000,
            6,
            accumulate=6,
            precision="bf16",
            average=0.999,
            log_every=300,
            save_every=6_000,
            grid_every=6_000,
            score_every=30_000,
        ),
        {"swapper": ADAM, "critic": ADAM},
        sizes={"detail": "off"},
        size=1024,
        same=0.5,
        loss={"adversarial": 1.0, "same": 10.0, "perceptual": 1.0, "identity": 5.0, "shape": 1.0},
        critic=Critic("global", "log", width=32),
        judges=Judges("arcface", "own", "lpips"),
        frozen=("encoder", "generate"),
        start="psp-ffhq",
    )


def tiny() -> SwapRecipe:
    """64 px from scratch; the identity ResNet stands in for ArcFace and for LPIPS; the 3D loss is left out."""
    sizes = {
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
    return SwapRecipe(
        "mattface",
        Loop(240, 6, accumulate=2, average=0.9, log_every=6, save_every=120, grid_every=120, score_every=120),
        {"swapper": adam, "critic": adam},
        sizes=sizes,
        size=64,
        same=0.5,
        loss={"adversarial": 0.1, "same": 10.0, "perceptual": 1.0, "identity": 1.0},
        critic=Critic("global", "log", width=4),
        judges=Judges("resnet", "own", "resnet-maps"),
    )
