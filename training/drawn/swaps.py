"""The exact ground truth of a swap in W+, and the transfer and heads that learn it.

A person whose code is known, moved along measured directions until pose and expression are another's, is that person in
the other's place: no proxy of a swapped picture is needed, and any two drawn people are a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from mattface.code_heads import CodeHeads, flatten_features
from mattface.edit import Directions
from mattface.mesh.attributes import NAMES
from mattface.training.drawn.heads import fit_heads
from mattface.training.drawn.store import Store
from mattface.transfer.recognition import RecognitionTransfer
from mattface.vocabulary import WPlus

LIGHT_FROM = 10
"""First style that draws light, complexion and background."""
LIGHT = 0.6
"""Share of the target's in those."""
FARTHEST = 2.5
"""Largest move, in standard deviations of an attribute."""
SAME = 0.1
"""Share of pairs of a picture with itself."""
HEADS_RANK = 256
CHUNK = 250
"""Pairs whose maps are held at once."""


@dataclass(frozen=True)
class KnownPeople:
    """Codes, attributes and features of a store.

    Attributes:
        store: see there.
        codes: (N, 18, 512) float32.
        attributes: (N, A) float32.
        std: (A,) of the attributes.
        usable: (M,) numbers of the people whose face was found.
    """

    store: Store
    codes: torch.Tensor
    attributes: torch.Tensor
    std: torch.Tensor
    usable: torch.Tensor

    @classmethod
    def read(cls, store: Store) -> KnownPeople:
        """All people of a store."""
        codes = torch.from_numpy(store.array("code").astype("float32"))
        measured = torch.from_numpy(store.array("attributes").copy())
        usable = torch.nonzero(~measured.isnan().any(1))[:, 0]
        return cls(store, codes, measured, measured[usable].std(0), usable)

    def swap_code(self, source: torch.Tensor, target: torch.Tensor, directions: Directions) -> WPlus:
        """(B, 18, 512) the sources in the pose, expression and light of the targets.

        Args:
            source, target: (B,) numbers of people.
            directions: in the units of `mattface.edit`.
        """
        code = self.codes[source].clone()
        limit = FARTHEST * self.std
        change = (self.attributes[target] - self.attributes[source]).clamp(-limit, limit)
        for k, name in enumerate(NAMES):
            one = directions.attributes[name]
            unit = 1.0 if one.unit == "degrees" else float(self.std[k])
            first, end = one.layers
            code[:, first:end] += change[:, k, None, None] / unit * one.direction
        late = self.codes[target][:, LIGHT_FROM:]
        code[:, LIGHT_FROM:] = torch.lerp(code[:, LIGHT_FROM:], late, LIGHT)
        return code

    def without(self, first: int) -> KnownPeople:
        """The same people, of whom the first ones are in no pair."""
        return replace(self, usable=self.usable[self.usable >= first])

    def explained(
        self, transfer: RecognitionTransfer, heads: CodeHeads, directions: Directions, first: int, count: int = 400
    ) -> float:
        """Share of the variance of swap codes that is explained, for pairs of the first people.

        Args:
            transfer, heads, directions: see `train_transfer`.
            first: number of the people.
            count: of the pairs.
        """
        source, target = self.pairs(count, torch.Generator().manual_seed(1), self.usable[self.usable < first])
        wanted, made = self.swap_code(source, target, directions), []
        with torch.no_grad():
            for s, t in zip(source.split(CHUNK), target.split(CHUNK), strict=True):
                made.append(heads(transfer(self.store.features(s), self.store.features(t))))
        error = (torch.cat(made) - wanted).square().sum()
        return float(1 - error / (wanted - heads.w_avg).square().sum())

    def pairs(self, count: int, rng: torch.Generator, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(count,) sources and targets, `SAME` of them the same picture."""
        source, target = (among[torch.randint(len(among), (count,), generator=rng)] for _ in range(2))
        same = torch.rand(count, generator=rng) < SAME
        return source, torch.where(same, source, target)


def fit_swap_heads(
    people: KnownPeople, transfer: RecognitionTransfer, directions: Directions, pairs: int, rng: torch.Generator
) -> CodeHeads:
    """The best heads of a transfer as it is, by `fit_heads`."""
    source, target = people.pairs(pairs, rng, people.usable)
    average = people.codes.mean((0, 1))
    with torch.no_grad():
        seen = [
            flatten_features(transfer(people.store.features(s), people.store.features(t)))
            for s, t in zip(source.split(CHUNK), target.split(CHUNK), strict=True)
        ]
    return fit_heads(torch.cat(seen), people.swap_code(source, target, directions), average, HEADS_RANK)


def train_transfer(
    people: KnownPeople,
    transfer: RecognitionTransfer,
    heads: CodeHeads,
    directions: Directions,
    steps: int,
    lr: float = 2e-4,
    batch: int = 48,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Teaches transfer and heads together, by descent on the error of codes.

    Args:
        people: of whom pairs are drawn at random.
        transfer, heads: changed in place.
        directions: see `KnownPeople.swap_code`.
        steps: of AdamW, the learning rate falling linearly to 0 after a short rise.
        lr: of the transfer; the heads, which begin at a closed-form optimum, take a tenth of it.
        batch: pairs a step.
        seed: of the pairs.
        report: gets step and loss.
    """
    rng = torch.Generator().manual_seed(seed)
    moving = [p for name, p in transfer.named_parameters() if not name.endswith("gamma")]
    groups = [{"params": moving, "lr": lr}, {"params": heads.parameters(), "lr": lr / 10}]
    descent = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(descent, lambda k: min(1.0, (k + 1) / 50) * (1 - k / steps))
    variance = (people.codes - people.codes.mean((0, 1))).square().mean()
    for step in range(steps):
        source, target = people.pairs(batch, rng, people.usable)
        made = heads(transfer(people.store.features(source), people.store.features(target)))
        loss = F.mse_loss(made, people.swap_code(source, target, directions)) / variance
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*moving, *heads.parameters()], 1.0)
        descent.step()
        schedule.step()
        if report is not None:
            report(step + 1, float(loss.detach()))
