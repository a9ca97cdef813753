"""BiSeNet: which part of a face every pixel belongs to, by the public 19-class checkpoint."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mattface import weights

SIDE = 512
"""Side of the parsing network's input."""
CLASSES = (
    *("background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear"),
    *("ear ring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat"),
)
"""Labels of the parsing network, in order."""
INNER = ("skin", "left brow", "right brow", "left eye", "right eye", "nose", "mouth", "upper lip", "lower lip")


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, before: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18's block)."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """Features at 1/8, 1/16 and 1/32 of the input (He et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Residual(64, 64, 1), Residual(64, 64, 1))
        self.layer2 = nn.Sequential(Residual(64, 128, 2), Residual(128, 128, 1))
        self.layer3 = nn.Sequential(Residual(128, 256, 2), Residual(256, 256, 1))
        self.layer4 = nn.Sequential(Residual(256, 512, 2), Residual(512, 512, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class Refinement(nn.Module):
    """Convolution whose channels are weighted by their own means (BiSeNet's attention refinement)."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(before, channels, 3)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))


class ContextPath(nn.Module):
    """Backbone with refined features carried down to 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16, self.arm32 = Refinement(256, 128), Refinement(512, 128)
        self.conv_head32, self.conv_head16 = ConvNorm(128, 128, 3), ConvNorm(128, 128, 3)
        self.conv_avg = ConvNorm(512, 128, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        eighth, sixteenth, last = self.resnet(x)
        whole = self.conv_avg(last.mean((2, 3), keepdim=True))
        deep = functional.interpolate(self.arm32(last) + whole, sixteenth.shape[2:])
        deep = self.arm16(sixteenth) + self.conv_head32(deep)
        return eighth, self.conv_head16(functional.interpolate(deep, eighth.shape[2:]))


class Fusion(nn.Module):
    """Joins backbone and context features, weighted by channel means (BiSeNet's feature fusion)."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvNorm(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
        x = self.convblk(torch.cat([near, far], 1))
        return x + x * torch.sigmoid(self.conv2(functional.relu(self.conv1(x.mean((2, 3), keepdim=True)))))


class Output(nn.Module):
    """Convolution and class scores."""

    def __init__(self, before: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(before, middle, 3)
        self.conv_out = nn.Conv2d(middle, classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Face parsing network (Yu et al., 2018, arXiv 1808.00897; the 19-class face variant without a spatial path).

    Module names are those of the public checkpoint; its two training heads are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = Fusion()
        self.conv_out = Output(256, 256, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Args:
            x: (B, 3, H, W) RGB with ImageNet statistics (see `normalised`).

        Returns:
            (B, 19, H, W) logits.
        """
        scores = self.conv_out(self.ffm(*self.cp(x)))
        return functional.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) RGB from [-1, 1] to ImageNet statistics."""
    mean = pixels.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = pixels.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return ((pixels + 1) / 2 - mean) / std


def read_bisenet(state: dict[str, torch.Tensor]) -> BiSeNet:
    """The network with tensors of the names of `BiSeNet`, in evaluation mode.

    Raises:
        WeightsError: other names or shapes.
    """
    net = BiSeNet()
    weights.load_strictly(net, state, "a 19-class BiSeNet")
    return net.eval().requires_grad_(False)


def inner_of(network: BiSeNet, pixels: torch.Tensor) -> torch.Tensor:
    """(1, 1, `SIDE`, `SIDE`) chance of the classes `INNER`, on the CPU, of (1, 3, S, S) RGB in [-1, 1]."""
    device = next(network.parameters()).device
    small = functional.interpolate(pixels.to(device), (SIDE, SIDE), mode="area")
    chance = network(normalised(small)).softmax(1)
    return chance[:, [CLASSES.index(name) for name in INNER]].sum(1, keepdim=True).cpu().float()
