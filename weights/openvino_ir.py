"""Reads an OpenVINO IR pair (.xml topology, .bin numbers) without OpenVINO; nothing is executed.

Constants are views of the .bin file's own bytes, so that no size in the topology decides how much memory is asked for.
Source: OpenVINO's documentation of IR version 10 (opset1: layers, edges, and Const with offset and size).
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mattface.errors import WeightsError

LARGEST_TOPOLOGY = 16 << 20
"""Bytes of an .xml file that are parsed."""
LAYERS = 100_000
NUMBERS = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "u8": "|u1", "i8": "|i1"}
"""Element type -> NumPy."""


@dataclass(frozen=True)
class Layer:
    """One operation.

    Attributes:
        id: unique number.
        name: as exported.
        kind: "MatMul", "Const" and so on.
        inputs: ids of the layers that feed it, by port.
        attributes: as written.
    """

    id: int
    name: str
    kind: str
    inputs: tuple[int, ...]
    attributes: dict[str, str]


@dataclass(frozen=True)
class Topology:
    """A model.

    Attributes:
        layers: by id, in the file's order, which is a topological one.
        constants: id of a Const -> its values, a read-only view.
    """

    layers: dict[int, Layer]
    constants: dict[int, np.ndarray]

    def named(self, name: str) -> int:
        """Id of the layer of that name.

        Raises:
            WeightsError: none or several.
        """
        found = [layer.id for layer in self.layers.values() if layer.name == name]
        if len(found) != 1:
            raise WeightsError(f"expected one layer {name!r} in the OpenVINO IR; got {len(found)}. Get the file again.")
        return found[0]

    def users(self, of: int) -> list[Layer]:
        """Layers that read a layer, in order."""
        return [layer for layer in self.layers.values() if of in layer.inputs]

    def next(self, of: int, kind: str) -> Layer:
        """The one layer of a kind that reads a layer.

        Raises:
            WeightsError: none or several.
        """
        found = [layer for layer in self.users(of) if layer.kind == kind]
        if len(found) != 1:
            raise WeightsError(
                f"expected one {kind} after {self.layers[of].name!r} in the OpenVINO IR; got {len(found)}. "
                "This is another network."
            )
        return found[0]

    def operand(self, layer: Layer) -> np.ndarray:
        """The one constant among a layer's inputs.

        Raises:
            WeightsError: none or several.
        """
        found = [self.constants[i] for i in layer.inputs if i in self.constants]
        if len(found) != 1:
            raise WeightsError(f"expected one constant into {layer.name!r}; got {len(found)}. This is another network.")
        return found[0]


def read_topology(xml: bytes, data: bytes | memoryview) -> Topology:
    """Parses a topology and the numbers beside it.

    Args:
        xml: the .xml file.
        data: the .bin file.

    Raises:
        WeightsError: no IR, damaged, or constants that reach beyond the data.
    """
    if re.search(rb"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise WeightsError("expected an OpenVINO IR; this XML declares entities, which no IR does. Get the file again.")
    try:
        if len(xml) > LARGEST_TOPOLOGY:
            raise ValueError(f"{len(xml)} bytes, at most {LARGEST_TOPOLOGY} are read")
        root = ElementTree.fromstring(xml)
        return _topology(root, memoryview(data))
    except (ElementTree.ParseError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"expected an OpenVINO IR; its topology is damaged ({error}). Get the file again."
        ) from error


def _topology(root: ElementTree.Element, data: memoryview) -> Topology:
    listed, edges = root.find("layers"), root.find("edges")
    if root.tag != "net" or listed is None or edges is None:
        raise ValueError("no <net> with layers and edges")
    if len(listed) > LAYERS or len(edges) > 4 * LAYERS:
        raise ValueError(f"{len(listed)} layers and {len(edges)} edges")
    inputs: dict[int, list[tuple[int, int]]] = {}
    for edge in edges:
        start, port, end = (int(edge.attrib[key]) for key in ("from-layer", "to-port", "to-layer"))
        inputs.setdefault(end, []).append((port, start))
    layers, constants = {}, {}
    for element in listed:
        number, attributes = int(element.attrib["id"]), element.attrib
        fed = tuple(start for _, start in sorted(inputs.get(number, ())))
        said = element.find("data")
        layers[number] = Layer(
            number, attributes["name"], attributes["type"], fed, {} if said is None else dict(said.attrib)
        )
        if attributes["type"] == "Const":
            constants[number] = _constant(element, data)
    missing = {start for fed in inputs.values() for _, start in fed} | set(inputs)
    if missing - set(layers):
        raise ValueError("edges between layers that are not there")
    return Topology(layers, constants)


def _constant(element: ElementTree.Element, data: memoryview) -> np.ndarray:
    found = element.find("data")
    if found is None:
        raise ValueError(f"constant {element.attrib['name']!r:.80} without data")
    said = found.attrib
    dtype = np.dtype(NUMBERS[said["element_type"]])
    shape = tuple(_sizes(said.get("shape", "")))
    offset, size = int(said["offset"]), int(said["size"])
    if min((offset, size, *shape)) < 0 or size != math.prod(shape) * dtype.itemsize or offset + size > len(data):
        raise ValueError(f"constant {element.attrib['name']!r:.80} of {size} bytes at {offset} does not fit")
    return np.frombuffer(data[offset : offset + size], dtype).reshape(shape)


def _sizes(text: str) -> Iterator[int]:
    return (int(part) for part in text.split(",") if part.strip())
