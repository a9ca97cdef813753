"""A perceptual distance that needs no download beyond the parts every method needs.

It has the form of LPIPS (Zhang et al. 2018, arXiv 1801.03924, equation 1 without the learned weights): feature maps of
a trained network, scaled to unit length at every position, compared by squared distance. The network is the backbone of
the face detector CenterFace (a MobileNetV2): no method here trains with it, and it takes pictures of any size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from mattface import weights
from mattface.errors import WeightsError

TAPS = ("368", "384", "401", "424")
"""Activations of the backbone at a half, a quarter, an eighth and a sixteenth of the picture's side."""
STRIDE = 32


def feature_distance(result: np.ndarray, truth: np.ndarray, matte: np.ndarray) -> float:
    """Distance of two pictures inside the matte; 0 for equal ones, at most 4.

    Args:
        result, truth: (H, W, 3) uint8, the same outside the matte.
        matte: (H, W) in [0, 1].

    Raises:
        WeightsError: the detector's weights or the package onnx are not here.
    """
    height, width = matte.shape
    pad = ((0, -height % STRIDE), (0, -width % STRIDE))
    maps = [features(np.pad(p, (*pad, (0, 0)), mode="edge")) for p in (result, truth)]
    weight = np.pad(matte.astype(np.float32), pad)
    distance = 0.0
    for a, b in zip(*maps, strict=True):
        small = cv2.resize(weight, a.shape[:0:-1], interpolation=cv2.INTER_AREA)
        apart = ((unit_length(a) - unit_length(b)) ** 2).sum(0)
        distance += float((apart * small).sum() / max(float(small.sum()), 1e-9)) / len(TAPS)
    return distance


def unit_length(maps: np.ndarray) -> np.ndarray:
    """(C, h, w) with every position's vector scaled to length 1."""
    return maps / np.maximum(np.linalg.norm(maps, axis=0, keepdims=True), 1e-6)


def features(rgb: np.ndarray) -> list[np.ndarray]:
    """(H, W, 3) uint8 with sides divisible by 32 -> activations (C, h, w) of `TAPS`."""
    net = backbone()
    image = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)
    return [maps[0] for maps in net.run(list(TAPS), {net.get_inputs()[0].name: image})]


@cache
def backbone() -> Any:
    """The detector's graph with `TAPS` among its outputs."""
    from mattface.weights.onnx_graph import free_sizes, session

    try:
        import onnx
    except ImportError as error:
        raise WeightsError(f"the feature distance needs the package onnx ({error}). Type: pip install onnx") from error
    model = onnx.load_model_from_string(free_sizes(weights.find("centerface").read_bytes()))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TAPS)
    return session(model.SerializeToString())
