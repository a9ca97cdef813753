"""Crop -> inner face: a soft mask of skin, brows, eyes, nose and lips; hair, ears, neck and background stay out."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from mattface import weights
from mattface.errors import UsageError
from mattface.parse.bisenet import inner_of, read_bisenet
from mattface.parse.visible import SURE, Visibility, VisibleFace, fuse_norms
from mattface.vocabulary import Crop
from mattface.weights.convert import official
from mattface.weights.parts import Status, choose, states

FEATHER = 0.06
"""Width of the soft edge, as a fraction of the face's own size."""
WORK = 512
"""Largest side at which a mask is computed; it is smooth, so larger ones are scaled up."""
PARTS = {"bisenet": "bisenet", "visible": "visible-face", "mesh": "face-mesh"}
"""Parser name -> weight name, strongest first."""


def inner_face(mesh: np.ndarray, size: int, feather: float = FEATHER) -> torch.Tensor:
    """Soft mask of the region that dense landmarks cover.

    The edge lies wholly inside the outline of the points: 0 on it and outside, 1 from `feather` inwards.

    Args:
        mesh: (468, 3) landmarks in pixels of the crop.
        size: side S of the crop.
        feather: width of the soft edge as a fraction of the face's size (square root of the outline's area).

    Returns:
        (1, 1, S, S) float32 in [0, 1].
    """
    import cv2

    work = min(size, WORK)
    outline = cv2.convexHull(np.ascontiguousarray(mesh[:, :2] * (work / size) - 0.5, dtype=np.float32))
    filled = np.zeros((work + 2, work + 2), np.uint8)  # the rim repeats the border: no edge at the frame
    cv2.fillConvexPoly(filled, np.round((outline + 1) * 16).astype(np.int32), 1, shift=4)
    filled[[0, -1]], filled[:, [0, -1]] = filled[[1, -2]], filled[:, [1, -2]]
    distance = cv2.distanceTransform(filled, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    width = max(feather * float(np.sqrt(max(cv2.contourArea(outline), 1.0))), 1.0)
    ramp = np.clip((distance - 1.5) / width, 0, 1)  # filling and scaling up reach at most so far beyond the outline
    mask = torch.from_numpy(ramp * ramp * (3 - 2 * ramp))[None, None].float()
    if work == size:
        return mask
    return functional.interpolate(mask, (size, size), mode="bilinear", align_corners=False)


Inner = Callable[[Crop, "Reuse | None"], torch.Tensor]
"""What of a crop is the inner face: (1, 1, H, W) float32 in [0, 1] on the CPU, of any resolution."""
Reuse = Callable[[Callable[[], np.ndarray]], np.ndarray]
"""Gives what a look finds now, or what it found in an earlier frame of a moving picture."""


class Parser:
    """Finds the inner face of a crop. Keeps nothing between calls.

    Attributes:
        name: which part runs ("bisenet", "visible", "mesh").
        inner: what it finds within the outline of the mesh; None for everything.
        source: the same for sources, more generous; None uses `inner`.
    """

    def __init__(self, name: str, inner: Inner | None = None, source: Inner | None = None) -> None:
        self.name = name
        self.inner, self.source = inner, source or inner

    @torch.no_grad()
    def seen(self, crop: Crop) -> torch.Tensor:
        """How far every pixel of a source shows the face itself, and not what lies before it.

        Returns:
            (1, 1, s, s) float32 in [0, 1] on the CPU, s <= S; 1 everywhere for a parser that knows only the outline.
        """
        return torch.ones(1, 1, 1, 1) if self.source is None else self.source(crop, None)

    @torch.no_grad()
    def __call__(self, crop: Crop, feather: float = FEATHER, reuse: Reuse | None = None) -> torch.Tensor:
        """Mask of a crop.

        Args:
            crop: with a mesh.
            feather: see `inner_face`.
            reuse: where the crop is a frame of a moving picture, may give an earlier look's result (visible-face
                alone; a BiSeNet looks at every frame).

        Returns:
            (1, 1, S, S) float32 in [0, 1] on the CPU; never outside the outline of the mesh.

        Raises:
            UsageError: a crop without a mesh.
        """
        if crop.mesh is None:
            raise UsageError("expected a crop with a mesh; got one without. Run the landmark stage first.")
        mask = inner_face(crop.mesh, crop.size, feather)
        if self.inner is None:
            return mask
        found = self.inner(crop, reuse)
        return mask * functional.interpolate(found, (crop.size, crop.size), mode="bilinear", align_corners=False)


def _inner(visibility: Visibility) -> Inner:
    """How far the face is seen, at most `WORK` a side."""

    def find(crop: Crop, reuse: Reuse | None) -> torch.Tensor:
        shown = visibility.predict(crop) if reuse is None else reuse(lambda: visibility.predict(crop))
        return torch.from_numpy(visibility.paint(shown, crop, min(crop.size, WORK)))[None, None]

    return find


def _bisenet(device: torch.device, _: torch.dtype) -> Parser:
    network = read_bisenet(official(PARTS["bisenet"])).to(device)
    return Parser("bisenet", lambda crop, _: inner_of(network, crop.pixels))


def _visible(device: torch.device, dtype: torch.dtype) -> Parser:
    tensors, metadata = weights.load_tensors(PARTS["visible"])
    network = VisibleFace(tuple(json.loads(metadata["config"])["widths"]))
    weights.load_strictly(network, {k: v.float() for k, v in tensors.items()}, PARTS["visible"])
    network = fuse_norms(network.to(device)).to(dtype)
    return Parser("visible", _inner(Visibility(network)), _inner(Visibility(network, SURE)))


LOADERS: dict[str, Callable[[torch.device, torch.dtype], Parser]] = {
    "bisenet": _bisenet,
    "visible": _visible,
    "mesh": lambda device, dtype: Parser("mesh"),
}


def available() -> list[Status]:
    """The state of every parser, strongest first."""
    return states(PARTS)


def build(name: str = "auto", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Parser:
    """Builds a parser for `mattface.perception.load`.

    Args:
        name: "auto" for the strongest that can run here, or a key of `PARTS`.
        device: where the network runs.
        dtype: of visible-face; a BiSeNet keeps single precision.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights are not here.
    """
    return LOADERS[choose("a parser", available(), name)](torch.device(device), dtype)
