"""Face -> identity: a unit-length vector that says who it is, from pixels, differentiable on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mattface import insight, weights
from mattface.data.templates import arcface_template
from mattface.embed import resnet
from mattface.errors import UsageError
from mattface.geometry import extent, sample, shift, similarity
from mattface.vocabulary import Face
from mattface.weights.convert import official
from mattface.weights.layouts.arcface_onnx import reads_bytes
from mattface.weights.onnx_graph import session
from mattface.weights.onnx_read import open_graph, read_graph
from mattface.weights.parts import Status, choose, states

PARTS = {
    "arcface": "arcface-r50",
    "arcface-r100": "arcface-r100",
    "insightface": "insightface-recognition",
    "insightface-r100": "insightface-recognition-r100",
    "insightface-torch": "insightface-recognition",
    "insightface-r100-torch": "insightface-recognition-r100",
    "ir-se-50": "ir-se-50",
    "resnet": "identity-resnet",
}
"""Embedder name -> weight name, in the order in which "auto" takes them. "-torch" is the same network as the ONNX graph
before it, with a gradient; before them all comes insightface's FaceAnalysis, see `insight`."""
PLAIN_CROP = 112
"""Side of the ArcFace crop."""


class Embedder:
    """Turns faces into identity vectors. `mattface.perception.load("identity")` builds one.

    Attributes:
        name: which part runs (a key of `PARTS`).
        dim: D, length of the vector.
        size: side of the network's own crop.
        network: module from (B, 3, size, size) RGB in [-1, 1] to (B, D), not normalised.
        centre: (D,) mean vector of many people, subtracted before normalising, so that strangers have a cosine of
            about 0; zeros where the network is trained for cosines already.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        dim: int,
        size: int,
        framing: Callable[[np.ndarray | None, np.ndarray], np.ndarray],
        centre: np.ndarray | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Assembles an embedder.

        Args:
            name: name of the part.
            network: see the class.
            dim: see the class.
            size: see the class.
            framing: (mesh (468, 3) or None, points (5, 2)) -> (3, 3) from their pixels to the network's crop.
            centre: see the class; None for zeros.
            device: where pixels are sampled; None for where the network's parameters are.
        """
        self.name, self.network, self.dim, self.size = name, network, dim, size
        self._framing = framing
        self.device = device or next(network.parameters()).device
        self.centre = torch.zeros(dim) if centre is None else torch.from_numpy(centre)
        self.centre = self.centre.to(self.device)

    def matrix(self, mesh: np.ndarray | None, points: np.ndarray) -> np.ndarray:
        """(3, 3) from the pixels that mesh and points are in (a picture's or a crop's) to the network's crop."""
        return self._framing(mesh, points)

    def differentiable(self, pixels: torch.Tensor, matrix: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Identity of aligned or unaligned pixels; gradients reach `pixels`.

        Args:
            pixels: (B, 3, H, W) float RGB in [-1, 1].
            matrix: (3, 3) or (B, 3, 3) from these pixels to the network's crop (see `matrix`).

        Returns:
            (B, D) unit length.
        """
        return functional.normalize(self.network(sample(pixels, matrix, self.size)) - self.centre, dim=1)

    @torch.no_grad()
    def __call__(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        """Identity of one face of a picture.

        Args:
            rgb: (H, W, 3) uint8.
            face: with a mesh where the part needs one (the ResNet does).

        Returns:
            (D,) float32, unit length.
        """
        matrix = self.matrix(face.mesh, face.points)
        region, offset = _region(rgb, matrix, self.size)
        pixels = torch.from_numpy(region).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
        return self.differentiable(pixels, matrix @ shift(*offset))[0].cpu().numpy()


def _region(rgb: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that a crop needs (at least one pixel), and its top-left (x, y)."""
    first, last = extent(np.linalg.inv(matrix), size)
    limits = np.array(rgb.shape[1::-1])
    low = np.clip(np.floor(first).astype(int) - 2, 0, limits - 1)
    high = np.clip(np.ceil(last).astype(int) + 2, low + 1, limits)
    return np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]]), low


def mean_identity(embeddings: Sequence[np.ndarray]) -> tuple[np.ndarray | None, int]:
    """Mean of unit vectors (D,), normalised again, and the index of the one nearest to it; (None, 0) for none."""
    if not embeddings:
        return None, 0
    mean = np.mean(embeddings, axis=0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return mean.astype(np.float32), int(np.argmax([e @ mean for e in embeddings]))


def _resnet(device: torch.device) -> Embedder:
    def framing(mesh: np.ndarray | None, points: np.ndarray) -> np.ndarray:
        if mesh is None:
            raise UsageError("expected a face with a mesh; got one without. Run the landmark stage on it first.")
        return resnet.chip_matrix(mesh)

    network = resnet.read(weights.find(PARTS["resnet"])).to(device)
    return Embedder("resnet", network, resnet.DIM, resnet.SIZE, framing, resnet.centre())


def _framing_112(mesh: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    return similarity(points, arcface_template(PLAIN_CROP) + 0.5)


def _arcface(name: str, device: torch.device) -> Embedder:
    """An ArcFace network in PyTorch: arcface_torch's file, insightface's unfolded ONNX graph, or pSp's IR-SE-50."""
    from mattface.embed.arcface import IRSE50, iresnet_for

    state = official(PARTS[name])
    network = IRSE50() if name == "ir-se-50" else iresnet_for(state)
    weights.load_strictly(network, state, f"an ArcFace network ({PARTS[name]})")
    return Embedder(name, network.eval().requires_grad_(False).to(device), 512, PLAIN_CROP, _framing_112)


class OnnxIdentity(nn.Module):
    """insightface's recognition graph on the CPU; its output carries no gradient.

    Args:
        model: serialised ONNX model from (B, 3, 112, 112) RGB in [-1, 1] to (B, D), or the file of one; a graph that
            subtracts and scales by itself is fed 0..255.
    """

    def __init__(self, model: bytes | Path) -> None:
        super().__init__()
        self.session = session(model)
        self.bytes = reads_bytes(read_graph(model) if isinstance(model, bytes) else open_graph(model))
        self.input = self.session.get_inputs()[0].name

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, 112, 112) RGB in [-1, 1] to (B, D).

        Raises:
            UsageError: `image` wants a gradient.
        """
        if torch.is_grad_enabled() and image.requires_grad:
            raise UsageError(
                "expected pixels without gradient; this graph has none. "
                "Use mattface.perception.load('identity', 'insightface-torch')."
            )
        values = image.detach() * 127.5 + 127.5 if self.bytes else image.detach()
        out = [self.session.run(None, {self.input: x[None]})[0] for x in values.cpu().float().numpy()]
        return torch.from_numpy(np.concatenate(out)).to(image.device)


def _insightface(name: str, device: torch.device) -> Embedder:
    network = OnnxIdentity(weights.find(PARTS[name]))
    return Embedder(name, network, 512, PLAIN_CROP, _framing_112, device=device)


class FaceAnalysisIdentity(nn.Module):
    """The recognition model of insightface's FaceAnalysis; its output carries no gradient.

    Args:
        model: has `get_feat(list of (112, 112, 3) uint8 BGR) -> (B, D)`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, 112, 112) RGB in [-1, 1] to (B, D).

        Raises:
            UsageError: `image` wants a gradient.
        """
        if torch.is_grad_enabled() and image.requires_grad:
            raise UsageError("expected pixels without gradient; FaceAnalysis has none. Take insightface-torch.")
        eight = (image.detach().flip(1) * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        found = np.asarray(self.model.get_feat([np.ascontiguousarray(one) for one in eight]), np.float32)
        return torch.from_numpy(found).to(image.device)


def _face_analysis(device: torch.device) -> Embedder:
    network = FaceAnalysisIdentity(insight.open_pack(device, ("detection", "recognition")).models["recognition"])
    return Embedder(insight.NAME, network, 512, PLAIN_CROP, _framing_112, device=device)


LOADERS: dict[str, Callable[[torch.device], Embedder]] = {
    insight.NAME: _face_analysis,
    "arcface": partial(_arcface, "arcface"),
    "arcface-r100": partial(_arcface, "arcface-r100"),
    "insightface": partial(_insightface, "insightface"),
    "insightface-r100": partial(_insightface, "insightface-r100"),
    "insightface-torch": partial(_arcface, "insightface-torch"),
    "insightface-r100-torch": partial(_arcface, "insightface-r100-torch"),
    "ir-se-50": partial(_arcface, "ir-se-50"),
    "resnet": _resnet,
}


def available() -> list[Status]:
    """The state of every identity part, strongest first."""
    return [insight.status(), *states(PARTS)]


def build(
    name: str = "auto", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Embedder:
    """Builds an identity part for `mattface.perception.load`.

    Args:
        name: "auto" for the strongest that can run here, or a key of `LOADERS`.
        device: where the network runs.
        dtype: has no effect; identities are computed in single precision.

    Raises:
        UsageError: unknown name.
        WeightsError: its weights or its package are not here.
    """
    return LOADERS[choose("an embedder", available(), name)](torch.device(device))
