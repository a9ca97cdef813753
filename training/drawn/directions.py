"""Measured attributes of drawn people -> directions in W that change one of them and leave the person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mattface.errors import UsageError
from mattface.mesh.attributes import NAMES

AXES = 80
"""Principal components of W in which directions are sought."""
RIDGE = 30.0
"""Of the regressions, in people."""
PERSON_AXES = 40
"""Principal components of identity that directions shall not change."""
PERSON = 30.0
"""Weight of identity against the length of a direction."""
USED = {"yaw": (0, 8), "pitch": (0, 8), "smile": (2, 9), "mouth": (2, 9)}
"""Styles that move: pose is drawn by the first, the mouth by those after."""
UNITS = {"yaw": ("degrees", 25.0), "pitch": ("degrees", 12.0), "smile": ("standard deviations", 2.0)}
UNITS["mouth"] = ("standard deviations", 3.0)


def fit_directions(styles: np.ndarray, values: np.ndarray, identities: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Directions of `NAMES`.

    With B the regressions of attributes and I those of identity on whitened components, direction k is the shortest d,
    counting what it changes of identity, with B d = e_k: d = H B^T (B H B^T)^-1 e_k, H = (1 + PERSON I^T I)^-1.

    Args:
        styles: (N, 512) styles less the average, of people whose first styles are all alike.
        values: (N, len(NAMES)) measured attributes.
        identities: (N, 128) of the recognition network.
        basis: (M, 512) styles less the average that say how styles vary.

    Returns:
        (len(NAMES), 512), each the change of a style that changes its attribute by 1.

    Raises:
        UsageError: fewer people than components.
    """
    if len(styles) <= AXES:
        raise UsageError(f"directions need more than {AXES} people; got {len(styles)}.")
    _, lengths, axes = np.linalg.svd(basis, full_matrices=False)
    axes = axes[:AXES] * (lengths[:AXES, None] / len(basis) ** 0.5)  # one standard deviation each
    x = styles @ axes.T / np.square(axes).sum(1)
    regress = np.linalg.solve(x.T @ x + RIDGE * np.eye(AXES), x.T)
    values = values - values.mean(0)
    terms = np.c_[np.ones(len(values)), values / values.std(0)]
    left = identities - terms @ np.linalg.lstsq(terms, identities, rcond=None)[0]  # what pose explains is not identity
    _, _, main = np.linalg.svd(left - left.mean(0), full_matrices=False)
    person = left @ main[:PERSON_AXES].T
    b, i = (regress @ values).T, (regress @ (person / person.std())).T
    h = np.linalg.inv(np.eye(AXES) + PERSON * i.T @ i)
    found: np.ndarray = np.linalg.solve(b @ h @ b.T, b @ h) @ axes
    return found.astype(np.float32)


def write_directions(path: Path, found: np.ndarray, std: np.ndarray, people: int) -> None:
    """Writes what `mattface.edit.load_directions` reads.

    Args:
        path: ends in .safetensors.
        found: of `fit_directions`.
        std: (len(NAMES),) of the attributes among people: the unit of those that are not degrees.
        people: whose number they were found on.
    """
    from safetensors.numpy import save_file

    scale = {name: 1.0 if UNITS[name][0] == "degrees" else float(s) for name, s in zip(NAMES, std, strict=True)}
    tensors = {name: row * scale[name] for name, row in zip(NAMES, found, strict=True)}
    said = {n: {"unit": UNITS[n][0], "most": UNITS[n][1], "layers": USED[n]} for n in NAMES}
    save_file(tensors, str(path), {"attributes": json.dumps(said), "people": str(people)})
