"""The 128-number identity ResNet, read from dlib's own file, differentiable.

Architecture: He et al., 2016 (arXiv 1512.03385), 29 convolutions with half the filters, batch normalisation folded to
affines; weights by Davis King (2017). Numbers in the file are one control byte (low four bits: how many bytes follow,
top bit: sign) and that many little-endian bytes; tensors are a version, four sizes and raw little-endian float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from mattface.errors import WeightsError
from mattface.geometry import HALF, similarity

CENTRE = Path(__file__).parent.parent / "data" / "identity_resnet_centre.npy"
SIZE = 150
"""Side of the face chip."""
PADDING = 0.25
"""Space around the template box, as a fraction of it."""
MEAN = (122.782, 117.001, 104.298)
STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""(channels, residual blocks, whether the first of them halves the resolution)."""
DIM = 128
CHIP_POINTS = ((7,), (133, 155), (249,), (362, 382), (2, 164))
"""Mesh points whose means are left eye's outer and inner corner, right eye's outer and inner corner, base of the nose.

Chosen by least distance from dlib's own five points on 25 portraits (2 to 3 % of the outer-eye distance).
"""
CHIP_TEMPLATE = np.array(
    [
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.4901123135679, 0.6277975316475],
    ]
)
"""dlib's mean positions of these five points in a box around the face, as fractions of it."""


def chip_matrix(mesh: np.ndarray) -> np.ndarray:
    """(3, 3) from the mesh's pixels to the pixels of the 150 px face chip, centres at +0.5 in both.

    dlib counts picture pixels from centres at whole numbers, but the middle of the template is the middle of the chip.

    Args:
        mesh: (468, 3) dense landmarks.
    """
    points = np.stack([mesh[list(index), :2].mean(0) for index in CHIP_POINTS]) - 0.5
    template = (CHIP_TEMPLATE + PADDING) / (1 + 2 * PADDING) * SIZE
    return similarity(points, template) @ np.linalg.inv(HALF)


def centre() -> np.ndarray:
    """(128,) mean embedding of 124 generated portraits and their mirror images.

    All vectors of this network point roughly one way (strangers have a cosine of 0.83); about this centre they spread.
    """
    return np.load(CENTRE, allow_pickle=False)


class Affine(nn.Module):
    """Scale and shift per channel (a folded batch normalisation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.beta[:, None, None], x, self.gamma[:, None, None])


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; sums of unequal sizes extend the smaller with zeros at the far end."""

    def __init__(self, before: int, channels: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = nn.Conv2d(before, channels, 3, stride=2 if halve else 1, padding=0 if halve else 1)
        self.first_affine = Affine(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_affine = Affine(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second_affine(self.second(functional.relu(self.first_affine(self.first(x)))))
        shortcut = functional.avg_pool2d(x, 2) if self.halve else x
        return functional.relu(_extended(y, shortcut) + _extended(shortcut, y))


def _extended(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """x with zeros at the far end of channels, height and width until it is at least as large as `like`."""
    c, h, w = (max(0, b - a) for a, b in zip(x.shape[1:], like.shape[1:], strict=True))
    return functional.pad(x, (0, w, 0, h, 0, c)) if c or h or w else x


class IdentityResNet(nn.Module):
    """RGB face chips -> 128 numbers, not unit length; the same person below a Euclidean distance of 0.6."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        self.stem_affine = Affine(32)
        blocks, before = [], 32
        for channels, count, halve in STAGES:
            for k in range(count):
                blocks.append(Block(before, channels, halve and k == 0))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, DIM, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        """Embeds chips.

        Args:
            chips: (B, 3, 150, 150) float RGB in [-1, 1].

        Returns:
            (B, 128).
        """
        return self.head(self.blocks(self.begin(chips)).mean(dim=(2, 3)))

    def begin(self, chips: torch.Tensor) -> torch.Tensor:
        """(B, 3, 150, 150) chips to the (B, 32, 35, 35) map that enters the first block."""
        x = ((chips + 1) * 127.5 - self.mean) / 256
        return functional.max_pool2d(functional.relu(self.stem_affine(self.stem(x))), 3, 2)


class _Reader:
    """Reads numbers and tensors from dlib's serialisation; every step stays inside the data."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def damaged(self, why: str) -> WeightsError:
        return WeightsError(
            f"expected dlib's face recognition ResNet; {self.path} is something else or damaged ({why} at byte "
            f"{self.at}). Remove it, then type: mattface weights pull identity-resnet"
        )

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise self.damaged(f"needs {count} more bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        control = self.take(1)[0]
        if not 0 < control & 15 <= 8:
            raise self.damaged(f"control byte {control}")
        value = int.from_bytes(self.take(control & 15), "little")
        return -value if control & 128 else value

    def seek(self, name: bytes) -> None:
        """Moves behind the next string `name` (its length is part of what is searched)."""
        found = self.data.find(bytes([1, len(name)]) + name, self.at)
        if found < 0:
            raise self.damaged(f"no section {name.decode()}")
        self.at = found + 2 + len(name)

    def tensor(self, count: int) -> torch.Tensor:
        version, *sizes = (self.integer() for _ in range(5))
        if version != 2 or int(np.prod(sizes)) != count or min(sizes) < 1:
            raise self.damaged(f"tensor version {version}, sizes {sizes}, where {count} values belong")
        return torch.from_numpy(np.frombuffer(self.take(count * 4), dtype="<f4").astype(np.float32))


def read(path: Path) -> IdentityResNet:
    """The network with the weights of dlib's file, in evaluation mode.

    Args:
        path: dlib_face_recognition_resnet_model_v1.dat.

    Raises:
        WeightsError: not that file, or damaged. Nothing in the file is ever executed.
    """
    reader = _Reader(path.read_bytes(), path)
    net = IdentityResNet()
    pairs: list[tuple[nn.Conv2d, Affine]] = [(net.stem, net.stem_affine)]
    for block in net.blocks:
        if isinstance(block, Block):
            pairs += [(block.first, block.first_affine), (block.second, block.second_affine)]
    with torch.no_grad():
        for conv, affine in pairs:
            reader.seek(b"con_4")
            values = reader.tensor(conv.weight.numel() + conv.out_channels)
            parts = values.split([conv.weight.numel(), conv.out_channels])  # weights, then biases
            for target, part in zip(conv.parameters(), parts, strict=True):
                target.copy_(part.view_as(target))
            reader.seek(b"affine_")
            values = reader.tensor(2 * conv.out_channels)
            affine.gamma.copy_(values[: conv.out_channels])
            affine.beta.copy_(values[conv.out_channels :])
        reader.seek(b"fc_2")
        outputs, inputs = reader.integer(), reader.integer()
        if (outputs, inputs) != (DIM, net.head.in_features):
            raise reader.damaged(f"final matrix {inputs} x {outputs}")
        matrix = reader.tensor(DIM * net.head.in_features)
        net.head.weight.copy_(rearrange(matrix, "(i o) -> o i", o=DIM))
    return net.eval().requires_grad_(False)
