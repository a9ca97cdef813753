"""Which part of a face is seen: a small network that finds hair, glasses, hands and the like before it.

The network looks at an upright square around the dense landmarks, so it sees every face at one size and turn, and is
told by two maps where face and features are expected. Ours, a U-Net (Ronneberger et al. 2015, arXiv 1505.04597).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mattface.data.topology import LEFT_EYE, LIPS_OUTER, RIGHT_EYE
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
MOVED, RESIZED = 0.3, 1.25
"""Way, over its extent, and change of size within which a face of the next frame is taken for the same."""
FORGOTTEN = 8
"""Looks after which a face that did not come back is forgotten."""
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
        self.down = nn.ModuleList([twice(a, b) for a, b in zip(before, widths, strict=True)])
        levels = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList([twice(deep + flat, flat) for deep, flat in levels])
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


def folded(network: VisibleFace) -> VisibleFace:
    """The network for use, in place: its normalisations within its convolutions, which then run a third faster."""
    for part in network.eval().modules():
        if isinstance(part, ConvNorm):
            part.conv, part.bn = fuse_conv_bn_eval(part.conv, part.bn), nn.Identity()  # type: ignore[assignment]
    return network.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]


def twice(before: int, channels: int) -> nn.Sequential:
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


def looked_at(pixels: np.ndarray, matrix: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(side, side, C) of (H, W, C) pixels in the square of a matrix, shrunk without aliasing, borders repeated."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        height, width = (max(1, round(n * scale)) for n in pixels.shape[:2])
        pixels, (before, high) = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), pixels.shape[1::-1]
        matrix = matrix @ np.diag([before / width, high / height, 1.0])
    return cv2.warpAffine(
        pixels, centred(matrix), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def centred(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) for OpenCV, whose pixels have their centres at whole numbers, of one for centres at +0.5."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return moved


def looked(
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
    x = np.concatenate([looked_at(pixels, matrix).transpose(2, 0, 1), maps])[None]
    kept = next(network.parameters())
    with torch.no_grad():
        logit = network(torch.from_numpy(np.ascontiguousarray(x)).to(kept.device, kept.dtype))
        chance = torch.sigmoid(logit.float())[0, 0].cpu().numpy()
    return np.clip((chance - doubt[0]) / (doubt[1] - doubt[0]), 0, 1)


def laid(shown: np.ndarray, mesh: np.ndarray, whole: int, size: int) -> np.ndarray:
    """What `looked` says, laid over a copy of side `size` of the picture of side `whole` with the mesh; 1 around."""
    back = centred(square(mesh) @ np.diag([whole / size] * 2 + [1.0]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(shown, back, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0)


@dataclass
class Glance:
    """What was seen of a face: its middle and extent in pixels of the whole picture, the map, calls since then."""

    middle: np.ndarray
    extent: float
    shown: np.ndarray
    age: int = 0


class Looks:
    """Looks at faces, and in moving pictures at each of them only now and then: what lies before a face moves with it.

    Args:
        network: trained, see `folded`.
        every: calls from one look at a face to the next, from 1 on; 1 looks always.
        doubt: see `DOUBT`.
    """

    def __init__(self, network: VisibleFace, every: int = 1, doubt: tuple[float, float] = DOUBT) -> None:
        self.network, self.every, self.doubt = network, every, doubt
        self._glances: list[Glance] = []

    def __call__(self, crop: Crop, size: int) -> np.ndarray:
        """How far a face is seen, (size, size) float32 in [0, 1], for a crop with a mesh."""
        mesh = np.asarray(crop.mesh)
        return laid(self._shown(crop, mesh), mesh, crop.size, size)

    def _shown(self, crop: Crop, mesh: np.ndarray) -> np.ndarray:
        pixels = crop.pixels[0].permute(1, 2, 0).cpu().float().numpy()
        if self.every == 1:
            return looked(self.network, pixels, mesh, self.doubt)
        scale = float(np.sqrt(abs(np.linalg.det(crop.image_to_crop[:2, :2]))))
        middle = (np.linalg.inv(crop.image_to_crop) @ [*mesh[:, :2].mean(0), 1.0])[:2]
        extent = float(np.ptp(mesh[:, :2], axis=0).max()) / scale
        for glance in self._glances:
            glance.age += 1
        near = [g for g in self._glances if same_face(g, middle, extent)]
        self._glances = [g for g in self._glances if all(g is not n for n in near) and g.age < FORGOTTEN * self.every]
        fresh = bool(near) and near[0].age < self.every
        found = near[0] if fresh else Glance(middle, extent, looked(self.network, pixels, mesh, self.doubt))
        found.middle, found.extent = middle, extent
        self._glances.append(found)
        return found.shown


def same_face(glance: Glance, middle: np.ndarray, extent: float) -> bool:
    """Whether a face is where a glance was, at about its size."""
    near = float(np.linalg.norm(glance.middle - middle)) < MOVED * glance.extent
    return near and 1 / RESIZED < extent / max(glance.extent, 1e-6) < RESIZED
