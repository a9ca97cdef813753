"""Reads the nodes and tensors of an ONNX file without the onnx package; nothing is executed.

Tensors are views of the file's own bytes, so that no size in the file decides how much memory is asked for.
Source: onnx.proto3 of the ONNX project (field numbers) and the protocol-buffer wire format.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mattface.errors import WeightsError
from mattface.weights.onnx_graph import GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, MODEL_GRAPH, read_fields, varint

GRAPH_NODE = 1
NUMBERS: dict[int, str] = {1: "<f4", 10: "<f2", 11: "<f8", 6: "<i4", 7: "<i8", 3: "|i1", 2: "|u1", 9: "|b1"}
"""TensorProto.DataType -> NumPy."""
TYPED_DATA = {4: "<f4", 10: "<f8"}
"""TensorProto fields that hold packed numbers of fixed width when there is no raw data."""


@dataclass(frozen=True)
class Value:
    """An input or output.

    Attributes:
        name: in the graph.
        shape: sizes; -1 where any size is allowed.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operation: its type, the names of what it reads and writes, and its attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """A model.

    Attributes:
        inputs: without the weights that some exporters list there.
        outputs: in order.
        nodes: in the file's order, which is a topological one.
        tensors: initialisers by name, in the file's order.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    tensors: dict[str, np.ndarray]


def open_graph(path: Path) -> Graph:
    """The graph in a file, which is mapped rather than read: tensors are views of it.

    Raises:
        WeightsError: see `read_graph`; or the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return read_graph(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise WeightsError(f"expected an ONNX file; {path} cannot be read ({error}). Get it again.") from error


def read_graph(model: bytes | memoryview) -> Graph:
    """Parses a serialised ONNX ModelProto.

    Raises:
        WeightsError: no ONNX model, damaged, or with its tensors in other files.
    """
    graphs = [value for number, value in _messages(memoryview(model)) if number == MODEL_GRAPH]
    if len(graphs) != 1:
        raise WeightsError(f"expected an ONNX model with one graph; got {len(graphs)}. Fetch the file again.")
    tensors: dict[str, np.ndarray] = {}
    nodes, inputs, outputs = [], [], []
    for number, value in _messages(graphs[0]):
        if number == GRAPH_INITIALIZER:
            name, array = _tensor(value)
            tensors[name] = array
        elif number == GRAPH_NODE:
            nodes.append(_node(value))
        elif number == GRAPH_INPUT:
            inputs.append(_value(value))
        elif number == GRAPH_OUTPUT:
            outputs.append(_value(value))
    free = tuple(value for value in inputs if value.name not in tensors)
    return Graph(free, tuple(outputs), tuple(nodes), tensors)


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, body) of every field that has a body."""
    for number, value, _ in read_fields(data):
        if not isinstance(value, int):
            yield number, memoryview(value)


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError("expected an ONNX file; a name in it is no text. Fetch the file again.") from error


def _numbers(value: int | memoryview) -> list[int]:
    """A repeated integer field: one number, or several packed into a body. Negative ones come as 64-bit complements."""
    if isinstance(value, int):
        values = [value]
    else:
        values, at = [], 0
        while at < len(value):
            number, at = varint(value, at)
            values.append(number)
    return [number - (1 << 64) if number >> 63 else number for number in values]


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    """(name, array) of a TensorProto; the array is a view of the file's bytes."""
    dims: list[int] = []
    kind, name, raw = 1, "", memoryview(b"")
    whole: list[int] = []
    code = ""
    for number, value, _ in read_fields(data):
        if number == 1:
            dims += _numbers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (5, 7):
            whole += _numbers(value)
        elif not isinstance(value, int):
            if number == 8:
                name = _text(value)
            elif number == 9:
                raw = memoryview(value)
            elif number in TYPED_DATA:
                raw, code = memoryview(value), TYPED_DATA[number]
            elif number == 13:
                raise WeightsError("expected one whole ONNX file; this one keeps tensors in others. Export it so.")
    code = code or NUMBERS.get(kind, "")
    if not code:
        raise WeightsError(f"ONNX tensor {name!r}: expected floats or integers; got data type {kind}.")
    if whole:
        return name, _shaped(np.array(whole, np.int64), dims, name)
    if len(raw) % np.dtype(code).itemsize:
        raise WeightsError(f"ONNX tensor {name!r}: its data ends inside a number. Fetch the file again.")
    return name, _shaped(np.frombuffer(raw, code), dims, name)


def _shaped(values: np.ndarray, dims: list[int], name: str) -> np.ndarray:
    if min(dims, default=0) < 0 or math.prod(dims) != values.size:
        raise WeightsError(f"ONNX tensor {name!r}: shape {dims} does not fit its {values.size} numbers.")
    return values.reshape(dims)


def _node(data: memoryview) -> Node:
    inputs, outputs, op, attributes = [], [], "", {}
    for number, value in _messages(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 5:
            name, what = _attribute(value)
            attributes[name] = what
    return Node(op, tuple(inputs), tuple(outputs), attributes)


def _attribute(data: memoryview) -> tuple[str, Any]:
    """(name, number, list of integers, tensor or bytes) of an AttributeProto; graphs are left out."""
    name = ""
    what: Any = None
    several: list[int] = []
    for number, value, _ in read_fields(data):
        if number == 3 and isinstance(value, int):
            what = _numbers(value)[0]
        elif number == 8:
            several += _numbers(value)
        elif isinstance(value, int):
            continue
        elif number == 1:
            name = _text(value)
        elif number == 2:
            what = float(np.frombuffer(value, "<f4")[0])
        elif number == 4:
            what = bytes(value)
        elif number == 5:
            what = _tensor(memoryview(value))[1]
    return name, several or what


def _value(data: memoryview) -> Value:
    """A ValueInfoProto of a tensor."""
    name, shape = "", []
    for number, value in _messages(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for tensor in _bodies(value, 1):
                for dims in _bodies(tensor, 2):
                    shape += [_size(dim) for dim in _bodies(dims, 1)]
    return Value(name, tuple(shape))


def _bodies(data: memoryview, wanted: int) -> list[memoryview]:
    return [value for number, value in _messages(data) if number == wanted]


def _size(dim: memoryview) -> int:
    """A dimension's size, -1 when it is free."""
    for number, value, _ in read_fields(dim):
        if number == 1 and isinstance(value, int) and 0 < value < 1 << 31:
            return value
    return -1
