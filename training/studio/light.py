"""Light as nine spherical harmonics per colour: fitting it to a face, and inventing it.

Irradiance of a convex, matt surface is a quadratic polynomial of its normal (Ramamoorthi and Hanrahan, 2001, An
efficient representation for irradiance environment maps): nine numbers per colour.
"""

from __future__ import annotations

import numpy as np

GREY = np.concatenate([np.ones((1, 3)), np.zeros((8, 3))])
"""Light from everywhere, of mean 1."""
COLOURED = 0.35
"""Share of a fitted light's colour differences that is believed; the rest is the skin's."""
DARKEST = 0.06
"""Irradiance is not let below this."""
FALL = np.array([0.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0])
"""How strongly each coefficient is held near zero when light is fitted."""


def basis(normals: np.ndarray) -> np.ndarray:
    """(N, 9) polynomials of (N, 3) unit normals: 1; y, z, x; xy, yz, 3z^2 - 1, xz, x^2 - y^2."""
    x, y, z = normals.T
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], 1)


def irradiance(light: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N, 3) irradiance under (9, 3) coefficients on (N, 3) normals, both in the camera's axes; at least `DARKEST`."""
    return np.maximum(basis(normals) @ light.astype(normals.dtype), DARKEST)


def fit_light(normals: np.ndarray, colours: np.ndarray, weight: np.ndarray, rounds: int = 3) -> np.ndarray:
    """(9, 3) light under which one surface colour explains what is seen best, of weighted mean 1 over the face.

    What lies far off (brows, beard, highlights, shadows) is left out from the second round on.

    Args:
        normals: (N, 3) in the camera's axes.
        colours: (N, 3) linear.
        weight: (N,) how far each point counts.
    """
    weight = weight / max(float(weight.sum()), 1e-9)
    relative = colours / np.maximum(weight @ colours, 1e-4)
    design, kept = basis(normals).astype(np.float64), weight.astype(np.float64)
    hold = np.diag(FALL) * 0.02
    for _ in range(rounds):
        weighted = design.T * kept
        light = np.linalg.solve(weighted @ design + hold * kept.sum(), weighted @ relative)
        off = np.abs(relative - design @ light).max(1)
        kept = weight * (off < 2.5 * np.sqrt(weight @ off**2))
    light = light / np.maximum(weight @ (design @ light), 1e-3)
    grey = light.mean(1, keepdims=True)
    return grey + COLOURED * (light - grey)


def from_lamp(direction: np.ndarray, strength: float) -> np.ndarray:
    """(9,) irradiance of one distant lamp, the clamped cosine cut after the second order, of mean `strength`.

    max(0, cos) = 1/4 + cos / 2 + 5 (3 cos^2 - 1) / 32 + ...; here divided by its mean 1/4.
    """
    d = direction / np.linalg.norm(direction)
    x, y, z = d
    second = [6 * x * y, 6 * y * z, 0.5 * (3 * z * z - 1), 6 * x * z, 1.5 * (x * x - y * y)]
    return strength * np.array([1.0, *(2.0 * np.array([y, z, x])), *(5 / 8 * np.array(second))])


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """(9, 3) light: a tinted surrounding, one to three tinted lamps from the front, sides and above."""
    warm = rng.normal(0, 0.10)
    tint = np.exp(np.array([warm, 0.0, -warm]) + rng.normal(0, 0.03, 3))
    light = GREY * tint * rng.uniform(0.25, 0.8)
    light[1] += light[0] * rng.uniform(0, 0.3)  # the sky is brighter than the ground
    for _ in range(rng.integers(1, 4)):
        across, up = rng.normal(0, 0.9), rng.normal(0.5, 0.5)
        cast = rng.normal(0, 0.12)
        colour = np.exp(np.array([cast, 0.0, -cast]))
        light += from_lamp(np.array([across, up, 1.0]), rng.uniform(0.1, 0.45))[:, None] * colour
    front = basis(np.array([[0.0, 0.2, 0.98]]))[0] @ light
    return light / front.mean() * rng.uniform(0.65, 1.2)


def to_linear(colour: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1), float32."""
    colour = np.asarray(colour, np.float32)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(colour: np.ndarray) -> np.ndarray:
    """Linear light to sRGB in [0, 1]."""
    colour = np.clip(colour, 0, 1)
    return np.where(colour <= 0.0031308, colour * 12.92, 1.055 * colour ** (1 / 2.4) - 0.055).astype(np.float32)


LINEAR_OF_BYTE = to_linear(np.arange(256, dtype=np.float32) / 255)
"""(256,) linear light of every 8-bit sRGB value."""
