"""Opens ONNX graphs, and frees their sizes without the onnx package: a few bytes of wire format are rewritten.

Some exported detectors state a fixed example size for input and outputs, and list every weight as an input as well,
which stops the runtime from folding constants. Nothing else of the graph is touched.
Source: onnx.proto3 of the ONNX project (field numbers) and the protocol-buffer wire format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from mattface.errors import DeviceError, WeightsError

MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE_INFO = 5, 11, 12, 13
TENSOR_NAME = 8
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_ELEMENT_TYPE = 1


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """(number, position behind it) of a protocol-buffer number."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    raise WeightsError("expected an ONNX file; the data ends in the middle of a number. Fetch the file again.")


Data = TypeVar("Data", bytes, memoryview)


def read_fields(data: Data) -> Iterator[tuple[int, int | Data, Data]]:
    """Yields (field number, value, raw bytes of the whole field)."""
    at = 0
    while at < len(data):
        key, start = varint(data, at)
        wire = key & 7
        value: int | Data
        if wire == 0:
            value, end = varint(data, start)
        elif wire == 2:
            length, start = varint(data, start)
            end = start + length
            value = data[start:end]
        elif wire in (1, 5):
            end = start + (8 if wire == 1 else 4)
            value = data[start:end]
        else:
            raise WeightsError(f"expected an ONNX file; got protocol-buffer wire type {wire}. Fetch the file again.")
        if end > len(data):
            raise WeightsError("expected a whole ONNX file; a field ends beyond the data. Fetch the file again.")
        yield key >> 3, value, data[at:end]
        at = end


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(field: int, body: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(body)) + body


def _child(data: bytes, field: int) -> bytes:
    for number, value, _ in read_fields(data):
        if number == field and isinstance(value, bytes):
            return value
    raise WeightsError(f"expected an ONNX file; message field {field} is missing. Fetch the file again.")


def _without_sizes(value_info: bytes) -> bytes:
    """The same named value with its element type and no shape."""
    tensor = _child(_child(value_info, VALUE_TYPE), TYPE_TENSOR)
    element = b"".join(raw for number, _, raw in read_fields(tensor) if number == TENSOR_ELEMENT_TYPE)
    name = _message(VALUE_NAME, _child(value_info, VALUE_NAME))
    return name + _message(VALUE_TYPE, _message(TYPE_TENSOR, element))


def _free_graph(graph: bytes) -> bytes:
    parts = list(read_fields(graph))
    tensors = [value for number, value, _ in parts if number == GRAPH_INITIALIZER and isinstance(value, bytes)]
    weights = {_child(tensor, TENSOR_NAME) for tensor in tensors}
    out = []
    for number, value, raw in parts:
        if number in (GRAPH_INPUT, GRAPH_OUTPUT) and isinstance(value, bytes):
            if _child(value, VALUE_NAME) in weights:
                continue
            raw = _message(number, _without_sizes(value))
        if number != GRAPH_VALUE_INFO:
            out.append(raw)
    return b"".join(out)


def free_sizes(model: bytes) -> bytes:
    """Returns the ONNX model with inputs and outputs of any size, and weights no longer listed as inputs.

    Args:
        model: a serialised ONNX ModelProto of IR version 4 or newer.

    Raises:
        WeightsError: the bytes are no ONNX model.
    """
    out, graphs = [], 0
    for number, value, raw in read_fields(model):
        if number == MODEL_GRAPH and isinstance(value, bytes):
            raw = _message(number, _free_graph(value))
            graphs += 1
        out.append(raw)
    if graphs != 1:
        raise WeightsError(f"expected an ONNX model with one graph; got {graphs}. Fetch the file again.")
    return b"".join(out)


def on_cuda() -> bool:
    """Whether the onnxruntime here can use CUDA."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def session(model: bytes | Path, device: str = "cpu") -> Any:
    """An onnxruntime session, quiet, with at most four threads.

    Args:
        model: a serialised ONNX model, or the file that holds one (large ones take half the memory this way).
        device: "cpu", or "cuda", which needs onnxruntime-gpu.

    Raises:
        WeightsError: the bytes are no model that the runtime can open.
        DeviceError: the runtime here cannot use that device.
    """
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device, "")
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"expected a device that this onnxruntime has; got {device!r}. "
            "Take device cpu, or install onnxruntime-gpu in place of onnxruntime."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    options.inter_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # the runtime's own classes derive from Exception directly
        if "onnxruntime" not in type(error).__module__:
            raise
        raise WeightsError(f"expected an ONNX model; the runtime rejects it ({error}). Get the file again.") from error
