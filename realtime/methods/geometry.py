"""Target mesh -> the maps that magicmask's geometry branch reads: depth and landmarks."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mattface.align import sixty_eight
from mattface.mesh import Drawing, checked

SIGMA = 0.01
"""Standard deviation of a landmark's spot, as a fraction of the side."""


def depth_map(mesh: np.ndarray, size: int) -> np.ndarray:
    """Depth of the visible surface.

    Args:
        mesh: (468, 3) in pixels of the crop, smaller z nearer.
        size: side S of the crop.

    Returns:
        (S, S) float32 in [0, 1]: 0 where there is no face, 1 half a side nearer than the mesh's origin of depth.
    """
    near = np.clip(0.5 - mesh[:, 2:] / size, 0, 1)
    return np.clip(Drawing.of(mesh, size).interpolate(near)[..., 0], 0, 1)


def landmark_map(mesh: np.ndarray, size: int) -> np.ndarray:
    """(S, S) float32 in [0, 1]: a soft spot of height 1 at each of the 68 landmarks; the largest value wins."""
    drawn = np.zeros((size, size), np.float32)
    sigma = SIGMA * size
    reach = int(np.ceil(3 * sigma))
    for x, y in sixty_eight(mesh):
        left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
        columns = np.arange(max(left, 0), min(left + 2 * reach + 1, size))
        rows = np.arange(max(top, 0), min(top + 2 * reach + 1, size))
        if len(columns) == 0 or len(rows) == 0:
            continue
        square = ((columns + 0.5 - x) ** 2)[None] + ((rows + 0.5 - y) ** 2)[:, None]
        part = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.maximum(part, np.exp(-square / (2 * sigma**2)).astype(np.float32), out=part)
    return drawn


def geometry_maps(mesh: np.ndarray, size: int) -> torch.Tensor:
    """(1, 2, S, S) float32: depth and landmarks of a target mesh (468, 3) in pixels of its crop.

    Raises:
        ValueError: the mesh is not (468, 3) or not finite.
    """
    mesh = checked(mesh, "target mesh")
    depth = cv2.GaussianBlur(depth_map(mesh, size), (0, 0), max(0.5, 0.002 * size))  # hides the triangles' edges
    return torch.from_numpy(np.stack([depth, landmark_map(mesh, size)]))[None]
