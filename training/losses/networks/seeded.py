"""Networks with seeded weights in place of missing ones: they cost what the real ones cost, and know nothing.

For the plan of a training only. Nothing trains with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mattface.embed import Embedder
from mattface.embed.arcface import SIZE, iresnet50
from mattface.estimate import FaceRegressor
from mattface.training.losses.networks.features import LPIPS_TAPS, VGG16, VGG_TAPS, FaceShape


class SeededNetworks:
    """A `mattface.training.task.Fallback` that replaces what is missing, and remembers what it replaced.

    Attributes:
        notes: sentences about that.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, kind: str, name: str, device: torch.device) -> dict[str, Any]:
        """What `mattface.training.losses.networks.loading.LoadedNetworks` takes for a missing network.

        Args:
            kind: "identity", "perceptual", "clip" or "shape".
            name: the recipe's.
            device: where it runs.
        """
        torch.manual_seed(0)
        if kind == "identity":
            self._note(kind, name, "a ResNet-50")
            network = iresnet50().eval().requires_grad_(False).to(device)
            return {"identity": Embedder("seeded", network, 512, SIZE, lambda mesh, points: np.eye(3))}
        if kind == "perceptual":
            self._note(kind, name, "a VGG16")
            lpips = name.partition(":")[0] == "lpips"
            features = VGG16(LPIPS_TAPS if lpips else VGG_TAPS, None if lpips else 224).eval().requires_grad_(False)
            heads = [torch.full((width,), 1 / width, device=device) for width in (64, 128, 256, 512, 512)]
            return {"features": features.to(device), "heads": heads if lpips else None}
        if kind == "shape":
            self._note(kind, name, "the same network")
            return {"shape": FaceShape(FaceRegressor()).eval().requires_grad_(False).to(device)}
        self.notes.append(f"{kind} network {name}: it is not here and was left out of the measurement")
        return {kind: None}

    def _note(self, kind: str, name: str, instead: str) -> None:
        self.notes.append(f"{kind} network {name}: its weights are not here; {instead} with seeded ones was measured")
