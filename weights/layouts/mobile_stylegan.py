"""MobileStyleGAN as OpenVINO IR -> the names of `mattface.generate.mobile`.

Three changes of form, none of function: scalars beside modulations are folded into their weights; weights, noise and
bias before an activation are divided by the gain of sqrt(2) that ours has; and what is four bands stands as four groups
of channels, where the file has the three high bands of a channel side by side.
"""

from __future__ import annotations

import re

import numpy as np
import torch

from mattface.errors import WeightsError
from mattface.weights.openvino_ir import Layer, Topology

MAPPING_LAYERS = 8
MAPPING_OPS = frozenset(
    {
        *("Add", "Concat", "Const", "Gather", "MatMul", "Multiply", "Parameter", "Power", "PReLU", "ReduceMean"),
        *("Reshape", "Result", "ShapeOf", "Unsqueeze"),
    }
)
SYNTHESIS_OPS = MAPPING_OPS - {"Power", "ReduceMean"} | {
    *("Broadcast", "Convolution", "GroupConvolution", "GroupConvolutionBackpropData", "Squeeze", "Tile"),
    "VariadicSplit",
}
SLOPE = 0.2
GAIN = 2**0.5
"""Of StyleGAN's leaky ReLU."""
LR_MULTIPLIER = 0.01
"""Of `MappingNetwork`, whose weights are scaled when used."""


def mapping_tensors(ir: Topology) -> dict[str, torch.Tensor]:
    """The mapping network's tensors under the names of `mattface.generate.mapping`, without the average style.

    Raises:
        WeightsError: another network.
    """
    _check_ops(ir, MAPPING_OPS)
    products = [layer for layer in ir.layers.values() if layer.kind == "MatMul"]
    if len(products) != MAPPING_LAYERS:
        raise WeightsError(f"expected {MAPPING_LAYERS} layers of a mapping network; got {len(products)}.")
    out: dict[str, torch.Tensor] = {}
    for i, product in enumerate(products):
        weight, bias = ir.operand(product), ir.operand(_before(ir, ir.next(product.id, "Add"), "Reshape"))
        weight = weight if product.attributes.get("transpose_b") == "true" else weight.T
        out[f"fc{i}.weight"] = _tensor(weight) * (weight.shape[1] ** 0.5 / LR_MULTIPLIER)
        out[f"fc{i}.bias"] = _tensor(bias).flatten() / LR_MULTIPLIER
    return out


def synthesis_tensors(ir: Topology) -> dict[str, torch.Tensor]:
    """The synthesis network's tensors under our names.

    Raises:
        WeightsError: another network.
    """
    _check_ops(ir, SYNTHESIS_OPS)
    blocks = sum(bool(re.fullmatch(r"m\.layers\.\d+\.up\.modulation\.weight", x.name)) for x in ir.layers.values())
    if not blocks:
        raise WeightsError("expected MobileStyleGAN; its OpenVINO IR has no blocks. Get the file again.")
    out = {"const": _tensor(_constant(ir, "m.input.input"))[0]}
    out |= _styled(ir, "m.conv1", "first")
    for i in range(blocks):
        out |= _modulation(ir, f"m.layers.{i}.up.modulation", f"blocks.{i}.up")
        out |= _styled(ir, f"m.layers.{i}.conv1", f"blocks.{i}.conv1")
        out |= _styled(ir, f"m.layers.{i}.conv2", f"blocks.{i}.conv2")
    last = f"m.layers.{blocks - 1}.to_img"
    out |= _modulation(ir, f"{last}.conv.modulation", "to_rgb.affine")
    out["to_rgb.weight"] = _banded(_tensor(_constant(ir, f"{last}.conv.weight")))
    out["to_rgb.bias"] = _banded(_tensor(_constant(ir, f"{last}.bias")).flatten())
    for block in ("first", *(f"blocks.{i}.conv2" for i in range(blocks - 1))):  # whose maps are transformed next
        out |= {f"{block}.{key}": _banded(out[f"{block}.{key}"]) for key in ("weight", "bias")}
    for i in range(blocks):
        out |= {f"blocks.{i}.up.{key}": _banded(out[f"blocks.{i}.up.{key}"]) for key in ("weight", "bias")}
    return out


def _banded(values: torch.Tensor) -> torch.Tensor:
    """Rows C low, then three high per channel -> four groups of C rows."""
    c = len(values) // 4
    return torch.cat((values[:c], values[c:].unflatten(0, (c, 3)).transpose(0, 1).flatten(0, 1)))


def _check_ops(ir: Topology, known: frozenset[str]) -> None:
    unknown = sorted({layer.kind for layer in ir.layers.values()} - known)
    if unknown:
        raise WeightsError(f"expected MobileStyleGAN; its OpenVINO IR has unknown ops {unknown}. Get the file again.")


def _styled(ir: Topology, theirs: str, ours: str) -> dict[str, torch.Tensor]:
    """A styled convolution: modulation, weights, noise image and bias."""
    out = _modulation(ir, f"{theirs}.conv.modulation", f"{ours}.affine")
    bias = ir.named(f"{theirs}.bias")
    added = ir.next(bias, "Add")  # ((convolution + noise) + bias)
    noisy = ir.layers[added.inputs[0]]
    convolution = ir.layers[noisy.inputs[0]]
    if noisy.kind != "Add" or convolution.kind != "Convolution":
        raise WeightsError(f"expected convolution, noise and bias at {theirs!r}; got another network.")
    slope = ir.operand(ir.next(added.id, "PReLU"))
    if not np.allclose(slope, SLOPE):
        raise WeightsError(f"expected a slope of {SLOPE} at {theirs!r}; got {slope.flatten()[:1]}.")
    out[f"{ours}.weight"] = _tensor(ir.operand(convolution)) / GAIN
    out[f"{ours}.noise"] = _tensor(ir.operand(noisy))[0, 0] / GAIN
    out[f"{ours}.bias"] = _tensor(ir.constants[bias]).flatten() / GAIN
    depthwise = ir.layers[convolution.inputs[0]]
    if depthwise.kind == "GroupConvolution":
        out[f"{ours}.depthwise"] = _tensor(ir.operand(depthwise))[:, :, 0]
    return out


def _modulation(ir: Topology, theirs: str, ours: str) -> dict[str, torch.Tensor]:
    """Weight and bias of a modulation, times the scalar that follows where there is one."""
    product = ir.next(ir.named(f"{theirs}.weight"), "MatMul")
    added = ir.next(product.id, "Add")
    scaled = ir.next(ir.next(added.id, "Reshape").id, "Multiply")
    scalar = [ir.constants[i] for i in scaled.inputs if i in ir.constants]
    if scalar and scalar[0].size != 1:
        raise WeightsError(f"expected a scalar after {theirs!r}; got shape {scalar[0].shape}.")
    factor = float(scalar[0].flatten()[0]) if scalar else 1.0
    return {
        f"{ours}.weight": _tensor(ir.operand(product)) * factor,
        f"{ours}.bias": _tensor(ir.operand(added)).flatten() * factor,
    }


def _before(ir: Topology, layer: Layer, kind: str) -> Layer:
    """The one layer of a kind that feeds a layer."""
    found = [ir.layers[i] for i in layer.inputs if ir.layers[i].kind == kind]
    if len(found) != 1:
        raise WeightsError(f"expected one {kind} into {layer.name!r}; got {len(found)}. This is another network.")
    return found[0]


def _constant(ir: Topology, name: str) -> np.ndarray:
    number = ir.named(name)
    if number not in ir.constants:
        raise WeightsError(f"expected a constant {name!r} in the OpenVINO IR; got {ir.layers[number].kind}.")
    return ir.constants[number]


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))
