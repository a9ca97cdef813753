"""Crop -> 3D coefficients of a face (Deep3DFaceRecon), differentiable.

The network is a ResNet-50 (He et al., 2016, arXiv 1512.03385) with one head for each group of coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mattface import weights
from mattface.weights.convert import official
from mattface.weights.parts import Status, choose, states

SIDE = 224
"""Side of the network's input."""
PARTS = {"deep3d": "deep3d"}
"""Estimator name -> weight name."""
HEADS = {"identity": 80, "expression": 64, "texture": 80, "angles": 3, "light": 27, "shift": 2, "depth": 1}
"""Deep3DFaceRecon's outputs in order."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norms, and a shortcut.

    Args:
        before: channels in.
        width: channels of the 3x3 convolution; four times as many come out.
        stride: of the 3x3 convolution.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or before != 4 * width:
            shortcut = nn.Conv2d(before, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, before, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """Pooled features of a ResNet-50 in torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        before = 64
        for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            units = [Bottleneck(before, width, 1 if stage == 1 else 2)]
            units += [Bottleneck(4 * width, width, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            before = 4 * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 2048)."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean((2, 3))


@dataclass(frozen=True)
class Coefficients:
    """A face as coefficients of the Basel model of 2009.

    Attributes:
        identity: (B, 80) shape.
        expression: (B, 64).
        texture: (B, 80).
        angles: (B, 3) radians about x (pitch), y (yaw) and z (roll); the rotation is Rz Ry Rx.
        light: (B, 27) spherical harmonics, nine per colour; 0.8 belongs on top of the first of each nine.
        shift: (B, 3) translation in model units.
    """

    identity: torch.Tensor
    expression: torch.Tensor
    texture: torch.Tensor
    angles: torch.Tensor
    light: torch.Tensor
    shift: torch.Tensor


class FaceRegressor(nn.Module):
    """3D coefficients from one picture (Deng et al., 2019, arXiv 1903.08527)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.heads = nn.ModuleList([nn.Conv2d(2048, outputs, 1) for outputs in HEADS.values()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 224, 224) RGB in [0, 1] to (B, 257), in the order of `HEADS`."""
        features = self.backbone(x)[:, :, None, None]
        return torch.cat([head(features) for head in self.heads], 1).flatten(1)

    def coefficients(self, pixels: torch.Tensor) -> Coefficients:
        """Coefficients of aligned faces.

        Args:
            pixels: (B, 3, S, S) RGB in [-1, 1], five points on the 3D template by scale and shift.
        """
        sizes = [*list(HEADS.values())[:5], HEADS["shift"] + HEADS["depth"]]
        return Coefficients(*self.forward((shrunk(pixels) + 1) / 2).split(sizes, 1))


def shrunk(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) to (B, 3, 224, 224), anti-aliased."""
    if pixels.shape[-2:] == (SIDE, SIDE):
        return pixels
    return functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def available() -> list[Status]:
    """The state of every estimator."""
    return states(PARTS)


def build(
    name: str = "auto", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> FaceRegressor:
    """Builds an estimator for `mattface.perception.load`, in evaluation mode and without gradients of its own.

    Args:
        name: "auto" or "deep3d".
        device: where it runs.
        dtype: of its weights.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights are not here.
    """
    name = choose("an estimator", available(), name)
    network = FaceRegressor()
    weights.load_strictly(network, official(PARTS[name]), name)
    return network.eval().requires_grad_(False).to(torch.device(device), dtype)
