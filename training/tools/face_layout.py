"""Makes `mattface/data/face_mesh.npz`: the triangles, regions, mirror and mean shape of the 468-point face mesh.

    python -m mattface.training.tools.face_layout MESHES.npy mattface/data/face_mesh.npz

`MESHES.npy` holds (N, 468, 3) meshes of N people in pixels (x right, y down, z away), as the landmark stage gives them.
The mean shape is a generalised Procrustes mean, turned to face the camera and made exactly symmetric. Triangles are a
Delaunay triangulation of that mean, unrolled on a cylinder and seen from slightly below (so that the underside of the
nose does not fold), with the four rings of lip points drawn apart (so that closed lips do not fold either).
Needs SciPy.
"""

from __future__ import annotations

import argparse

import numpy as np

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
LIP_RINGS = (
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
    (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77),
    (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
SKIN, MOUTH, LEFT_EYE, RIGHT_EYE, LIPS = range(5)
SEEN_FROM_BELOW = 0.7  # shear of the layout: y + 0.7 z


def procrustes_mean(meshes: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Generalised Procrustes mean of (N, 468, 3) meshes: centred, root-mean-square radius 1."""
    centred = meshes - meshes.mean(1, keepdims=True)
    centred /= np.sqrt((centred**2).sum(2).mean(1))[:, None, None]
    mean = centred[0]
    for _ in range(rounds):
        mean = np.mean([mesh @ rotation(mesh, mean) for mesh in centred], axis=0)
        mean /= np.sqrt((mean**2).sum(1).mean())
    return mean


def rotation(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """(3, 3) R with `points @ R` closest to `onto` (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(points.T @ onto)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def symmetric(mean: np.ndarray, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The mean turned so that its plane of symmetry is x = 0, averaged with its mirror image; and the mirror index."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.transform import Rotation

    flip = np.array([-1.0, 1.0, 1.0])
    for _ in range(rounds):
        mirrored = mean * flip
        mirror = linear_sum_assignment(((mirrored[:, None] - mean[None]) ** 2).sum(-1))[1]
        whole = Rotation.from_matrix(rotation(mean, mirrored[mirror]))
        mean = mean @ Rotation.from_rotvec(whole.as_rotvec() / 2).as_matrix()
    return (mean + (mean * flip)[mirror]) / 2, mirror


def layout(mean: np.ndarray) -> np.ndarray:
    """(468, 2) layout of the mean without folds."""
    flat = np.stack([1.5 * np.arctan2(mean[:, 0], 1.2 - mean[:, 2]), mean[:, 1] + SEEN_FROM_BELOW * mean[:, 2]], 1)
    outer = flat[list(LIP_RINGS[0])]
    centre = np.array([0.0, (outer[5, 1] + outer[15, 1]) / 2])
    for k, ring in enumerate(LIP_RINGS):
        flat[list(ring)] = centre + (outer - centre) * (1 - 0.8 * k / 3)
    return flat


def inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of (N, 2) points lie in a polygon (M, 2): even-odd rule."""
    x, y = points[:, :1], points[:, 1:]
    (ax, ay), (bx, by) = polygon.T, np.roll(polygon, -1, axis=0).T
    with np.errstate(divide="ignore", invalid="ignore"):
        crosses = ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return crosses.sum(1) % 2 == 1


def triangulate(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (T, 3), positive area in the layout (y down), and the region of each (T,)."""
    from scipy.spatial import Delaunay

    triangles = Delaunay(flat).simplices
    a, b, c = (flat[triangles[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    triangles = np.where((area < 0)[:, None], triangles[:, [0, 2, 1]], triangles)
    centres = flat[triangles].mean(1)
    region = np.full(len(triangles), SKIN, np.uint8)
    for label, ring in ((LIPS, LIP_RINGS[0]), (MOUTH, LIP_RINGS[-1]), (LEFT_EYE, EYES[0]), (RIGHT_EYE, EYES[1])):
        region[inside(flat[list(ring)], centres)] = label
    kept = inside(flat[list(OVAL)], centres)
    return triangles[kept], region[kept]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes")
    parser.add_argument("output")
    arguments = parser.parse_args()
    mean, mirror = symmetric(procrustes_mean(np.load(arguments.meshes).astype(np.float64)))
    triangles, region = triangulate(layout(mean))
    np.savez_compressed(
        arguments.output,
        mean=mean.astype(np.float32),
        triangles=triangles.astype(np.int16),
        region=region,
        mirror=mirror.astype(np.int16),
        oval=np.array(OVAL, np.int16),
        eyes=np.array(EYES, np.int16),
        lip_rings=np.array(LIP_RINGS, np.int16),
    )
    print(f"{len(triangles)} triangles; per region {np.bincount(region).tolist()}")


if __name__ == "__main__":
    main()
