"""visible-face: the small bundled network that separates a face from what lies in front of it, trained on triplets.

mattface studio people --portraits DIR --out people.npz
mattface studio shards --people people.npz --out DIR --count 5000 --occluded 0.8 --wide 0.45
mattface train visible-face --data DIR --out runs/visible-face

The bundled file went on from such a run, made before estimated covers weighed little, with --set start=FILE
--set loop.images=32000 --set optimisers.network.lr=0.001.
"""

from __future__ import annotations

from mattface.training.config import Loop, Optimiser, VisibilityRecipe

BATCH = 16


def recipe() -> VisibilityRecipe:
    """The configuration of the bundled network."""
    loop = Loop(
        144_000,
        BATCH,
        precision="bf16",
        average=0.998,
        log_every=50 * BATCH,
        save_every=500 * BATCH,
        grid_every=1000 * BATCH,
    )
    adamw = Optimiser("adamw", 2e-3, decay=1e-3, clip=1.0, schedule="cosine", warmup=1600)
    return VisibilityRecipe("visible-face", loop, {"network": adamw})


def tiny() -> VisibilityRecipe:
    """A narrow network for a minute."""
    loop = Loop(240, 4, average=0.9, log_every=4, save_every=120, grid_every=240)
    return VisibilityRecipe("visible-face", loop, {"network": Optimiser("adamw", 3e-3, clip=1.0)}, widths=(8, 8, 8, 8))
