"""Networks that read a face: BiSeNet's parsing and Deep3DFaceRecon's coefficients.

Our modules bear the names of the public files; what is left out are heads that only training uses.
"""

from __future__ import annotations

import torch

from mattface.weights.layouts.renaming import Rule, State, rename
from mattface.weights.layouts.shapes import Shapes, batch_norm, below, conv

HEADS_3D = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of Deep3DFaceRecon: identity, expression, texture, angles, light, translation x and y, translation z."""


def bisenet(state: State) -> dict[str, torch.Tensor]:
    """79999_iter.pth -> `BiSeNet`; the two training heads are left out."""
    rules: list[Rule] = [(r"((?:cp|ffm|conv_out)\..+)", r"\1")]
    return rename(state, rules, [r"conv_out(16|32)\..+"], "face-parsing BiSeNet")


def deep3d(state: State) -> dict[str, torch.Tensor]:
    """`net_recon` of Deep3DFaceRecon's epoch_20.pth -> `FaceRegressor`."""
    rules: list[Rule] = [(r"(backbone\..+)", r"\1"), (r"final_layers\.(\d+)\.(weight|bias)", r"heads.\1.\2")]
    return rename(state, rules, [], "Deep3DFaceRecon")


def resnet50_shapes() -> Shapes:
    """torchvision's ResNet-50 without its classifier (He et al., 2016)."""
    out = conv("conv1", 64, 3, 7) | batch_norm("bn1", 64)
    before = 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
        for index in range(count):
            unit, inputs = f"layer{stage}.{index}", before
            for k, (channels, kernel) in enumerate(((width, 1), (width, 3), (4 * width, 1)), start=1):
                out |= conv(f"{unit}.conv{k}", channels, inputs, kernel) | batch_norm(f"{unit}.bn{k}", channels)
                inputs = channels
            if index == 0:
                out |= conv(f"{unit}.downsample.0", 4 * width, before, 1)
                out |= batch_norm(f"{unit}.downsample.1", 4 * width)
            before = 4 * width
    return out


def deep3d_shapes() -> Shapes:
    """Every key and shape of `net_recon`."""
    out = below("backbone", resnet50_shapes())
    for index, outputs in enumerate(HEADS_3D):
        out |= conv(f"final_layers.{index}", outputs, 2048, 1, bias=True)
    return out


def bisenet_shapes() -> Shapes:
    """Every key and shape of 79999_iter.pth."""
    out = below("cp.resnet", _resnet18_shapes())
    for name, before in (("16", 256), ("32", 512)):
        place = f"cp.arm{name}"
        out |= _conv_norm(f"{place}.conv", 128, before, 3) | conv(f"{place}.conv_atten", 128, 128, 1)
        out |= batch_norm(f"{place}.bn_atten", 128)
    out |= _conv_norm("cp.conv_head32", 128, 128, 3) | _conv_norm("cp.conv_head16", 128, 128, 3)
    out |= _conv_norm("cp.conv_avg", 128, 512, 1) | _conv_norm("ffm.convblk", 256, 256, 1)
    out |= conv("ffm.conv1", 64, 256, 1) | conv("ffm.conv2", 256, 64, 1)
    for name, before, middle in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        out |= _conv_norm(f"{name}.conv", middle, before, 3) | conv(f"{name}.conv_out", 19, middle, 1)
    return out


def _conv_norm(name: str, channels: int, before: int, kernel: int) -> Shapes:
    return conv(f"{name}.conv", channels, before, kernel) | batch_norm(f"{name}.bn", channels)


def _resnet18_shapes() -> Shapes:
    out = conv("conv1", 64, 3, 7) | batch_norm("bn1", 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for index in range(2):
            unit = f"layer{stage}.{index}"
            out |= conv(f"{unit}.conv1", width, before) | batch_norm(f"{unit}.bn1", width)
            out |= conv(f"{unit}.conv2", width, width) | batch_norm(f"{unit}.bn2", width)
            if before != width:
                out |= conv(f"{unit}.downsample.0", width, before, 1) | batch_norm(f"{unit}.downsample.1", width)
            before = width
    return out
