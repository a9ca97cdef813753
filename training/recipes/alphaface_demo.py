"""alphaface-demo: the small bundled network of AlphaFace's family, trained on triplets with ground truth.

Exact triplets of the studio (in the data folder as shards) and mesh swaps of the training portraits beside them are the
ground truth; the identity ResNet, whose vector is the network's code, says who the result is. No adversarial loss.

    mattface studio people --portraits DIR --out people.npz
    mattface studio shards --people people.npz --out DIR --count 2500
    mattface train alphaface-demo --data DIR --out runs/alphaface-demo
"""

from __future__ import annotations

from mattface.training.config import Loop, LossNetworks, Optimiser, SwapRecipe

OWN = {"fold": 4, "template": "ffhq", "code": 128, "identity": "resnet", "identity_crop": "own", "portrait": 24}
LOSS = {"supervised": 6.0, "matte": 0.5, "identity": 0.5, "same": 0.5}
BATCH = 4


def recipe() -> SwapRecipe:
    """256 px, 160 channels at 32 px: as long as the bundled network was trained, which is short; more images help."""
    adamw = Optimiser("adamw", 1e-3, (0.9, 0.99), decay=1e-3, clip=1.0, schedule="cosine", warmup=100 * BATCH)
    return SwapRecipe(
        "alphaface-demo",
        Loop(
            14_400,
            BATCH,
            precision="bf16",
            average=0.998,
            log_every=50 * BATCH,
            save_every=500 * BATCH,
            grid_every=1_000 * BATCH,
        ),
        {"swapper": adamw},
        method="alphaface-small",
        network=OWN | {"widths": (64, 160), "blocks": 4, "decoder": (96,)},
        size=256,
        same=0.1,
        mesh_swaps=3_000,
        loss=LOSS,
        loss_networks=LossNetworks("resnet", "own"),
    )


def tiny() -> SwapRecipe:
    """64 px with narrow layers; reads shards only."""
    return SwapRecipe(
        "alphaface-demo",
        Loop(160, 4, log_every=4, save_every=80, grid_every=80),
        {"swapper": Optimiser("adamw", 2e-3, (0.9, 0.99), clip=1.0)},
        method="alphaface-small",
        network=OWN | {"size": 64, "widths": (16, 24), "blocks": 2, "decoder": (16,)},
        size=64,
        loss=LOSS,
        loss_networks=LossNetworks("resnet", "own"),
    )
