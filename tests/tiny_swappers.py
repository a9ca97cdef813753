"""The real-time methods at toy size: networks, inputs, crops, and an identity network that needs no weights."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mattface.embed import Embedder
from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.methods.contract import CropSpec
from mattface.parse import Parser
from mattface.realtime.methods import alphaface, alphaface_paper, alphaface_small, facechanger, magicmask
from mattface.realtime.methods.aligned import AlignedMethod, IdentityCoder
from mattface.vocabulary import Crop

CPU = torch.device("cpu")
SIZES = {"size": 32, "widths": (4, 6, 8, 12), "blocks": 2, "code": 16}
TINY = {
    "alphaface": alphaface.Config(**SIZES, decoder=(8, 6, 5, 5, 5)),
    "alphaface-paper": alphaface_paper.Config(**SIZES, decoder=(8, 6, 5)),
    "facechanger": facechanger.Config(**SIZES, decoder=(8, 6, 5)),
    "magicmask": magicmask.Config(**SIZES, decoder=(8, 6, 5), stem=(4, 4, 4, 8), layers=1, heads=2),
}
MODULES = {
    "alphaface": alphaface,
    "alphaface-paper": alphaface_paper,
    "facechanger": facechanger,
    "magicmask": magicmask,
}
FOLDED = alphaface_small.Config(size=32, widths=(6, 12), blocks=2, decoder=(8,), code=16, portrait=0)
NAMES = pytest.mark.parametrize("name", list(TINY))


def module(name: str) -> ModuleType:
    return MODULES[name]


def network(name: str, **changes):
    torch.manual_seed(0)
    return module(name).build_network(replace(TINY[name], **changes)).eval()


def inputs(net, batch: int = 2, side: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(1)
    given = [torch.rand(batch, *shape) * 2 - 1 for shape in net.input_shapes(side)]
    given[1] = F.normalize(given[1], dim=1)
    return given


def face_mesh(size: int) -> np.ndarray:
    mesh = topology().mean * (0.25 * size)
    mesh[:, :2] += size / 2
    return mesh


def crop(size: int = 32, seed: int = 0) -> Crop:
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    mesh = face_mesh(size)
    return Crop(pixels, np.eye(3), mesh, five_points(mesh))


class Means(nn.Module):
    """An identity network: sixteen means of the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)


def coder(matrix: torch.Tensor | None = None, framing: str = "whole") -> IdentityCoder:
    def whole(mesh: np.ndarray | None, points: np.ndarray) -> np.ndarray:
        return np.diag([0.5, 0.5, 1.0])

    return IdentityCoder(Embedder("means", Means(), 16, 16, whole, device=CPU), framing, matrix)


def method(name: str, size: int = 128) -> AlignedMethod:
    net = network(name, size=size)
    return AlignedMethod(name, CropSpec("arcface", size), net, coder(), Parser("mesh"), "tiny", CPU, torch.float32)
