"""AlphaFace's public swapper."""

from __future__ import annotations

import torch

from mattface.weights.layouts.renaming import Rule, State, rename
from mattface.weights.layouts.shapes import Shapes, conv, joined, linear


def alphaface_swapper(state: State) -> dict[str, torch.Tensor]:
    """AlphaFace's public swapper (`swapper` of its checkpoint) -> the network of `alphaface`."""
    last = {"Conv6_new": "to_rgb"} | {f"Conv{k + 1}{'_new' if k > 2 else ''}": f"convs.{k}" for k in range(5)}
    unit = {"Conv1": "conv", "IFF.fc": "style"}
    rules: list[Rule] = [
        (r"E\.Encoder\.layer_(\d+)\.0\.(weight|bias)", r"encoder.convs.\1.\2"),
        (
            r"E\.fusion_module\.fusion_layer_(\d+)\.OP([12])\.(Conv1|IFF\.fc)\.(weight|bias)",
            lambda m: f"inject.{m[1]}.{('first', 'second')[int(m[2]) - 1]}.{unit[m[3]]}.{m[4]}",
        ),
        (r"G\.(Conv[123]|Conv[456]_new)\.(weight|bias)", lambda m: f"decoder.{last[m[1]]}.{m[2]}"),
    ]
    return rename(state, rules, [], "AlphaFace swapper")


def alphaface_shapes() -> Shapes:
    """Every key and shape of `swapper` in alphaface_demo.pt."""
    widths = (3, 128, 256, 512, 1024)
    encoder = [
        conv(f"E.Encoder.layer_{k}.0", widths[k + 1], widths[k], 7 if k == 0 else 3, bias=True) for k in range(4)
    ]
    out = joined(encoder)
    for block in range(6):
        for unit in ("OP1", "OP2"):
            place = f"E.fusion_module.fusion_layer_{block}.{unit}"
            out |= conv(f"{place}.Conv1", 1024, 1024, 3, bias=True) | linear(f"{place}.IFF.fc", 2048, 512)
    names = ("Conv1", "Conv2", "Conv3", "Conv4_new", "Conv5_new", "Conv6_new")
    decoder = (1024, 512, 256, 128, 128, 128, 3)
    for k, name in enumerate(names):
        out |= conv(f"G.{name}", decoder[k + 1], decoder[k], 5 if name == "Conv6_new" else 3, bias=True)
    return out
