"""Batches of answered pairs: augmented ones out of a store, and full-resolution ones that the teacher answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from mattface.training.augment import PlacedPairs, augment
from mattface.training.pairs import Teacher
from mattface.training.task import Batch


class Store(Protocol):
    """Answered pairs by number."""

    count: int

    def batch(self, indices: Sequence[int]) -> PlacedPairs:
        """The pairs of these numbers."""


class PairFeed:
    """Augmented pairs of a store; the same position always gives the same batch.

    Args:
        store: answered pairs.
        seed: of choice and augmentation.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.seed = store, seed

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        for chosen in positions:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + chosen[0])
            index = torch.randint(self.store.count, (len(chosen),), generator=rng).tolist()
            yield dict(vars(augment(self.store.batch(index), rng)))

    def describe(self) -> dict[str, Any]:
        """Number of pairs."""
        return {"pairs": self.store.count}


class TeacherFeed:
    """Full-resolution pairs that the teacher answers when they are asked for.

    Args:
        teacher: who answers.
        seed: of the choice.
    """

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self.teacher, self.seed = teacher, seed

    def batches(self, positions: Iterator[list[int]]) -> Iterator[Batch]:
        """See `mattface.training.task.Feed`."""
        for chosen in positions:
            made = []
            for position in chosen:
                rng = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
                s, t = torch.randint(len(self.teacher.crops), (2,), generator=rng).tolist()
                made.append(vars(self.teacher.pair(s, t)))
            yield {name: torch.cat([m[name] for m in made]) for name in made[0]}

    def describe(self) -> dict[str, Any]:
        """Number of people."""
        return {"people": len(self.teacher.crops)}
