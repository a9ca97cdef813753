"""ONNX graphs that are changed as bytes: free sizes, damaged files."""

from __future__ import annotations

import pytest

from mattface.errors import WeightsError
from mattface.weights.onnx_graph import free_sizes, session


def field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2, len(body)]) + body


def tiny_onnx(size: int) -> bytes:
    """A graph y = relu(x) whose x and y are stated to have `size` values."""
    shape = field(2, field(1, b"\x08" + bytes([size])))
    kind = field(2, field(1, b"\x08\x01" + shape))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + kind) + field(12, field(1, b"y") + kind)
    return b"\x08\x07" + field(7, graph) + field(8, b"\x10\x0d")


def test_freed_graph_takes_any_size() -> None:
    import numpy as np

    x = np.array([-1.0, 2.0, 3.0, -4.0, 5.0], np.float32)
    with pytest.raises(Exception, match="invalid dimensions"):
        session(tiny_onnx(3)).run(None, {"x": x})
    assert session(free_sizes(tiny_onnx(3))).run(None, {"x": x})[0].tolist() == [0, 2, 3, 0, 5]


def test_damaged_graphs_are_refused() -> None:
    whole = tiny_onnx(3)
    for length in range(len(whole) - 4):
        with pytest.raises(WeightsError, match="Fetch the file again"):
            free_sizes(whole[:length])
    with pytest.raises(WeightsError, match="refuses it"):
        session(b"no model at all")
