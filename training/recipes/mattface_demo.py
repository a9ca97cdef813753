"""mattface-demo: the small bundled checkpoint, taught by the studio's exact triplets and by mesh swaps."""

from __future__ import annotations

from dataclasses import dataclass, field

from mattface.methods.mattface import Config
from mattface.training.task import Loop


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on.

    Attributes:
        name: name of the checkpoint.
        config: network sizes.
        size: side of the training pictures up to which everything trains.
        pairs: mesh swaps to make of portraits, of which `same` is the share whose source is the target.
        draw_steps, draw_fine_steps: steps in which the generator learns to draw portraits, up to `size` and above.
        invert_steps: steps in which encoder and latent heads learn what codes people have.
        steps, fine_steps: steps of swapping, up to `size` and above.
        batch, rate, fine_rate: pairs per step (above `size`: one) and peak learning rates (AdamW, cosine, `warmup`
            steps); draw_rate: of the generator.
        decay: weight decay; average: decay of the exponential moving average that is kept.
        save_every, log_every: steps between saved states, and between lines of the metrics.
        loss: weight of every loss term; "identity" (of swaps) and "features" (of drawn people), which ask the identity
            network, are left out with 0.
        start: weights to start from, of the same sizes; a name, file or folder. None: from scratch.
        seed: of everything random.
        task: module of `mattface.training.tasks` that trains it.
    """

    name: str
    config: Config
    size: int = 128
    pairs: int = 400
    same: float = 0.1
    draw_steps: int = 5000
    draw_fine_steps: int = 200
    invert_steps: int = 450
    steps: int = 2800
    fine_steps: int = 30
    batch: int = 8
    rate: float = 1e-3
    fine_rate: float = 1e-3
    draw_rate: float = 2e-3
    warmup: int = 100
    decay: float = 1e-3
    average: float = 0.998
    save_every: int = 200
    log_every: int = 50
    loss: dict[str, float] = field(
        default_factory=lambda: {
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
    )
    start: str | None = None
    seed: int = 20261121
    task: str = "pairs"

    @property
    def judged(self) -> bool:
        """Whether its losses ask the identity network."""
        return bool(self.loss["identity"] or self.loss["features"])

    @property
    def loop(self) -> Loop:
        """Settings of the stage that learns to swap; the other stages change length and batch."""
        return Loop(
            self.steps * self.batch,
            self.batch,
            precision="bf16",
            average=self.average,
            log_every=self.log_every * self.batch,
            save_every=self.save_every * self.batch,
            seed=self.seed,
        )


def recipe() -> Recipe:
    """The configuration of the bundled checkpoint (1024 px; its card tells how it was run)."""
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
        places=True,
        shape=0.5,
    )
    return Recipe("mattface-demo", config)


def tiny() -> Recipe:
    """The same at a size that a processor trains in a minute."""
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
        places=True,
        shape=0.5,
    )
    return Recipe(
        "mattface-demo",
        config,
        size=32,
        pairs=24,
        draw_steps=8,
        draw_fine_steps=2,
        invert_steps=4,
        steps=40,
        fine_steps=4,
        batch=4,
        warmup=4,
        save_every=20,
        log_every=1,
        loss=recipe().loss | {"identity": 0.0, "features": 0.0},
    )
