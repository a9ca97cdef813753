"""State-dict names of other projects -> ours, one pure function per origin. Values are moved, never changed.

Every key must be used or stand on a named list of constants that we rebuild; anything else is an error, and so is a
second key for the same place. Missing keys show when the network loads the result strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mattface.errors import WeightsError

State = Mapping[str, torch.Tensor]
Place = Callable[[re.Match[str]], str]
Rule = tuple[str, str | Place]
"""(pattern of the whole foreign key, our key as a template of its groups or a function of the match)."""

UNITS_50 = (3, 4, 14, 3)
"""IR-SE units of the four stages of the 50-layer body."""
BATCH_NORM_EPSILON = 1e-5
"""What torch's batch normalisation adds to the variance by default."""


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


def nvidia_generator(state: State) -> dict[str, torch.Tensor]:
    """Generator of stylegan2-ada-pytorch; names are nearly ours."""
    layer = r"(?:weight|bias|noise_strength|noise_const|affine\.weight|affine\.bias)"
    rules: list[Rule] = [
        (rf"(synthesis\.b\d+\.(?:conv0|conv1|torgb)\.{layer})", r"\1"),
        (r"(synthesis\.b4\.const)", r"\1"),
        (r"(mapping\.(?:w_avg|fc\d+\.(?:weight|bias)))", r"\1"),
    ]
    return _rename(state, rules, [r".*\.resample_filter"], "stylegan2-ada-pytorch generator")


def nvidia_discriminator(state: State) -> dict[str, torch.Tensor]:
    """Discriminator of stylegan2-ada-pytorch; names are ours."""
    rules: list[Rule] = [(r"(b\d+\.(?:fromrgb|conv0|conv1|skip|conv|fc|out)\.(?:weight|bias))", r"\1")]
    return _rename(state, rules, [r".*\.resample_filter"], "stylegan2-ada-pytorch discriminator")


def rosinality_generator(state: State, latent_avg: torch.Tensor) -> dict[str, torch.Tensor]:
    """Generator of stylegan2-pytorch (`g_ema`).

    Args:
        state: its state dict. Noise images may be missing (some files lack them); ours are then drawn from a fixed
            seed, as good as any.
        latent_avg: (D,), (1, D) or (L, D) average style that lies beside it in the file.

    Returns:
        State dict of `Generator`.
    """
    rules: list[Rule] = [
        (r"style\.(\d+)\.(weight|bias)", lambda m: f"mapping.fc{int(m[1]) - 1}.{m[2]}"),
        (r"input\.input", "synthesis.b4.const"),
        (r"conv1\.(.+)", lambda m: f"synthesis.b4.conv1.{_modulated(m[1])}"),
        (r"to_rgb1\.(.+)", lambda m: f"synthesis.b4.torgb.{_modulated(m[1])}"),
        (r"convs\.(\d+)\.(.+)", lambda m: f"synthesis.{_layer(int(m[1]))}.{_modulated(m[2])}"),
        (r"to_rgbs\.(\d+)\.(.+)", lambda m: f"synthesis.b{2 ** (int(m[1]) + 3)}.torgb.{_modulated(m[2])}"),
        (r"noises\.noise_(\d+)", lambda m: f"synthesis.{_layer(int(m[1]) - 1)}.noise_const"),
    ]
    ours = _rename(state, rules, [r".*\.kernel"], "stylegan2-pytorch generator")
    ours = {key: _without_ones(key, value) for key, value in ours.items()}
    ours["mapping.w_avg"] = latent_avg.reshape(-1, latent_avg.shape[-1]).mean(0)
    return ours | _missing_noise(ours)


def rosinality_discriminator(state: State, resolution: int = 1024) -> dict[str, torch.Tensor]:
    """Discriminator of stylegan2-pytorch (`d`) for images of `resolution` pixels."""
    parts = {"conv1.0": "conv0", "conv1.1": "conv0", "conv2.1": "conv1", "conv2.2": "conv1", "skip.1": "skip"}
    last = {"final_conv.0": "conv", "final_conv.1": "conv", "final_linear.0": "fc", "final_linear.1": "out"}
    rules: list[Rule] = [
        (r"convs\.0\.[01]\.(weight|bias)", rf"b{resolution}.fromrgb.\1"),
        (
            r"convs\.(\d+)\.(conv1\.[01]|conv2\.[12]|skip\.1)\.(weight|bias)",
            lambda m: f"b{resolution >> (int(m[1]) - 1)}.{parts[m[2]]}.{m[3]}",
        ),
        (r"(final_conv\.[01]|final_linear\.[01])\.(weight|bias)", lambda m: f"b4.{last[m[1]]}.{m[2]}"),
    ]
    return _rename(state, rules, [r".*\.kernel"], "stylegan2-pytorch discriminator")


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
    ours = _rename(state, rules, [], "pSp encoder")
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
    return _rename(state, rules, [], "IR-SE-50")


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
    return _rename(state, rules, [], "arcface_torch backbone")


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
    return _rename(state, rules, [], "AlphaFace swapper")


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
    ours = _rename(state, rules, [], "folded ArcFace")
    for key in [key for key in ours if re.search(r"(stem\.1|norm2|norm3|shortcut_norm)\.bias$", key)]:
        bias, place = ours[key], key.removesuffix("bias")
        ours[f"{place}weight"], ours[f"{place}running_mean"] = torch.ones_like(bias), torch.zeros_like(bias)
        ours[f"{place}running_var"] = torch.full_like(bias, 1 - BATCH_NORM_EPSILON)
    return ours


def _rename(state: State, rules: Iterable[Rule], ignored: Iterable[str], origin: str) -> dict[str, torch.Tensor]:
    """Applies the first rule that matches each whole key.

    Raises:
        WeightsError: a key nobody knows, or two keys for one place.
    """
    patterns = [(re.compile(pattern), place) for pattern, place in rules]
    constants = [re.compile(pattern) for pattern in ignored]
    ours: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state.items():
        if any(pattern.fullmatch(key) for pattern in constants):
            continue
        name = _place(key, patterns)
        if name is None:
            unknown.append(key)
        elif name in ours:
            raise WeightsError(f"{origin}: two keys belong at {name}, the second is {key!r}. Is the file of this kind?")
        else:
            ours[name] = value
    if unknown:
        some = ", ".join(unknown[:5])
        raise WeightsError(f"{origin}: {len(unknown)} unknown keys, first {some}. Check which network the file holds.")
    return ours


def _place(key: str, patterns: Iterable[tuple[re.Pattern[str], str | Place]]) -> str | None:
    """Our name of a foreign key, None when no rule knows it."""
    for pattern, place in patterns:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(place) if isinstance(place, str) else place(match)
    return None


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


def _layer(index: int) -> str:
    """Block and layer of the index-th up-sampling pair; -1 is the first convolution."""
    return "b4.conv1" if index < 0 else f"b{2 ** (index // 2 + 3)}.conv{index % 2}"


def _modulated(rest: str) -> str:
    """Our name inside a modulated layer; unknown names stay and fail at the strict load."""
    names = {
        "conv.weight": "weight",
        "conv.modulation.weight": "affine.weight",
        "conv.modulation.bias": "affine.bias",
        "noise.weight": "noise_strength",
        "activate.bias": "bias",
        "bias": "bias",
    }
    if rest not in names:
        raise WeightsError(f"stylegan2-pytorch generator: unknown key inside a layer: {rest!r}.")
    return names[rest]


def _without_ones(key: str, value: torch.Tensor) -> torch.Tensor:
    """Drops the leading axes of length one that stylegan2-pytorch keeps."""
    if key.endswith("noise_strength"):
        return value.reshape(())
    if key.endswith("torgb.bias"):
        return value.reshape(-1)
    ranks = {"const": 3, "noise_const": 2}
    rank = ranks.get(key.rsplit(".", 1)[-1])
    if rank is None:
        rank = 4 if re.search(r"(conv[01]|torgb)\.weight$", key) else value.ndim
    return value.reshape(value.shape[value.ndim - rank :])


def _missing_noise(ours: State) -> dict[str, torch.Tensor]:
    """Noise images for layers that have a strength and no image."""
    generator = torch.Generator().manual_seed(0)
    noise = {}
    for key in ours:
        image = key.removesuffix("noise_strength") + "noise_const"
        if key.endswith("noise_strength") and image not in ours:
            side = int(key.split(".")[1][1:])
            noise[image] = torch.randn(side, side, generator=generator)
    return noise
