"""inswapper: insightface's public 128 px swapper, run as the ONNX graph that it is.

Its conventions: target RGB in [0, 1], ArcFace template for 128 px; the identity is the unit vector of the w600k
ResNet-50 on the 112 px ArcFace crop, multiplied by the graph's last initialiser (512x512, "emap") and divided by its
length. Inputs are taken by position: image first, identity second. Pasting is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mattface import perception
from mattface import weights as registry
from mattface.embed import Embedder
from mattface.errors import UsageError, WeightsError
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.parse import Parser
from mattface.vocabulary import Crop, MatteFilter, Swap
from mattface.weights.onnx_graph import session
from mattface.weights.onnx_read import open_graph

NAME, WEIGHTS, IDENTITY = "inswapper", "inswapper-128", "insightface"
SIZE, CODE = 128, 512


@dataclass(frozen=True)
class Signature:
    """What the graph is called with.

    Attributes:
        image: name of the first input, (1, 3, 128, 128).
        identity: name of the second input, (1, 512).
        emap: (512, 512) float32, the last initialiser.
    """

    image: str
    identity: str
    emap: np.ndarray


def read_signature(path: Path) -> Signature:
    """Names of the inputs, and the matrix that identity vectors are multiplied by.

    Raises:
        WeightsError: another kind of graph.
    """
    graph = open_graph(path)
    shapes = [value.shape for value in graph.inputs]
    wanted = [(3, SIZE, SIZE), (CODE,)]
    last = next(reversed(graph.tensors.values()), np.zeros(0))
    if [shape[1:] for shape in shapes] != wanted or last.shape != (CODE, CODE):
        raise WeightsError(
            f"expected a graph of an image (1, 3, {SIZE}, {SIZE}) and an identity (1, {CODE}) whose last initialiser "
            f"is {CODE}x{CODE}; {path} has inputs {shapes} and {last.shape}. Is it inswapper_128.onnx?"
        )
    return Signature(graph.inputs[0].name, graph.inputs[1].name, last.astype(np.float32))


class Inswapper:
    """The graph behind the method contract.

    Attributes:
        name, crop, weights: see the contract.
        embedder: identity network.
        parser: inner face of the target, which is the matte.
    """

    name = NAME
    crop = CropSpec("arcface", SIZE)

    def __init__(
        self, graph: Any, signature: Signature, embedder: Embedder, parser: Parser, weights: str, device: torch.device
    ) -> None:
        """Assembles the method.

        Args:
            graph: onnxruntime session.
            signature: see `Signature`.
            embedder: see the class.
            parser: see the class.
            weights: name of the weights in use.
            device: where results lie.
        """
        self.graph, self.signature = graph, signature
        self.embedder, self.parser = embedder, parser
        self.weights, self.device = weights, device
        self.emap = torch.from_numpy(signature.emap)

    def encode(self, source: Crop) -> torch.Tensor:
        """(1, 512) identity of unit length, as the graph wants it.

        Raises:
            UsageError: a crop whose points the identity network cannot use.
        """
        pixels = source.pixels.to(self.embedder.device)
        vector = self.embedder.differentiable(pixels, self.embedder.matrix(source.mesh, source.points))
        return functional.normalize(vector.cpu().float() @ self.emap, dim=1)

    def merge(self, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean identity, of unit length again."""
        return functional.normalize(torch.cat(list(encoded)).mean(0, keepdim=True), dim=1)

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.parser.name)

    def swap(self, encoded: torch.Tensor, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop with a mesh; the matte is its inner face."""
        image = ((target.pixels.cpu().float() + 1) / 2).numpy()
        feed = {self.signature.image: image, self.signature.identity: encoded.cpu().numpy()}
        pixels = torch.from_numpy(self.graph.run(None, feed)[0]) * 2 - 1
        swap = Swap(pixels.clamp(-1, 1).to(self.device), self.parser(target).to(self.device))
        return filtered(swap, matte_filter)


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> Inswapper:
    """Builds the method.

    Args:
        weights: None or "inswapper-128" for the registered file, or a path of an .onnx file of this kind.
        device: "cuda" needs onnxruntime-gpu.
        dtype: must be float32: the graph has a dtype of its own.
        commercial: see the contract.
        options: none are known.

    Raises:
        UsageError: an option, or another dtype.
        WeightsError: graph or identity network is not here, damaged, or of another kind.
        DeviceError: the runtime has no CUDA.
    """
    if options:
        raise UsageError(f"{NAME} has no options; got {', '.join(sorted(options))}.")
    if dtype != torch.float32:
        raise UsageError(f"{NAME} runs a graph of float32; got {dtype}. Leave dtype out.")
    path = registry.find(WEIGHTS) if weights in (None, WEIGHTS) else Path(str(weights))
    if not path.is_file():
        how = registry.card(WEIGHTS).how
        raise WeightsError(f"expected the name {WEIGHTS} or an .onnx file; got {weights!r}. {how}")
    signature = read_signature(path)
    embedder = perception.load("identity", IDENTITY, device, commercial=commercial)
    graph = session(path, device.type)
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    return Inswapper(graph, signature, embedder, parser, weights or WEIGHTS, device)
