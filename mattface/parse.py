"""Crop -> inner face: a soft mask of skin, brows, eyes, nose and lips; hair, ears, neck and background stay out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mattface import weights
from mattface.errors import UsageError
from mattface.vocabulary import Crop
from mattface.weights.convert import official

FEATHER = 0.06
"""Width of the soft edge, as a fraction of the face's own size."""
WORK = 512
"""Largest side at which a mask is computed; it is smooth, so larger ones are scaled up."""
SIDE = 512
"""Side of the parsing network's input."""
CLASSES = (
    *("background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear"),
    *("ear ring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat"),
)
"""Labels of the parsing network, in order."""
INNER = ("skin", "left brow", "right brow", "left eye", "right eye", "nose", "mouth", "upper lip", "lower lip")
PARTS = {"bisenet": "bisenet", "mesh": "face-mesh"}
"""Parser name -> weight name, strongest first."""


def inner_face(mesh: np.ndarray, size: int, feather: float = FEATHER) -> torch.Tensor:
    """Soft mask of the region that dense landmarks cover.

    The edge lies wholly inside the outline of the points: 0 on it and outside, 1 from `feather` inwards.

    Args:
        mesh: (468, 3) landmarks in pixels of the crop.
        size: side S of the crop.
        feather: width of the soft edge as a fraction of the face's size (square root of the outline's area).

    Returns:
        (1, 1, S, S) float32 in [0, 1].
    """
    import cv2

    work = min(size, WORK)
    outline = cv2.convexHull(np.ascontiguousarray(mesh[:, :2] * (work / size) - 0.5, dtype=np.float32))
    filled = np.zeros((work + 2, work + 2), np.uint8)  # the rim repeats the border: no edge at the frame
    cv2.fillConvexPoly(filled, np.round((outline + 1) * 16).astype(np.int32), 1, shift=4)
    filled[[0, -1]], filled[:, [0, -1]] = filled[[1, -2]], filled[:, [1, -2]]
    distance = cv2.distanceTransform(filled, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    width = max(feather * float(np.sqrt(max(cv2.contourArea(outline), 1.0))), 1.0)
    ramp = np.clip((distance - 1.5) / width, 0, 1)  # filling and scaling up reach at most so far beyond the outline
    mask = torch.from_numpy(ramp * ramp * (3 - 2 * ramp))[None, None].float()
    if work == size:
        return mask
    return functional.interpolate(mask, (size, size), mode="bilinear", align_corners=False)


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
    spread = pixels.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return ((pixels + 1) / 2 - mean) / spread


def read_bisenet(state: dict[str, torch.Tensor]) -> BiSeNet:
    """The network with tensors of the names of `BiSeNet`, in evaluation mode.

    Raises:
        WeightsError: other names or shapes.
    """
    net = BiSeNet()
    weights.load_strictly(net, state, "a 19-class BiSeNet")
    return net.eval().requires_grad_(False)


class Parser:
    """Finds the inner face of a crop. Build one with `load_parser`.

    Attributes:
        name: which part runs ("bisenet", "mesh").
    """

    def __init__(self, name: str, network: BiSeNet | None = None) -> None:
        self.name = name
        self.network = network

    @torch.no_grad()
    def __call__(self, crop: Crop, feather: float = FEATHER) -> torch.Tensor:
        """Mask of a crop.

        Args:
            crop: with a mesh.
            feather: see `inner_face`.

        Returns:
            (1, 1, S, S) float32 in [0, 1] on the CPU; never outside the outline of the mesh.

        Raises:
            UsageError: a crop without a mesh.
        """
        if crop.mesh is None:
            raise UsageError("expected a crop with a mesh; got one without. Run the landmark stage first.")
        mask = inner_face(crop.mesh, crop.size, feather)
        if self.network is None:
            return mask
        device = next(self.network.parameters()).device
        small = functional.interpolate(crop.pixels.to(device), (SIDE, SIDE), mode="area")
        chance = self.network(normalised(small)).softmax(1)
        inner = chance[:, [CLASSES.index(name) for name in INNER]].sum(1, keepdim=True)
        inner = functional.interpolate(inner, (crop.size, crop.size), mode="bilinear", align_corners=False)
        return mask * inner.cpu().float()


def _bisenet(device: torch.device) -> Parser:
    return Parser("bisenet", read_bisenet(official(PARTS["bisenet"])).to(device))


LOADERS: dict[str, Callable[[torch.device], Parser]] = {"bisenet": _bisenet, "mesh": lambda device: Parser("mesh")}


def available() -> list[tuple[str, bool, str]]:
    """(part, usable, what to do if not) for every parser, strongest first."""
    states = [(name, weights.status(weight)) for name, weight in PARTS.items()]
    return [(name, state["note"] == "", state["note"]) for name, state in states]


def load_parser(name: str = "auto", device: str | torch.device = "cpu") -> Parser:
    """The inner-face part.

    Args:
        name: "auto" for the strongest whose weights are here, or "bisenet", "mesh".
        device: where the network runs.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights are not here.
    """
    if name != "auto" and name not in LOADERS:
        raise UsageError(f"expected a parser auto, {', '.join(LOADERS)}; got {name!r}.")
    if name == "auto":
        name = "bisenet" if weights.present(PARTS["bisenet"]) else "mesh"
    return LOADERS[name](torch.device(device))
