"""Configurations: one family of frozen dataclasses that recipes fill in and tasks read.

Progress is counted in images: one sample seen by the whole step, however many processes and micro-batches share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.methods.mattface import Config as MattfaceConfig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("constant", "cosine", "step")
DISCRIMINATORS = ("global", "patch", "afsa")
CONDITIONINGS = ("none", "depth-landmarks")
SOURCES = ("embedding", "picture")
TEXTS = ("tau", "always", "margin")
GROUND_TRUTH_LOSSES = frozenset({"supervised", "flow", "matte"})
"""Losses of a swap training that compare with the ground truth."""


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Rejects a value that is not one of the choices.

    Raises:
        UsageError: naming them.
    """
    if value not in choices:
        raise UsageError(f"{what} must be one of {', '.join(choices)}; got {value!r}.")


@dataclass(frozen=True)
class Optimiser:
    """How one network is optimised.

    Attributes:
        kind: "adam" or "adamw".
        lr: peak learning rate.
        betas: of the moments.
        epsilon: of the denominator.
        decay: weight decay (decoupled only with "adamw").
        clip: largest norm of the gradient; None for no limit.
        schedule: "constant", "cosine" (to zero at the end), or "step" (times `factor` every `every` images).
        warmup: images of linear growth from zero.
    """

    kind: str = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    decay: float = 0.0
    clip: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    factor: float = 1.0
    every: int = 0

    def __post_init__(self) -> None:
        check_choice("optimiser kind", self.kind, tuple(OPTIMISERS))
        check_choice("optimiser schedule", self.schedule, SCHEDULES)
        if self.schedule == "step" and self.every < 1:
            raise UsageError(f'schedule "step" needs every > 0 images; got {self.every}.')

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser."""
        made = OPTIMISERS[self.kind]
        return made(parameters, self.lr, betas=self.betas, eps=self.epsilon, weight_decay=self.decay)

    def lr_at(self, images: int, batch: int, total: int) -> float:
        """Learning rate of the step that begins after `images` of `total` images."""
        if images < self.warmup:
            return self.lr * min(1.0, (images + batch) / self.warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (images - self.warmup) / max(total - self.warmup, 1)))
        return self.lr * self.factor ** (images // self.every) if self.schedule == "step" else self.lr


@dataclass(frozen=True)
class Loop:
    """Settings of the loop. All intervals are in images and are rounded up to whole steps; 0 means never.

    Attributes:
        images: length of the training.
        batch: images per step of all processes and micro-batches together.
        accumulate: micro-batches per step and process.
        precision: "fp32", "bf16" or "fp16" (CUDA only), by autocast.
        average: decay per step of the exponential moving average of the weights; 0 keeps none.
        log_every, save_every, grid_every, score_every: intervals.
        keep: checkpoints kept.
        seed: of everything random.
    """

    images: int
    batch: int
    accumulate: int = 1
    precision: str = "fp32"
    average: float = 0.0
    log_every: int = 1000
    save_every: int = 10000
    grid_every: int = 0
    score_every: int = 0
    keep: int = 2
    seed: int = 20261121

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, tuple(PRECISIONS))
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UsageError(
                f"batch must be a multiple of accumulate, both at least 1; got {self.batch} and {self.accumulate}."
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return -(-self.images // self.batch)

    def due(self, interval: int, step: int) -> bool:
        """Whether something that happens every `interval` images is due after `step` steps."""
        return interval > 0 and (step == self.steps or step % max(1, -(-interval // self.batch)) == 0)


@dataclass(frozen=True)
class LossNetworks:
    """Names of the networks that losses use and that never train.

    Attributes:
        identity: embedder ("arcface", "resnet"), gives codes and the identity loss.
        framing: "whole" gives it the whole crop, resized; "own" its own framing by landmarks.
        perceptual: "vgg16" or "lpips" (over VGG16), or "resnet-maps" (features of the identity ResNet: a
            replacement). "vgg16:FILE" and "lpips:FILE" take another VGG16 of torchvision's names.
        clip: "clip": ViT-B/32 by open_clip; "toy": a small seeded network that knows nothing, for tests.
        shape: "d3dfr": the 3D face regressor, see `mattface.training.losses.networks.features.FaceShape`; or "toy".
    """

    identity: str = "arcface"
    framing: str = "whole"
    perceptual: str = "vgg16"
    clip: str = "clip"
    shape: str = "d3dfr"

    def __post_init__(self) -> None:
        check_choice("loss_networks.framing", self.framing, ("whole", "own"))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator of a swap training.

    Attributes:
        kind: "global" (StyleGAN2's), "patch" or "afsa" (see `mattface.training.models.discriminators`).
        form: of `mattface.training.losses.FORMS`.
        width: channels.
        patch: size of AFSA's patches.
        begins: images after which it takes part.
        gamma: weight of R1, of which half multiplies E |grad D|^2; 0 leaves it out.
        r1_every: steps between lazy R1 penalties.
    """

    kind: str = "patch"
    form: str = "log"
    width: int = 64
    patch: int = 64
    begins: int = 0
    gamma: float = 0.0
    r1_every: int = 16

    def __post_init__(self) -> None:
        check_choice("discriminator.kind", self.kind, DISCRIMINATORS)


@dataclass(frozen=True)
class Recipe:
    """One complete configuration; every task's own class adds to this.

    Attributes:
        name: of the recipe, its run and its checkpoint.
        loop: settings of the loop.
        optimisers: network (or stage, where a recipe has several) -> how it is optimised.
        task: module of `mattface.training.tasks` that trains it.
        start: weights to start from: a name, a file or a folder; None starts from scratch.
    """

    name: str
    loop: Loop
    optimisers: dict[str, Optimiser] = field(default_factory=dict)
    task: str = ""
    start: str | None = None


@dataclass(frozen=True)
class SwapRecipe(Recipe):
    """Configuration of a swap training.

    Attributes:
        method: name in `mattface.methods.METHODS`; its module has `Config` and `build_network`.
        network: fields of that Config that differ from the defaults.
        source: what the network takes of the source: an identity "embedding", or the "picture".
        conditioning: maps that it takes beside the target: "none" or "depth-landmarks".
        size: size of the crops.
        same: ratio of pairs of one person.
        both_ways: every pair is swapped both ways; losses are the sum of both.
        loss: weight of every loss; those with weight 0 are not computed. Names: same, identity, shape, masked, cycle,
            self, feature, perceptual, clip_text, clip_identity, adversarial, weights; and against ground truth
            supervised, flow (networks that give one) and matte (networks that predict one). With one of these the
            data folder must hold shards of triplets, or `mesh_swaps` must say how many to make.
        mesh_swaps: triplets that the `mesh` method makes of the portraits in the data folder, kept beside the run.
        discriminator: None without "adversarial".
        loss_networks: networks that losses use.
        power: exponent of perceptual and self reconstruction (1 or 2).
        text: "tau" (AlphaFace eq. 7), "always" (FaceChanger eq. 8) or "margin" (AlphaFace's script).
        caption_words: captions with more words take no part in the loss on text; None accepts any.
        frozen: parts of the network that do not train.
    """

    task: str = "swap"
    method: str = "mattface"
    network: dict[str, Any] = field(default_factory=dict)
    source: str = "embedding"
    conditioning: str = "none"
    size: int = 256
    same: float = 0.0
    both_ways: bool = False
    mesh_swaps: int = 0
    loss: dict[str, float] = field(default_factory=dict)
    discriminator: DiscriminatorConfig | None = None
    loss_networks: LossNetworks = field(default_factory=LossNetworks)
    power: int = 2
    text: str = "tau"
    caption_words: int | None = None
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("source", self.source, SOURCES)
        check_choice("conditioning", self.conditioning, CONDITIONINGS)
        check_choice("text", self.text, TEXTS)

    def weights(self) -> dict[str, float]:
        """The losses that count."""
        return {name: weight for name, weight in self.loss.items() if weight}


@dataclass(frozen=True)
class GeneratorRecipe(Recipe):
    """Configuration of a generator's training.

    Attributes:
        size: size of the pictures.
        style: size of z and w.
        layers: of the mapping.
        channel_base, channel_max: see `mattface.generate.synthesis.SynthesisNetwork`.
        gamma: weight of R1; half of it multiplies E |grad D|^2.
        r1_every, path_every: steps between the lazy penalties.
        path_weight, path_ratio: weight of the path length penalty; part of the batch it is computed on.
        augment: target of the sign of overfitting; 0 leaves augmentation out.
        span: images in which the probability of augmentation can go from 0 to 1.
    """

    task: str = "generator"
    size: int = 1024
    style: int = 512
    layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    gamma: float = 10.0
    r1_every: int = 16
    path_every: int = 4
    path_weight: float = 2.0
    path_ratio: float = 0.5
    augment: float = 0.6
    span: int = 500_000


@dataclass(frozen=True)
class JointRecipe(Recipe):
    """Configuration of a joint pre-training of encoder and generator.

    Attributes:
        config: sizes of the network.
        layers: of the mapping.
        loss: weight of "photo" (pyramid L1), "perceptual", "identity" (of encoded and decoded pictures), "adversarial"
            (of these) and "sampled" (of random styles); those with weight 0 are not computed.
        width: of the discriminator.
        gamma, r1_every: see `GeneratorRecipe`.
        loss_networks: networks that losses use.
    """

    task: str = "joint"
    config: MattfaceConfig = field(default_factory=MattfaceConfig)
    layers: int = 4
    loss: dict[str, float] = field(
        default_factory=lambda: {"photo": 10.0, "perceptual": 1.0, "identity": 0.5, "adversarial": 1.0, "sampled": 1.0}
    )
    width: int = 8
    gamma: float = 1.0
    r1_every: int = 16
    loss_networks: LossNetworks = field(default_factory=lambda: LossNetworks("resnet", perceptual="resnet-maps"))


@dataclass(frozen=True)
class StageConfig:
    """Length and batch of one stage of a recipe.

    Attributes:
        steps: optimiser steps; 0 leaves the stage out.
        batch: images per step.
    """

    steps: int
    batch: int


@dataclass(frozen=True)
class TripletRecipe(Recipe):
    """Configuration of the mattface network trained on triplets, in stages (see `mattface.training.tasks.triplets`).

    Attributes:
        loop: precision, average, seed and intervals; every stage has its own length and batch.
        stages: "generator", "generator-fine", "invert", "swap", "swap-fine" -> length and batch. The fine ones train
            what lies above `size`.
        optimisers: the same names -> how.
        config: sizes of the network.
        size: size of the training pictures up to which everything trains.
        mesh_swaps: triplets that the `mesh` method makes of portraits.
        same: ratio of those whose source is the target.
        loss: weight of every loss term; "identity" (of swaps) and "features" (of drawn people), which use the identity
            network, are left out with 0.
    """

    task: str = "triplets"
    stages: dict[str, StageConfig] = field(default_factory=dict)
    config: MattfaceConfig = field(default_factory=MattfaceConfig)
    size: int = 128
    mesh_swaps: int = 400
    same: float = 0.1
    loss: dict[str, float] = field(default_factory=dict)

    @property
    def uses_identity(self) -> bool:
        """Whether its losses use the identity network."""
        return bool(self.loss["identity"] or self.loss["features"])

    def stage_loop(self, name: str) -> Loop:
        """Settings of a stage's loop. Intervals stay the same in steps, whatever the stage's batch."""
        stage, loop = self.stages[name], self.loop
        average = loop.average if stage.steps > 1 / (1 - loop.average) else 0.0  # else mostly its random start
        log, save = (-(-n // loop.batch) * stage.batch for n in (loop.log_every, loop.save_every))
        return replace(
            loop, images=stage.steps * stage.batch, batch=stage.batch, average=average, log_every=log, save_every=save
        )


@dataclass(frozen=True)
class VisibilityRecipe(Recipe):
    """Configuration of the network that separates a face from what lies in front of it.

    Attributes:
        widths: channels of `mattface.parse.visible.VisibleFace`.
    """

    task: str = "visible"
    widths: tuple[int, int, int, int] = (24, 48, 64, 96)


@dataclass(frozen=True)
class Data:
    """What a recipe is trained on.

    Attributes:
        root: folder of the data.
        layout: see `mattface.training.data.catalogue`.
        held_out: one person in so many is left out of the training; 0 leaves nobody out.
        workers: processes that prepare batches.
        scoring: embedder that scores held-out people ("resnet", "arcface", FILE.onnx); None scores nobody.
        out: folder of the run, where prepared data may be kept.
    """

    root: Path
    layout: str = "auto"
    held_out: int = 4
    workers: int = 0
    scoring: str | None = None
    out: Path = Path("run")
