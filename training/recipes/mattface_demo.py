"""mattface-demo: the small bundled checkpoint, trained on the studio's exact triplets and on mesh swaps."""

from __future__ import annotations

from dataclasses import replace

from mattface.methods.mattface import Config
from mattface.training.config import Loop, Optimiser, StageConfig, TripletRecipe

BATCH = 8
LOSS = {
    "flow": 6.0,
    "attention": 3.0,
    "warped": 2.0,
    "swap": 1.0,
    "decoded": 1.0,
    "side": 0.25,
    "matte": 1.0,
    "masks": 0.1,
    "smooth": 2.0,
    "confidence": 0.5,
    "identity": 0.5,
    "drawn": 1.0,
    "features": 0.15,
}


def optimisers(warmup: int) -> dict[str, Optimiser]:
    """Of every stage; `warmup` in images."""
    adam = Optimiser("adam", 2e-3, (0.9, 0.99), schedule="cosine")
    adamw = Optimiser("adamw", 1e-3, decay=1e-3, clip=1.0, schedule="cosine")
    warm = replace(adamw, warmup=warmup)
    return {"generator": adam, "generator-fine": adam, "invert": warm, "swap": warm, "swap-fine": adamw}


def recipe() -> TripletRecipe:
    """The configuration of the bundled checkpoint (1024 px; its card says how it was run)."""
    channels = {4: 96, 8: 96, 16: 96, 32: 96, 64: 64, 128: 32, 256: 16, 512: 8, 1024: 8}
    config = Config(
        encoder_size=128,
        stem=16,
        widths=(24, 64, 96, 128),
        units=(1, 2, 2, 1),
        style=128,
        head_width=48,
        noise=False,
        channels=channels,
        detail_widths=(64, 48, 24),
        coordinates=True,
        shape=0.5,
    )
    return TripletRecipe(
        "mattface-demo",
        Loop(2800 * BATCH, BATCH, precision="bf16", average=0.998, log_every=50 * BATCH, save_every=200 * BATCH),
        optimisers(100 * BATCH),
        stages={
            "generator": StageConfig(5000, BATCH),
            "generator-fine": StageConfig(200, 1),
            "invert": StageConfig(450, BATCH),
            "swap": StageConfig(2800, BATCH),
            "swap-fine": StageConfig(30, 1),
        },
        config=config,
        loss=LOSS,
    )


def tiny() -> TripletRecipe:
    """The same at a size that a processor trains in a minute; without the identity network."""
    config = Config(
        resolution=64,
        encoder_size=64,
        stem=8,
        widths=(8, 16, 16, 16),
        units=(1, 1, 1, 1),
        style=32,
        head_width=16,
        noise=False,
        channels={4: 16, 8: 16, 16: 16, 32: 16, 64: 8},
        detail_widths=(16, 16, 8),
        coordinates=True,
        shape=0.5,
    )
    return TripletRecipe(
        "mattface-demo",
        Loop(40 * 4, 4, precision="bf16", average=0.998, log_every=4, save_every=20 * 4),
        optimisers(16),
        stages={
            "generator": StageConfig(8, 4),
            "generator-fine": StageConfig(2, 1),
            "invert": StageConfig(4, 4),
            "swap": StageConfig(40, 4),
            "swap-fine": StageConfig(4, 1),
        },
        config=config,
        size=32,
        mesh_swaps=24,
        loss=LOSS | {"identity": 0.0, "features": 0.0},
    )
