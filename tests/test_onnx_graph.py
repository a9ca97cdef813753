"""ONNX graphs that are changed as bytes: free sizes, damaged files."""

from __future__ import annotations

import pytest
from hostile import tiny_onnx

from mattface.errors import WeightsError
from mattface.weights.onnx_graph import free_sizes, session


def test_freed_graph_takes_any_size() -> None:
    import numpy as np

    x = np.array([-1.0, 2.0, 3.0, -4.0, 5.0], np.float32)
    with pytest.raises(Exception, match="invalid dimensions"):
        session(tiny_onnx(3)).run(None, {"x": x})
    assert session(free_sizes(tiny_onnx(3))).run(None, {"x": x})[0].tolist() == [0, 2, 3, 0, 5]


def test_damaged_graphs_are_rejected() -> None:
    whole = tiny_onnx(3)
    for length in range(len(whole) - 4):
        with pytest.raises(WeightsError, match="Fetch the file again"):
            free_sizes(whole[:length])
    with pytest.raises(WeightsError, match="rejects it"):
        session(b"no model at all")
