"""Networks that give a picture what losses compare: maps of features, and the shape of a face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mattface.estimate import FaceRegressor
from mattface.layers import resize
from mattface.weights.layouts.loss_networks import VGG_WIDTHS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_TAPS = (3, 8, 15, 22)
"""ReLUs 1_2, 2_2, 3_3, 4_3 in torchvision's numbering: AlphaFace's script."""
LPIPS_TAPS = (3, 8, 15, 22, 29)


class VGG16(nn.Module):
    """Features of VGG16 after chosen layers, in torchvision's numbering and key names.

    Args:
        taps: layers whose outputs are returned; the last is where it ends.
        side: pictures are resized to this side; None leaves them.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, taps: Sequence[int] = VGG_TAPS, side: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in VGG_WIDTHS:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            before = width or before
        self.features = nn.Sequential(*layers[: max(taps) + 1])
        self.taps, self.side = tuple(taps), side
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to one map per tap."""
        x = picture if self.side is None else resize(picture, self.side)
        x = ((x + 1) / 2 - self.mean) / self.std
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


class ResNetMaps(nn.Module):
    """Feature maps of the identity ResNet, in place of VGG16 where a recipe says so.

    Args:
        network: `mattface.embed.resnet.IdentityResNet`.
        taps: residual blocks whose outputs are returned.
    """

    def __init__(self, network: Any, taps: Sequence[int] = (2, 6, 9)) -> None:
        super().__init__()
        self.network, self.taps = network, tuple(taps)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to the stem's map and one per tap, each of mean square about 1."""
        net = self.network
        x = ((resize(picture, 150) + 1) * 127.5 - net.mean) / 256
        x = F.relu(net.stem_affine(net.stem(x)))
        maps = [x]
        x = F.max_pool2d(x, 3, 2)
        for index, block in enumerate(net.blocks[: max(self.taps) + 1]):
            x = block(x)
            if index in self.taps:
                maps.append(x)
        return [m / m.detach().square().mean().sqrt().clamp_min(1e-6) for m in maps]


class FaceShape(nn.Module):
    """Shape coefficients of a face for MAttFace eq. 17 ("D3DFR": Deep3DFaceRecon).

    The regressor was trained with crops of 224 px, five points on a 3D template by scale and shift, without rotation.
    Here it is given the training's own crops (RGB, eyes level, FFHQ or ArcFace framing), whole and resized: a loss
    compares two of one framing, so that what the framing adds is the same on both sides. As measurements of a face
    the coefficients are therefore biased.

    Args:
        regressor: of `mattface.estimate`.
    """

    def __init__(self, regressor: FaceRegressor) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) crops in [-1, 1] to (B, 80); gradients reach the pictures."""
        return self.regressor.coefficients(pictures.float()).identity
