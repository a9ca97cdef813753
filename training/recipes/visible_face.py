"""visible-face: the small bundled network that tells a face from what lies before it, taught by the studio's triplets.

mattface studio people --portraits DIR --out people.npz
mattface studio shards --people people.npz --out DIR --count 5000 --occluded 0.8 --wide 0.45
mattface train visible-face --data DIR --out runs/visible-face

The bundled file went on from such a run, made before estimated covers weighed little, with --set start=FILE
--set loop.images=32000 --set optimiser.rate=0.001.
"""

from __future__ import annotations

from dataclasses import dataclass

from mattface.training.task import Loop, Optimiser


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on.

    Attributes:
        name: of the recipe, its run and its checkpoint.
        loop: settings of the loop.
        optimiser: how the network is optimised.
        start: weights to start from, of the same widths; a name or a file. None: from scratch.
        widths: channels of `mattface.parse.visible.VisibleFace`.
        task: module of `mattface.training.tasks` that trains it.
    """

    name: str
    loop: Loop
    optimiser: Optimiser
    widths: tuple[int, int, int, int] = (24, 48, 64, 96)
    start: str | None = None
    task: str = "visible"


def recipe() -> Recipe:
    """The configuration of the bundled network."""
    batch = 16
    loop = Loop(
        144_000,
        batch,
        precision="bf16",
        average=0.998,
        log_every=50 * batch,
        save_every=500 * batch,
        grid_every=1000 * batch,
    )
    return Recipe("visible-face", loop, Optimiser("adamw", 2e-3, decay=1e-3, clip=1.0, schedule="cosine", warmup=1600))


def tiny() -> Recipe:
    """A narrow network for a minute."""
    loop = Loop(240, 4, average=0.9, log_every=4, save_every=120, grid_every=240)
    return Recipe("visible-face", loop, Optimiser("adamw", 3e-3, clip=1.0), widths=(8, 8, 8, 8))
