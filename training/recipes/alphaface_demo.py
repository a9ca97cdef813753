"""alphaface-demo: the small bundled network of AlphaFace's family, taught by answered swaps.

Exact triplets of the studio (in the data folder as shards) and mesh swaps of the training portraits beside them are the
answers; the identity ResNet, whose vector is the network's code, says who the result is. No adversarial loss.
"""

from __future__ import annotations

from mattface.training.judges import Judges
from mattface.training.swapping import SwapRecipe
from mattface.training.task import Loop, Optimiser

NETWORK = "mattface.realtime.methods.alphaface"
OWN = {"fold": 4, "template": "ffhq", "code": 128, "identity": "resnet", "identity_crop": "own"}
LOSS = {"supervised": 4.0, "matte": 0.25, "identity": 6.0, "same": 0.5}
BATCH = 8


def recipe() -> SwapRecipe:
    """256 px, 160 channels at 32 px."""
    return SwapRecipe(
        "alphaface-demo",
        Loop(
            6_000 * BATCH,
            BATCH,
            precision="bf16",
            average=0.995,
            log_every=25 * BATCH,
            save_every=250 * BATCH,
            grid_every=500 * BATCH,
        ),
        {"swapper": Optimiser("adamw", 1.5e-3, (0.9, 0.99), decay=1e-3, clip=1.0, schedule="cosine", warmup=100 * BATCH)},
        network=NETWORK,
        sizes=OWN | {"widths": (64, 160), "blocks": 4, "decoder": (96,)},
        size=256,
        same=0.1,
        answers=3_000,
        loss=LOSS,
        judges=Judges("resnet", "own"),
    )


def tiny() -> SwapRecipe:
    """64 px with narrow layers; reads shards only."""
    return SwapRecipe(
        "alphaface-demo",
        Loop(160, 4, log_every=4, save_every=80, grid_every=80),
        {"swapper": Optimiser("adamw", 2e-3, (0.9, 0.99), clip=1.0)},
        network=NETWORK,
        sizes=OWN | {"size": 64, "widths": (16, 24), "blocks": 2, "decoder": (16,)},
        size=64,
        loss=LOSS,
        judges=Judges("resnet", "own"),
    )
