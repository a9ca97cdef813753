"""Which part of a face is seen: a small network that finds hair, glasses, hands and the like before it.

The network looks at an upright square around the dense landmarks, so it sees every face at one size and turn, and two
maps say where face and features are expected. Ours, a U-Net (Ronneberger et al. 2015, arXiv 1505.04597).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mattface.data.topology import LEFT_EYE, LIPS_OUTER, RIGHT_EYE
from mattface.geometry import area_means, warp
from mattface.layers import resize
from mattface.parse.bisenet import ConvNorm
from mattface.vocabulary import Crop

SIDE = 160
"""Side of the square in pixels."""
ROOM = 1.25
"""Side of the square over the larger extent of the landmarks."""
DOUBT = (0.4, 0.8)
"""Probabilities up to which a place counts as hidden and from which on as seen: in doubt the target is kept."""
SURE = (0.1, 0.3)
"""The same for a source: in doubt it is shown, since what hides a source is seldom and its likeness is at stake."""
TOP, CHIN = 10, 152
"""Landmarks whose direction is upright in the square."""


class VisibleFace(nn.Module):
    """The network.

    Args:
        widths: channels at a half, a quarter, an eighth and a sixteenth of the square.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 64, 96)) -> None:
        super().__init__()
        before = (4 * 5, *widths[:-1])
        self.down = nn.ModuleList([double_conv(a, b) for a, b in zip(before, widths, strict=True)])
        levels = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList([double_conv(deep + flat, flat) for deep, flat in levels])
        self.decide = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logit of how far the face itself is seen.

        Args:
            x: (B, 5, S, S): RGB in [-1, 1], then the maps of `expected`; S a multiple of 16.

        Returns:
            (B, 1, S, S).
        """
        x = F.pixel_unshuffle(x, 2)
        kept = []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else F.avg_pool2d(x, 2))
            kept.append(x)
        for block, flat in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([resize(x, flat.shape[-1]), flat], 1))
        return F.pixel_shuffle(self.decide(x), 2)


def fuse_norms(network: VisibleFace) -> VisibleFace:
    """The network for use, in place: its normalisations within its convolutions, which then run a third faster."""
    for part in network.eval().modules():
        if isinstance(part, ConvNorm):
            part.conv, part.bn = fuse_conv_bn_eval(part.conv, part.bn), nn.Identity()  # type: ignore[assignment]
    return network.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]


def double_conv(before: int, channels: int) -> nn.Sequential:
    """Two normalised 3x3 convolutions."""
    return nn.Sequential(ConvNorm(before, channels, 3), ConvNorm(channels, channels, 3))


def square(mesh: np.ndarray, side: int = SIDE, room: float = ROOM) -> np.ndarray:
    """(2, 3) matrix from the pixels in which the mesh is given to an upright square around it.

    Args:
        mesh: (468, 2 or 3).
        side: of the square in pixels.
        room: its side over the larger extent of the mesh.
    """
    points = np.asarray(mesh[:, :2], np.float64)
    down = points[CHIN] - points[TOP]
    length = float(np.linalg.norm(down))
    sine, cosine = (-down[0] / length, down[1] / length) if length > 1e-6 else (0.0, 1.0)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    scale = side / max(room * float((high - low).max()), 1e-6)
    return np.column_stack([turn * scale, side / 2 - scale * (low + high) / 2])


def expected(mesh: np.ndarray, matrix: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(2, side, side) uint8, 0 or 255: where a mesh covers the square of `square`, and where eyes and lips are."""
    points = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2] - 0.5
    maps = np.zeros((2, side, side), np.uint8)
    cv2.fillConvexPoly(maps[0], np.rint(cv2.convexHull(points.astype(np.float32))).astype(np.int32), 255)
    for ring in (LEFT_EYE, RIGHT_EYE, LIPS_OUTER):
        cv2.fillConvexPoly(
            maps[1], np.rint(cv2.convexHull(points[list(ring)].astype(np.float32))).astype(np.int32), 255
        )
    return maps


def crop_aligned(pixels: np.ndarray, matrix: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(side, side, C) of (H, W, C) pixels in the square of a matrix, shrunk without aliasing, borders repeated."""
    pixels, matrix = area_means(pixels, matrix, float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
    return warp(pixels, matrix, (side, side), cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def predict(
    network: VisibleFace, pixels: np.ndarray, mesh: np.ndarray, doubt: tuple[float, float] = DOUBT
) -> np.ndarray:
    """What the network says of a face.

    Args:
        network: trained.
        pixels: (S, S, 3) float32 in [-1, 1].
        mesh: (468, 3) in pixels of that picture.
        doubt: see `DOUBT`.

    Returns:
        (SIDE, SIDE) float32 in [0, 1], how far the face is seen, in the square of the mesh.
    """
    matrix = square(mesh)
    maps = expected(mesh, matrix).astype(np.float32) / 255
    x = np.concatenate([crop_aligned(pixels, matrix).transpose(2, 0, 1), maps])[None]
    kept = next(network.parameters())
    with torch.no_grad():
        logit = network(torch.from_numpy(np.ascontiguousarray(x)).to(kept.device, kept.dtype))
        chance = torch.sigmoid(logit.float())[0, 0].cpu().numpy()
    return np.clip((chance - doubt[0]) / (doubt[1] - doubt[0]), 0, 1)


def paint_visibility(shown: np.ndarray, mesh: np.ndarray, whole: int, size: int) -> np.ndarray:
    """What `predict` says, over a copy of side `size` of the picture of side `whole` with the mesh; 1 around."""
    back = square(mesh) @ np.diag([whole / size] * 2 + [1.0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return warp(shown, back, (size, size), flags, cv2.BORDER_CONSTANT, 1.0)


class Visibility:
    """How far a face is visible in a crop, by a network.

    Args:
        network: trained, see `fuse_norms`.
        doubt: see `DOUBT`.
    """

    def __init__(self, network: VisibleFace, doubt: tuple[float, float] = DOUBT) -> None:
        self.network, self.doubt = network, doubt

    def predict(self, crop: Crop) -> np.ndarray:
        """(SIDE, SIDE) float32 in [0, 1] in the square of the crop's mesh."""
        pixels = crop.pixels[0].permute(1, 2, 0).cpu().float().numpy()
        return predict(self.network, pixels, np.asarray(crop.mesh), self.doubt)

    def paint(self, shown: np.ndarray, crop: Crop, size: int) -> np.ndarray:
        """(size, size) float32 in [0, 1]: what `predict` found, of this frame or an earlier one, over the crop."""
        return paint_visibility(shown, np.asarray(crop.mesh), crop.size, size)

    def __call__(self, crop: Crop, size: int) -> np.ndarray:
        """(size, size) float32 in [0, 1] for a crop with a mesh."""
        return self.paint(self.predict(crop), crop, size)
