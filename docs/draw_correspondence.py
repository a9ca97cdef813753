"""Draws docs/correspondence.png: how one mesh tells where in the source every pixel of the target is shown.

No person is in the picture: both faces are the mean mesh, once as it is and once turned, with a smile drawn on.
Run: python docs/draw_correspondence.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mattface import mesh

SIZE = 480
INK = (60, 50, 45)


def placed(points: np.ndarray, turn: float, smile: float) -> np.ndarray:
    """(468, 3) in pixels of a SIZE picture: mean mesh, turned by `turn` degrees, mouth corners raised by `smile`."""
    points = points.copy()
    corners = np.exp(-((np.abs(points[:, 0]) - 0.35) ** 2 + (points[:, 1] - 0.5) ** 2) / 0.03)
    points[:, 1] -= smile * corners
    points[:, 0] += np.sign(points[:, 0]) * 0.6 * smile * corners
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    points = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    return points * (SIZE * 0.27) + [SIZE / 2, SIZE / 2, 0]


def pattern(points: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE, 3) colours that differ from position to position, over the covered part of a face."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    u, v = (x - points[:, 0].min()) / np.ptp(points[:, 0]), (y - points[:, 1].min()) / np.ptp(points[:, 1])
    squares = ((u * 10).astype(int) + (v * 12).astype(int)) % 2
    colour = np.stack([0.45 + 0.5 * v, 0.35 + 0.4 * u, 0.9 - 0.5 * u * v], -1) * (0.86 + 0.14 * squares[..., None])
    return np.clip(colour * 255, 0, 255).astype(np.uint8)


def drawn(colours: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours inside the mesh, its triangles on top, on white."""
    ids = mesh.triangle_ids(points, SIZE)
    picture = np.where((ids >= 0)[..., None], colours, 255).astype(np.uint8)
    shown = mesh.topology().triangles[np.unique(ids[ids >= 0])]
    lines = [np.round(points[t, :2] * 16).astype(np.int32) for t in shown]
    overlay = picture.copy()
    cv2.polylines(overlay, lines, True, INK, 1, cv2.LINE_AA, 4)
    return cv2.addWeighted(overlay, 0.45, picture, 0.55, 0)


def main() -> None:
    """Source, target, and the source's colours brought to the target through the flow."""
    mean = mesh.topology().mean
    source, target = placed(mean, 0, 0), placed(mean, 28, 0.12)
    colours = pattern(source)
    flow, seen = mesh.flow(source, target, SIZE)
    moved = cv2.remap(colours, flow - np.float32(0.5), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = (moved * seen[..., None] + 255 * (1 - seen[..., None])).astype(np.uint8)
    blank = np.full_like(colours, 235)
    row = np.hstack([drawn(colours, source), drawn(blank, target), drawn(moved, target)])
    cv2.imwrite(str(Path(__file__).with_name("correspondence.png")), row)


if __name__ == "__main__":
    main()
