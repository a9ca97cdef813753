"""ArcFace ResNets out of an ONNX graph: batch norms that the exporter folded into convolutions are taken back apart.

The graph is walked from its input by what it computes, so neither names nor their order matter. What walks: a stem of
convolution and PReLU; residual units of batch norm, convolution, PReLU, convolution and a sum with the unit's input or
a convolution of it; batch norm, matrix, batch norm. Every convolution may have a batch norm behind it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from mattface.errors import WeightsError
from mattface.weights.layouts.arcface import BATCH_NORM_EPSILON
from mattface.weights.onnx_read import Graph, Node

SKIPPED = ("Identity", "Dropout", "Flatten", "Reshape", "Cast")
"""Operations that compute nothing here."""


def arcface_onnx(graph: Graph) -> dict[str, torch.Tensor]:
    """Tensors of `IResNet` that compute what the graph does on RGB in [-1, 1], before its last normalisation.

    Args:
        graph: of an ArcFace ResNet; a graph that subtracts 127.5 and scales by itself reads 0..255, which the first
            convolution then undoes.

    Returns:
        State dict of `IResNet`; how many units each stage has follows from its keys.

    Raises:
        WeightsError: another kind of network.
    """
    walk = _Walk(graph)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise WeightsError(
            f"expected an ArcFace graph of one input and one output; got {len(graph.inputs)} and {len(graph.outputs)}."
        )
    at, factor = walk.input_scale(graph.inputs[0].name)
    at = walk.conv(at, "stem.0", "stem.1")
    walk.out["stem.0.weight"] = walk.out["stem.0.weight"] * factor
    at = walk.prelu(at, "stem.2")
    stage, unit = -1, 0
    while walk.is_unit(at):
        opens = len(walk.readers[at]) == 2 and any(node.op == "Conv" for node in walk.readers[at])
        stage, unit = (stage + 1, 0) if opens else (stage, unit + 1)
        at = walk.unit(at, f"stages.{stage}.{unit}")
    walk.head(at)
    return {key: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for key, value in walk.out.items()}


def reads_bytes(graph: Graph) -> bool:
    """Whether the graph subtracts and scales by itself, so that it wants 0..255 (insightface's own rule)."""
    first = [node.op for node in graph.nodes[:8]]
    return "Sub" in first and "Mul" in first


class _Walk:
    """Follows a graph and collects tensors under our names in `out`."""

    def __init__(self, graph: Graph) -> None:
        self.out: dict[str, np.ndarray] = {}
        self.tensors = dict(graph.tensors)
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if node.op == "Constant" and isinstance(node.attributes.get("value"), np.ndarray):
                self.tensors[node.outputs[0]] = node.attributes["value"]
            elif node.op == "Identity" and node.inputs[0] in self.tensors:
                self.tensors[node.outputs[0]] = self.tensors[node.inputs[0]]
            else:
                for name in node.inputs:
                    self.readers[name].append(node)

    def skip(self, at: str) -> str:
        """Moves over operations that compute nothing."""
        while len(self.readers[at]) == 1 and self.readers[at][0].op in SKIPPED:
            at = self.readers[at][0].outputs[0]
        return at

    def next(self, at: str, *ops: str) -> Node | None:
        """The only reader of `at` when it is one of these operations."""
        readers = self.readers[self.skip(at)]
        return readers[0] if len(readers) == 1 and readers[0].op in ops else None

    def expect(self, at: str, *ops: str) -> Node:
        node = self.next(at, *ops)
        if node is None:
            got = ", ".join(reader.op for reader in self.readers[self.skip(at)]) or "the end"
            raise WeightsError(f"expected an ArcFace ResNet: {' or '.join(ops)} behind {at!r}; got {got}.")
        return node

    def tensor(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise WeightsError(f"expected a constant tensor {name!r} in the ArcFace graph; got none.")
        return self.tensors[name].astype(np.float32)

    def input_scale(self, at: str) -> tuple[str, float]:
        """Where the network begins, and the factor of its first convolution for inputs in [-1, 1]."""
        subtract = self.next(at, "Sub")
        if subtract is None:
            return at, 1.0
        multiply = self.expect(subtract.outputs[0], "Mul", "Div")
        shift, value = (float(self.tensor(node.inputs[1]).ravel()[0]) for node in (subtract, multiply))
        if shift != 127.5:
            raise WeightsError(f"expected an ArcFace graph that subtracts 127.5 or nothing; got {shift}.")
        return multiply.outputs[0], 127.5 * (value if multiply.op == "Mul" else 1 / value)

    def conv(self, at: str, name: str, norm: str, node: Node | None = None) -> str:
        """A convolution and the batch norm behind it, which is made where it was folded."""
        node = node or self.expect(at, "Conv")
        self.out[f"{name}.weight"] = self.tensor(node.inputs[1])
        bias = self.tensor(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(self.out[f"{name}.weight"]))
        after = self.next(node.outputs[0], "BatchNormalization")
        if after is not None:
            self.norm(after, norm)
            self.out[f"{norm}.running_mean"] = self.out[f"{norm}.running_mean"] - bias
            return after.outputs[0]
        self.plain_norm(norm, bias)
        return node.outputs[0]

    def plain_norm(self, name: str, bias: np.ndarray) -> None:
        """A batch norm that adds `bias` and changes nothing else."""
        self.out |= {f"{name}.weight": np.ones(len(bias)), f"{name}.bias": bias}
        self.out |= {f"{name}.running_mean": np.zeros(len(bias))}
        self.out |= {f"{name}.running_var": np.full(len(bias), 1 - BATCH_NORM_EPSILON)}

    def norm(self, node: Node, name: str) -> str:
        """A batch norm; another epsilon than torch's goes into the variance."""
        for place, value in zip(("weight", "bias", "running_mean", "running_var"), node.inputs[1:5], strict=True):
            self.out[f"{name}.{place}"] = self.tensor(value)
        epsilon = node.attributes.get("epsilon", 1e-5)
        self.out[f"{name}.running_var"] = self.out[f"{name}.running_var"] + (epsilon - BATCH_NORM_EPSILON)
        return node.outputs[0]

    def prelu(self, at: str, name: str) -> str:
        node = self.expect(at, "PRelu")
        self.out[f"{name}.weight"] = self.tensor(node.inputs[1]).reshape(-1)
        return node.outputs[0]

    def is_unit(self, at: str) -> bool:
        return len(self.readers[at]) == 2

    def unit(self, at: str, name: str) -> str:
        """One residual unit; the name of its sum."""
        inner = [node for node in self.readers[at] if node.op == "BatchNormalization"]
        short = [node for node in self.readers[at] if node.op in ("Conv", "Add")]
        if len(inner) != 1 or len(short) != 1 or name.startswith("stages.-1"):
            ops = ", ".join(node.op for node in self.readers[at])
            raise WeightsError(f"expected an ArcFace unit (BatchNormalization beside Conv or Add); got {ops}.")
        path = self.norm(inner[0], f"{name}.norm1")
        path = self.prelu(self.conv(path, f"{name}.conv1", f"{name}.norm2"), f"{name}.act")
        path = self.conv(path, f"{name}.conv2", f"{name}.norm3")
        if short[0].op == "Conv":
            at = self.conv(at, f"{name}.shortcut_conv", f"{name}.shortcut_norm", short[0])
        total = self.expect(path, "Add")
        if set(total.inputs) != {path, at}:
            raise WeightsError(f"expected an ArcFace unit whose sum joins both its paths; got {total.inputs}.")
        return total.outputs[0]

    def head(self, at: str) -> None:
        """Batch norm, matrix, batch norm; the last may be missing."""
        at = self.norm(self.expect(at, "BatchNormalization"), "norm")
        node = self.expect(at, "Gemm", "MatMul")
        matrix = self.tensor(node.inputs[1])
        transposed = node.op == "Gemm" and node.attributes.get("transB", 0)
        self.out["linear.weight"] = matrix if transposed else matrix.T
        at, bias = node.outputs[0], np.zeros(len(self.out["linear.weight"]))
        if node.op == "Gemm" and len(node.inputs) > 2:
            bias = self.tensor(node.inputs[2])
        elif (add := self.next(at, "Add")) is not None:
            bias, at = self.tensor(next(name for name in add.inputs if name in self.tensors)), add.outputs[0]
        self.out["linear.bias"] = bias
        last = self.next(at, "BatchNormalization")
        if last is None:
            self.plain_norm("norm_out", np.zeros(len(bias)))
        else:
            self.norm(last, "norm_out")
