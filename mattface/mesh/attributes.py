"""Mesh -> numbers that codes of people can be moved along (`mattface.edit`)."""

from __future__ import annotations

import numpy as np

from mattface.mesh.pose import pose

NAMES = ("yaw", "pitch", "smile", "mouth")
OUTER_EYES, MOUTH_CORNERS, INNER_LIPS = (33, 263), (61, 291), (13, 14)


def attributes(mesh: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    """Measures a face.

    Args:
        mesh: (468, 3) dense landmarks.
        mean: see `pose`.

    Returns:
        "yaw" and "pitch" in degrees; "smile" (mouth width) and "mouth" (its opening) over the outer-eye distance.
    """

    def apart(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(mesh[pair[0], :2] - mesh[pair[1], :2]))

    yaw, pitch, _ = pose(mesh, mean)
    eyes = max(apart(OUTER_EYES), 1e-6)
    values = (float(yaw), float(pitch), apart(MOUTH_CORNERS) / eyes, apart(INNER_LIPS) / eyes)
    return dict(zip(NAMES, values, strict=True))
