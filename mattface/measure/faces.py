"""Who it is and how the face is held: identity, retrieval, pose, expression, landmarks."""

from __future__ import annotations

import numpy as np

OUTER_EYES = (33, 263)


def identity_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between embeddings (..., D) and (..., D): 1 for the same direction, -1 for opposite ones."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / np.maximum(lengths, 1e-12)


def retrieval(results: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> float:
    """ID retrieval: share of results whose nearest gallery embedding (by cosine) is the true source.

    Args:
        results: (N, D) embeddings of swapped faces.
        gallery: (G, D) embeddings of all sources.
        truth: (N,) index of each result's source in the gallery.

    Returns:
        Share in [0, 1].
    """
    unit = [e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (results, gallery)]
    return float(((unit[0] @ unit[1].T).argmax(1) == truth).mean())


def landmark_shift(result: np.ndarray, target: np.ndarray) -> float:
    """Mean distance on the screen between the landmarks of result and target, in percent of the outer-eye distance.

    Args:
        result, target: (468, 2 or 3) meshes in pixels of the same picture.
    """
    eyes = np.linalg.norm(target[OUTER_EYES[0], :2] - target[OUTER_EYES[1], :2])
    return float(100 * np.linalg.norm(result[:, :2] - target[:, :2], axis=1).mean() / max(eyes, 1e-9))


def expression_difference(a: np.ndarray, b: np.ndarray) -> float:
    """L2 distance of two vectors of expression coefficients (E,) of one face model, each coefficient in [0, 1].

    A model with identity and expression apart leaves shape and pose out of the number, as far as its fit tells them
    apart: two fits of one expression on two people are not equal to the last digit.
    """
    return float(np.linalg.norm(np.asarray(a, np.float64) - b))
