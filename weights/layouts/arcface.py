"""ArcFace ResNets of insightface: arcface_torch's names, and the copy with folded batch norms that AlphaFace uses."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from mattface.weights.layouts.renaming import Rule, State, rename
from mattface.weights.layouts.shapes import Shapes, batch_norm, conv, linear, prelu

BATCH_NORM_EPSILON = 1e-5
"""What torch's batch normalisation adds to the variance by default."""
UNITS_50, UNITS_100 = (3, 4, 14, 3), (3, 13, 30, 3)
"""Residual units of the four stages."""
WIDTHS = (64, 128, 256, 512)


def arcface_torch(state: State) -> dict[str, torch.Tensor]:
    """Backbone of arcface_torch (any number of units) -> `IResNet`."""
    unit = {"bn1": "norm1", "bn2": "norm2", "bn3": "norm3", "conv1": "conv1", "conv2": "conv2", "prelu": "act"}
    unit |= {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_norm"}
    ends = {"conv1": "stem.0", "bn1": "stem.1", "prelu": "stem.2"}
    ends |= {"bn2": "norm", "fc": "linear", "features": "norm_out"}
    rules: list[Rule] = [
        (
            r"layer([1-4])\.(\d+)\.(bn[123]|conv[12]|prelu|downsample\.[01])\.(\w+)",
            lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.{unit[m[3]]}.{m[4]}",
        ),
        (r"(conv1|bn1|prelu|bn2|fc|features)\.(\w+)", lambda m: f"{ends[m[1]]}.{m[2]}"),
    ]
    return rename(state, rules, [], "arcface_torch backbone")


def folded_arcface(state: State) -> dict[str, torch.Tensor]:
    """AlphaFace's copy of the ArcFace w600k ResNet-50, whose batch norms behind convolutions are folded -> `IResNet`.

    A folded convolution's bias becomes the bias of a batch norm that otherwise changes nothing.
    """
    norms = {"conv1": "norm2", "conv2": "norm3", "downsample": "shortcut_norm"}
    unit = {"bn1": "norm1", "conv1": "conv1", "conv2": "conv2", "prelu": "act", "downsample": "shortcut_conv"}
    ends = {"conv1": "stem.0", "prelu": "stem.2", "bn2": "norm", "fc5": "linear", "bn3": "norm_out"}
    layer = r"layer([1-4])\.(\d+)\."
    rules: list[Rule] = [
        (r"conv1\.bias", "stem.1.bias"),
        (
            layer + r"(conv[12]|downsample)\.bias",
            lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.{norms[m[3]]}.bias",
        ),
        (
            layer + r"(bn1|conv[12]|prelu|downsample)\.(\w+)",
            lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.{unit[m[3]]}.{m[4]}",
        ),
        (r"(conv1|prelu|bn2|fc5|bn3)\.(\w+)", lambda m: f"{ends[m[1]]}.{m[2]}"),
    ]
    ours = rename(state, rules, [], "folded ArcFace")
    for key in [key for key in ours if re.search(r"(stem\.1|norm2|norm3|shortcut_norm)\.bias$", key)]:
        bias, place = ours[key], key.removesuffix("bias")
        ours[f"{place}weight"], ours[f"{place}running_mean"] = torch.ones_like(bias), torch.zeros_like(bias)
        ours[f"{place}running_var"] = torch.full_like(bias, 1 - BATCH_NORM_EPSILON)
    return ours


def arcface_shapes(units: Sequence[int] = UNITS_50) -> Shapes:
    """Every key and shape of an arcface_torch backbone."""
    out = conv("conv1", 64, 3) | batch_norm("bn1", 64) | prelu("prelu", 64)
    before = 64
    for stage, (width, count) in enumerate(zip(WIDTHS, units, strict=True), start=1):
        for index in range(count):
            unit = f"layer{stage}.{index}"
            out |= batch_norm(f"{unit}.bn1", before) | conv(f"{unit}.conv1", width, before)
            out |= batch_norm(f"{unit}.bn2", width) | prelu(f"{unit}.prelu", width)
            out |= conv(f"{unit}.conv2", width, width) | batch_norm(f"{unit}.bn3", width)
            if index == 0:
                out |= conv(f"{unit}.downsample.0", width, before, 1) | batch_norm(f"{unit}.downsample.1", width)
            before = width
    return out | batch_norm("bn2", 512) | linear("fc", 512, 512 * 7 * 7) | batch_norm("features", 512)


def folded_arcface_shapes(units: Sequence[int] = UNITS_50) -> Shapes:
    """Every key and shape of arcface_w600k_r50_pytorch.pt."""
    out = conv("conv1", 64, 3, bias=True) | prelu("prelu", 64)
    before = 64
    for stage, (width, count) in enumerate(zip(WIDTHS, units, strict=True), start=1):
        for index in range(count):
            unit = f"layer{stage}.{index}"
            out |= batch_norm(f"{unit}.bn1", before) | conv(f"{unit}.conv1", width, before, bias=True)
            out |= conv(f"{unit}.conv2", width, width, bias=True) | prelu(f"{unit}.prelu", width)
            if index == 0:
                out |= conv(f"{unit}.downsample", width, before, 1, bias=True)
            before = width
    return out | batch_norm("bn2", 512) | linear("fc5", 512, 512 * 7 * 7) | batch_norm("bn3", 512)
