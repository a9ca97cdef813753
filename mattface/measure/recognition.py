"""Face recognition networks that score results, and that no method trains with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mattface import perception
from mattface.errors import InputError, UsageError
from mattface.geometry import similarity
from mattface.vocabulary import Face
from mattface.weights.onnx_graph import session

TEMPLATE = np.array([[30.29, 51.70], [65.53, 51.50], [48.03, 71.74], [33.55, 92.37], [62.73, 92.20]])
"""Eyes, nose tip, mouth corners in the 96x112 crop, centre of the first pixel at 0."""
Embed = Callable[[np.ndarray, Face], np.ndarray]
"""(H, W, 3) uint8 and a face to (D,) unit identity."""


class Scorer:
    """An ONNX face recognition network that no method trains with, on the CPU.

    Its input is (n, 3, 112, 96) RGB, (x - 127.5) / 128, aligned to `TEMPLATE`.

    Args:
        path: the ONNX file.

    Raises:
        InputError: no such file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"expected a scoring network; {path} is no file. Give an ONNX file: --scoring FILE")
        self.session = session(path.read_bytes())
        self.input = self.session.get_inputs()[0].name

    def __call__(self, pixels: np.ndarray, face: Face) -> np.ndarray:
        """Unit vector of a face: outputs for the crop and its mirror image, concatenated."""
        matrix = similarity(face.points - 0.5, TEMPLATE)
        crop = cv2.warpAffine(shrink(pixels, matrix), rescale(pixels, matrix), (96, 112), flags=cv2.INTER_LINEAR)
        both = np.stack([crop, crop[:, ::-1]]).astype(np.float32).transpose(0, 3, 1, 2)
        out = self.session.run(None, {self.input: (both - 127.5) / 128})[0].ravel()
        return out / np.linalg.norm(out)


def shrink_factor(matrix: np.ndarray) -> int:
    """Whole number by which a picture can be shrunk before it is warped down by `matrix`."""
    return max(1, int(1 / np.hypot(*matrix[0, :2])))


def shrink(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture, area-averaged by `shrink_factor`."""
    k = shrink_factor(matrix)
    height, width = (n // k * k for n in pixels.shape[:2])
    return cv2.resize(pixels[:height, :width], (width // k, height // k), interpolation=cv2.INTER_AREA)


def rescale(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(2, 3) `matrix` for the shrunk picture; both with the centre of the first pixel at 0."""
    k = shrink_factor(matrix)
    return (matrix @ np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1.0]]))[:2]


def load_scorer(name: str, trains_with: str) -> Embed:
    """A network that scores.

    Args:
        name: an embedder of `mattface.embed`, or FILE.onnx for `Scorer`.
        trains_with: the embedder that the training uses.

    Raises:
        UsageError: the same network trains and scores.
        InputError: no such file.
    """
    if name.endswith(".onnx"):
        return Scorer(Path(name))
    embedder = perception.load("identity", name)
    if embedder.name == trains_with or trains_with == "auto":
        raise UsageError(f"{embedder.name} trains, so it cannot score. Give another: --scoring FILE.onnx")
    return embedder
