"""pSp (encoder, latent heads, decoder) and the IR-SE-50 identity network whose body it shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mattface.errors import WeightsError
from mattface.weights.layouts.renaming import Rule, State, rename
from mattface.weights.layouts.shapes import Shapes, batch_norm, below, conv, joined, linear, prelu
from mattface.weights.layouts.stylegan2 import rosinality_generator, rosinality_generator_shapes

UNITS_50 = (3, 4, 14, 3)
"""IR-SE units of the four stages of the 50-layer body."""
WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class PspParts:
    """A pSp file taken apart.

    Attributes:
        encoder: for `Encoder`.
        heads: for `LatentHeads`.
        generator: for `Generator` (mapping and synthesis).
    """

    encoder: dict[str, torch.Tensor]
    heads: dict[str, torch.Tensor]
    generator: dict[str, torch.Tensor]


def psp_file(state: State, latent_avg: torch.Tensor, start_from_latent_avg: bool = True) -> PspParts:
    """Whole pSp file.

    Args:
        state: its `state_dict`, keys starting with "encoder." or "decoder.".
        latent_avg: its `latent_avg`.
        start_from_latent_avg: its option of that name: whether the heads' outputs are offsets from the average.

    Returns:
        State dicts of encoder, heads and generator.
    """
    halves: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}
    for key, value in state.items():
        half, _, rest = key.partition(".")
        if half not in halves:
            raise WeightsError(f'pSp file: keys must start with "encoder." or "decoder."; got {key!r}.')
        halves[half][rest] = value
    average = latent_avg if start_from_latent_avg else torch.zeros_like(latent_avg)
    encoder, heads = psp_encoder(halves["encoder"], average)
    return PspParts(encoder, heads, rosinality_generator(halves["decoder"], latent_avg))


def psp_encoder(
    state: State, latent_avg: torch.Tensor, units: Sequence[int] = UNITS_50
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Encoder half of a pSp file, keys without "encoder.".

    Args:
        state: state dict.
        latent_avg: (D,), (1, D) or (L, D), added to the heads' outputs.
        units: IR-SE units per stage.

    Returns:
        State dicts of `Encoder` and of `LatentHeads`.
    """
    lateral = {"latlayer1": "lateral_medium", "latlayer2": "lateral_coarse"}
    rules = [
        *_ir_se_rules(units),
        (r"styles\.(\d+)\.convs\.(\d+)\.(weight|bias)", lambda m: f"heads.{m[1]}.convs.{int(m[2]) // 2}.{m[3]}"),
        (r"styles\.(\d+)\.linear\.(weight|bias)", r"heads.\1.linear.\2"),
        (r"(latlayer[12])\.(weight|bias)", lambda m: f"{lateral[m[1]]}.{m[2]}"),
    ]
    ours = rename(state, rules, [], "pSp encoder")
    encoder = {key: value for key, value in ours.items() if key.startswith("trunk.")}
    heads = {key: value for key, value in ours.items() if not key.startswith("trunk.")}
    styles = len({key.split(".")[1] for key in heads if key.startswith("heads.")})
    rows = latent_avg.reshape(-1, latent_avg.shape[-1])
    heads["w_avg"] = rows.expand(styles, -1).clone()
    return encoder, heads


def ir_se50(state: State, units: Sequence[int] = UNITS_50) -> dict[str, torch.Tensor]:
    """model_ir_se50.pth -> `IRSE50`."""
    head = {"0": "norm", "3": "linear", "4": "norm_out"}
    rules = [*_ir_se_rules(units), (r"output_layer\.([034])\.(.+)", lambda m: f"{head[m[1]]}.{m[2]}")]
    return rename(state, rules, [], "IR-SE-50")


def _ir_se_rules(units: Sequence[int]) -> list[Rule]:
    """Stem and body of the IR-SE networks -> `IRSETrunk`."""
    place = [f"trunk.stages.{stage}.{unit}" for stage, count in enumerate(units) for unit in range(count)]
    residual = {"0": "norm1", "1": "conv1", "2": "act", "3": "conv2", "4": "norm2"}
    gate = {"1": "squeeze", "2": "excite"}
    shortcut = {"0": "shortcut_conv", "1": "shortcut_norm"}

    def unit(index: str) -> str:
        if int(index) >= len(place):
            raise WeightsError(f"IR-SE body: expected {len(place)} units; got one with index {index}.")
        return place[int(index)]

    return [
        (r"input_layer\.([012])\.(\w+)", r"trunk.stem.\1.\2"),
        (r"body\.(\d+)\.res_layer\.([0-4])\.(\w+)", lambda m: f"{unit(m[1])}.{residual[m[2]]}.{m[3]}"),
        (r"body\.(\d+)\.res_layer\.5\.fc([12])\.weight", lambda m: f"{unit(m[1])}.gate.{gate[m[2]]}.weight"),
        (r"body\.(\d+)\.shortcut_layer\.([01])\.(\w+)", lambda m: f"{unit(m[1])}.{shortcut[m[2]]}.{m[3]}"),
    ]


def _trunk_shapes() -> Shapes:
    """Stem and body of the IR-SE networks of 50 layers."""
    out = conv("input_layer.0", 64, 3) | batch_norm("input_layer.1", 64) | prelu("input_layer.2", 64)
    before, index = 64, 0
    for width, count in zip(WIDTHS, UNITS_50, strict=True):
        for _ in range(count):
            unit = f"body.{index}"
            if before != width:
                out |= conv(f"{unit}.shortcut_layer.0", width, before, 1)
                out |= batch_norm(f"{unit}.shortcut_layer.1", width)
            out |= batch_norm(f"{unit}.res_layer.0", before) | conv(f"{unit}.res_layer.1", width, before)
            out |= prelu(f"{unit}.res_layer.2", width) | conv(f"{unit}.res_layer.3", width, width)
            out |= batch_norm(f"{unit}.res_layer.4", width)
            out |= conv(f"{unit}.res_layer.5.fc1", width // 16, width, 1)
            out |= conv(f"{unit}.res_layer.5.fc2", width, width // 16, 1)
            before, index = width, index + 1
    return out


def ir_se50_shapes() -> Shapes:
    """Every key and shape of model_ir_se50.pth."""
    head = batch_norm("output_layer.0", 512) | linear("output_layer.3", 512, 512 * 7 * 7)
    return _trunk_shapes() | head | batch_norm("output_layer.4", 512)


def psp_encoder_shapes() -> Shapes:
    """Every key and shape of the encoder half of the FFHQ file, without "encoder."."""
    out = _trunk_shapes()
    for style in range(18):
        halvings = 4 if style < 3 else 5 if style < 7 else 6  # maps of 16, 32 and 64 pixels
        steps = [conv(f"styles.{style}.convs.{2 * step}", 512, 512, 3, bias=True) for step in range(halvings)]
        out |= joined(steps) | linear(f"styles.{style}.linear", 512, 512)
    return out | conv("latlayer1", 512, 256, 1, bias=True) | conv("latlayer2", 512, 128, 1, bias=True)


def psp_shapes() -> Shapes:
    """Every key and shape of the `state_dict` of psp_ffhq_encode.pt."""
    return below("encoder", psp_encoder_shapes()) | below("decoder", rosinality_generator_shapes())
