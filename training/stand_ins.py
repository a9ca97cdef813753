"""Judges with seeded weights in place of missing ones: they cost what the real ones cost, and judge nothing.

For the plan of a training only. Nothing trains with them: `replacing` surrounds a dry run and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from mattface.embed import Embedder
from mattface.embed.arcface import SIZE, iresnet50
from mattface.estimate import FaceRegressor
from mattface.training.judge_networks import LPIPS_TAPS, VGG16, VGG_TAPS, FaceShape

_notes: ContextVar[list[str] | None] = ContextVar("stand_ins", default=None)


@contextmanager
def replacing() -> Iterator[list[str]]:
    """Inside, `load_judges` takes stand-ins for what is missing; the list says which, for people."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def stand_in(kind: str, name: str, device: torch.device) -> dict[str, Any] | None:
    """What `mattface.training.judges.Frozen` takes for a missing judge; None outside `replacing`.

    Args:
        kind: "identity", "perceptual", "clip" or "shape".
        name: the recipe's.
        device: where it runs.
    """
    notes = _notes.get()
    if notes is None:
        return None
    torch.manual_seed(0)
    what, _, _ = name.partition(":")
    if kind == "identity":
        notes.append(f"identity judge {name}: its weights are not here, a ResNet-50 with seeded ones was measured")
        network = iresnet50().eval().requires_grad_(False).to(device)
        return {"identity": Embedder("seeded", network, 512, SIZE, lambda mesh, points: np.eye(3))}
    if kind == "perceptual":
        notes.append(f"perceptual judge {name}: its weights are not here, a VGG16 with seeded ones was measured")
        lpips = what == "lpips"
        features = VGG16(LPIPS_TAPS if lpips else VGG_TAPS, None if lpips else 224).eval().requires_grad_(False)
        heads = [torch.full((width,), 1 / width, device=device) for width in (64, 128, 256, 512, 512)]
        return {"features": features.to(device), "heads": heads if lpips else None}
    if kind == "shape":
        notes.append(f"shape judge {name}: its weights are not here, the same network with seeded ones was measured")
        return {"shape": FaceShape(FaceRegressor()).eval().requires_grad_(False).to(device)}
    notes.append(f"{kind} judge {name}: it is not here and was left out of the measurement")
    return {kind: None}
