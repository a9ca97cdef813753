"""A tiny MobileStyleGAN as OpenVINO IR, and the picture that its own layout means, computed without our networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

WIDTHS = (16, 16, 8)
"""Channels at 4, 8 and 16 px; the picture has 32."""
STYLE = 6


@dataclass
class Writer:
    """Collects layers, edges and numbers."""

    layers: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, kind: str, name: str, *inputs: int, attributes: str = "") -> int:
        """A layer; gives its id."""
        number = len(self.layers)
        self.layers.append(f'<layer id="{number}" name="{name}" type="{kind}"><data {attributes}/></layer>')
        self.edges += [
            f'<edge from-layer="{start}" from-port="0" to-layer="{number}" to-port="{port}"/>'
            for port, start in enumerate(inputs)
        ]
        return number

    def const(self, name: str, values: np.ndarray) -> int:
        """A constant of float32; gives its id."""
        values = np.asarray(values, "<f4")
        self.constants[name] = values
        shape = ", ".join(map(str, values.shape))
        said = f'element_type="f32" shape="{shape}" offset="{len(self.data)}" size="{values.nbytes}"'
        self.data += values.tobytes()
        return self.add("Const", name, attributes=said)

    def xml(self) -> bytes:
        """The topology."""
        body = f"<layers>{''.join(self.layers)}</layers><edges>{''.join(self.edges)}</edges>"
        return f'<?xml version="1.0"?><net name="tiny" version="10">{body}</net>'.encode()


def write_tiny(seed: int = 0) -> tuple[bytes, bytes, dict[str, np.ndarray]]:
    """(.xml, .bin, constants by name) of a synthesis network of `WIDTHS`."""
    rng, ir = np.random.default_rng(seed), Writer()
    style = ir.add("Parameter", "style")

    def modulation(name: str, channels: int, scale: float | None) -> int:
        weight = ir.const(f"{name}.weight", rng.normal(size=(channels, STYLE)) / STYLE)
        bias = ir.const(f"{name}.bias", 1 + 0.1 * rng.normal(size=(1, channels)))
        product = ir.add("MatMul", f"{name}.product", style, weight, attributes='transpose_b="true"')
        shaped = ir.add("Reshape", f"{name}.shaped", ir.add("Add", f"{name}.sum", product, bias))
        if scale is None:
            return ir.add("Multiply", f"{name}.times", shaped, style)
        return ir.add("Multiply", f"{name}.times", shaped, ir.const(f"{name}.scale", np.full((1, 1, 1, 1), scale)))

    def styled(name: str, inputs: int, outputs: int, side: int, dense: bool = False) -> None:
        x = modulation(f"{name}.conv.modulation", inputs, 0.7)
        if not dense:
            kernel = ir.const(f"{name}.conv.weight_dw", rng.normal(size=(inputs, 1, 1, 3, 3)) / 3)
            x = ir.add("GroupConvolution", f"{name}.depthwise", x, kernel)
        shape = (outputs, inputs, 3, 3) if dense else (outputs, inputs, 1, 1)
        weight = ir.const(f"{name}.folded", rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5)
        x = ir.add("Convolution", f"{name}.convolution", x, weight)
        x = ir.add("Add", f"{name}.noisy", x, ir.const(f"{name}.noise", 0.1 * rng.normal(size=(1, 1, side, side))))
        x = ir.add("Add", f"{name}.biased", x, ir.const(f"{name}.bias", 0.1 * rng.normal(size=(1, outputs, 1, 1))))
        ir.add("PReLU", f"{name}.act", x, ir.const(f"{name}.slope", np.full(1, 0.2)))

    ir.const("m.input.input", rng.normal(size=(1, WIDTHS[0], 4, 4)))
    styled("m.conv1", WIDTHS[0], WIDTHS[0], 4, dense=True)
    for i, (before, after) in enumerate(pairwise(WIDTHS)):
        modulation(f"m.layers.{i}.up.modulation", before, None)
        styled(f"m.layers.{i}.conv1", before // 4, after, 8 << i)
        styled(f"m.layers.{i}.conv2", after, after, 8 << i)
    last = f"m.layers.{len(WIDTHS) - 2}.to_img"
    modulation(f"{last}.conv.modulation", WIDTHS[-1], 0.5)
    ir.const(f"{last}.conv.weight", rng.normal(size=(12, WIDTHS[-1], 1, 1)) / WIDTHS[-1] ** 0.5)
    ir.const(f"{last}.bias", 0.1 * rng.normal(size=(1, 12, 1, 1)))
    return ir.xml(), bytes(ir.data), ir.constants


def haar(x: torch.Tensor) -> torch.Tensor:
    """The file's own transform: transposed convolutions of C low bands and 3 C high ones, three to a channel."""
    c = x.shape[1] // 4
    bands = torch.cat((x[:, :c, None], x[:, c:].unflatten(1, (c, 3))), 2).flatten(0, 1)  # (B C, 4, H, W)
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) * 0.5**0.5
    kernels = torch.stack([torch.outer(h[i], h[j]) for j in (0, 1) for i in (0, 1)])[:, None]
    return F.conv_transpose2d(bands, kernels, stride=2).unflatten(0, (len(x), c))[:, :, 0]


def draw_tiny(constants: dict[str, np.ndarray], w_plus: torch.Tensor) -> torch.Tensor:
    """(1, L, STYLE) styles to the picture (1, 3, 32, 32), from the file's constants."""
    k = {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}

    def modulate(x: torch.Tensor, name: str, w: torch.Tensor) -> torch.Tensor:
        style = w @ k[f"{name}.weight"].t() + k[f"{name}.bias"]
        return x * (style * k.get(f"{name}.scale", torch.ones(1)).flatten())[:, :, None, None]

    def styled(x: torch.Tensor, name: str, w: torch.Tensor) -> torch.Tensor:
        x = modulate(x, f"{name}.conv.modulation", w)
        if f"{name}.conv.weight_dw" in k:
            x = F.conv2d(x, k[f"{name}.conv.weight_dw"][:, :, 0], padding=1, groups=x.shape[1])
        weight = k[f"{name}.folded"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.leaky_relu(x + k[f"{name}.noise"] + k[f"{name}.bias"], 0.2)

    x = styled(k["m.input.input"], "m.conv1", w_plus[:, 0])
    for i in range(len(WIDTHS) - 1):
        first, second = w_plus[:, 1 + 2 * i], w_plus[:, 2 + 2 * i]
        x = haar(modulate(x, f"m.layers.{i}.up.modulation", first))
        x = styled(styled(x, f"m.layers.{i}.conv1", first), f"m.layers.{i}.conv2", second)
    last = f"m.layers.{len(WIDTHS) - 2}.to_img"
    x = modulate(x, f"{last}.conv.modulation", w_plus[:, 2 * len(WIDTHS) - 1])
    return haar(F.conv2d(x, k[f"{last}.conv.weight"]) + k[f"{last}.bias"])
