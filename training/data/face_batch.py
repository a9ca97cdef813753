"""A batch of swap pairs as dictionaries: one per face, taken out of a batch and put together again."""

from __future__ import annotations

from typing import Any

import torch

from mattface.training.task import Batch

FaceBatch = dict[str, Any]
"""Fields of one face of every pair: image, mask, caption, and landmarks where the samples have them."""


def take_face(batch: Batch, name: str) -> FaceBatch:
    """The fields whose names begin with "source", "target" or "truth", without that."""
    return {k.removeprefix(name + "_"): v for k, v in batch.items() if k.startswith(name + "_")}


def concatenate_faces(a: FaceBatch, b: FaceBatch) -> FaceBatch:
    """Two batches of faces one after the other."""
    return {k: torch.cat([v, b[k]]) if isinstance(v, torch.Tensor) else [*v, *b[k]] for k, v in a.items()}
