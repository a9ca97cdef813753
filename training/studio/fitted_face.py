"""What a fit of the face model to a photograph gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mattface.training.studio.camera import Camera


@dataclass(frozen=True)
class Fit:
    """A face model fitted to a photograph.

    Attributes:
        identity: (I,) and expression: (E,) float32 coefficients.
        camera: from the model to the photograph's pixels.
        light: (9, 3) spherical harmonics in the camera's axes, of mean 1 over the visible face; `light.GREY` when no
            photograph was given.
        errors: (68,) distance of every landmark in pixels; of the outline's 17, which slide, across it.
    """

    identity: np.ndarray
    expression: np.ndarray
    camera: Camera
    light: np.ndarray
    errors: np.ndarray
