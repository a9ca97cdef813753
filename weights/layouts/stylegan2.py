"""StyleGAN2 generators and discriminators: NVIDIA's PyTorch names, rosinality's names, and ours, both ways.

The two dialects differ by names and leading axes of length one only; nothing is flipped, transposed or shifted.
"""

from __future__ import annotations

import re

import torch

from mattface.errors import WeightsError
from mattface.weights.layouts.renaming import Rule, State, rename
from mattface.weights.layouts.shapes import Shapes, conv, linear


def nvidia_generator(state: State) -> dict[str, torch.Tensor]:
    """Generator of stylegan2-ada-pytorch; names are nearly ours."""
    layer = r"(?:weight|bias|noise_strength|noise_const|affine\.weight|affine\.bias)"
    rules: list[Rule] = [
        (rf"(synthesis\.b\d+\.(?:conv0|conv1|torgb)\.{layer})", r"\1"),
        (r"(synthesis\.b4\.const)", r"\1"),
        (r"(mapping\.(?:w_avg|fc\d+\.(?:weight|bias)))", r"\1"),
    ]
    return rename(state, rules, [r".*\.resample_filter"], "stylegan2-ada-pytorch generator")


def nvidia_discriminator(state: State) -> dict[str, torch.Tensor]:
    """Discriminator of stylegan2-ada-pytorch; names are ours."""
    rules: list[Rule] = [(r"(b\d+\.(?:fromrgb|conv0|conv1|skip|conv|fc|out)\.(?:weight|bias))", r"\1")]
    return rename(state, rules, [r".*\.resample_filter"], "stylegan2-ada-pytorch discriminator")


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
    ours = rename(state, rules, [r".*\.kernel"], "stylegan2-pytorch generator")
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
    return rename(state, rules, [r".*\.kernel"], "stylegan2-pytorch discriminator")


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


def _base_shapes(resolution: int) -> Shapes:
    """Our generator's tensors at the official widths."""
    out: Shapes = {"synthesis.b4.const": (512, 4, 4)}
    before, size = 512, 4
    while size <= resolution:
        width = channels(size)
        block = f"synthesis.b{size}"
        for layer, inputs in (("conv0", before), ("conv1", width))[size == 4 :]:
            out |= conv(f"{block}.{layer}", width, inputs, 3, bias=True)
            out |= linear(f"{block}.{layer}.affine", inputs, 512)
            out |= {f"{block}.{layer}.noise_strength": (), f"{block}.{layer}.noise_const": (size, size)}
        out |= conv(f"{block}.torgb", 3, width, 1, bias=True) | linear(f"{block}.torgb.affine", width, 512)
        before, size = width, size * 2
    out["mapping.w_avg"] = (512,)
    for index in range(8):
        out |= linear(f"mapping.fc{index}", 512, 512)
    return out


def channels(resolution: int) -> int:
    """Width of the official networks (config F) at a resolution."""
    return min(32768 // resolution, 512)


def _base_discriminator_shapes(resolution: int) -> Shapes:
    """Our discriminator's tensors at the official widths."""
    out = conv(f"b{resolution}.fromrgb", channels(resolution), 3, 1, bias=True)
    size = resolution
    while size > 4:
        wide, narrow = channels(size), channels(size // 2)
        out |= conv(f"b{size}.conv0", wide, wide, 3, bias=True) | conv(f"b{size}.conv1", narrow, wide, 3, bias=True)
        out |= conv(f"b{size}.skip", narrow, wide, 1)
        size //= 2
    out |= conv("b4.conv", 512, 513, 3, bias=True)
    return out | linear("b4.fc", 512, 512 * 16) | linear("b4.out", 1, 512)


def nvidia_generator_shapes(resolution: int = 1024) -> Shapes:
    """Every key and shape of stylegan2-ada-pytorch's generator (config F)."""
    return _shapes(to_nvidia_generator(_empty(_base_shapes(resolution))))


def nvidia_discriminator_shapes(resolution: int = 1024) -> Shapes:
    """Every key and shape of stylegan2-ada-pytorch's discriminator (config F)."""
    return _shapes(to_nvidia_discriminator(_empty(_base_discriminator_shapes(resolution))))


def rosinality_generator_shapes(resolution: int = 1024) -> Shapes:
    """Every key and shape of stylegan2-pytorch's `g_ema` (config F)."""
    return _shapes(to_rosinality_generator(_empty(_base_shapes(resolution)))[0])


def rosinality_discriminator_shapes(resolution: int = 1024) -> Shapes:
    """Every key and shape of stylegan2-pytorch's `d` (config F)."""
    return _shapes(to_rosinality_discriminator(_empty(_base_discriminator_shapes(resolution))))


def _empty(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors of these shapes that take no memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _shapes(state: State) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def _kernel(total: float) -> torch.Tensor:
    """(4, 4) resampling kernel [1, 3, 3, 1] x [1, 3, 3, 1] of sum `total`."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return row[:, None] * row * (total / 64)


def to_nvidia_generator(ours: State) -> dict[str, torch.Tensor]:
    """Our generator -> stylegan2-ada-pytorch's names: the inverse of `nvidia_generator`, resampling filters added."""
    out = dict(ours)
    for key in ours:
        found = re.fullmatch(r"(synthesis\.b\d+)\.conv1\.weight", key)
        if found:
            for place in ("", ".conv0", ".conv1"):
                if not place or f"{found[1]}{place}.weight" in ours:
                    out[f"{found[1]}{place}.resample_filter"] = _kernel(1)
    return out


def to_nvidia_discriminator(ours: State) -> dict[str, torch.Tensor]:
    """Our discriminator -> stylegan2-ada-pytorch's names: the inverse of `nvidia_discriminator`, filters added."""
    out = dict(ours)
    for key in ours:
        found = re.fullmatch(r"(b\d+)\.(fromrgb|conv0|conv1|skip|conv)\.weight", key)
        if found:
            out[f"{found[1]}.{found[2]}.resample_filter"] = _kernel(1)
            if found[2] == "conv0":
                out[f"{found[1]}.resample_filter"] = _kernel(1)
    return out


def to_rosinality_generator(ours: State) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Our generator -> (`g_ema`, `latent_avg`) of stylegan2-pytorch: the inverse of `rosinality_generator`.

    Args:
        ours: state dict of `Generator`, with its noise images.

    Returns:
        State dict with kernels, and the (D,) average style.
    """
    out = {}
    for key, value in ours.items():
        if key == "mapping.w_avg":
            continue
        name = _rosinality_name(key)
        out[name] = value.reshape(*_leading_ones(key), *value.shape) if key != name else value
        if re.fullmatch(r"convs\.\d*[02468]\.conv\.weight", name):
            out[name.replace("conv.weight", "conv.blur.kernel")] = _kernel(4)
        if re.fullmatch(r"to_rgbs\.\d+\.bias", name):
            out[name.replace("bias", "upsample.kernel")] = _kernel(4)
            out[name] = value.reshape(1, -1, 1, 1)
        if name == "to_rgb1.bias":
            out[name] = value.reshape(1, -1, 1, 1)
    return out, ours["mapping.w_avg"]


def to_rosinality_discriminator(ours: State) -> dict[str, torch.Tensor]:
    """Our discriminator -> `d` of stylegan2-pytorch: the inverse of `rosinality_discriminator`, kernels added."""
    last = {"conv.weight": "final_conv.0.weight", "conv.bias": "final_conv.1.bias"}
    last |= {"fc.weight": "final_linear.0.weight", "fc.bias": "final_linear.0.bias"}
    last |= {"out.weight": "final_linear.1.weight", "out.bias": "final_linear.1.bias"}
    inner = {"conv0.weight": "conv1.0.weight", "conv0.bias": "conv1.1.bias", "conv1.weight": "conv2.1.weight"}
    inner |= {"conv1.bias": "conv2.2.bias", "skip.weight": "skip.1.weight"}
    top = max(int(key.split(".")[0][1:]) for key in ours)
    out = {}
    for key, value in ours.items():
        block, _, rest = key.partition(".")
        size = int(block[1:])
        if rest.startswith("fromrgb."):
            out["convs.0.0.weight" if rest.endswith("weight") else "convs.0.1.bias"] = value
        elif size == 4:
            out[last[rest]] = value
        else:
            index = top.bit_length() - size.bit_length() + 1
            out[f"convs.{index}.{inner[rest]}"] = value
            if rest in ("conv1.weight", "skip.weight"):
                out[f"convs.{index}.{'conv2' if rest == 'conv1.weight' else 'skip'}.0.kernel"] = _kernel(1)
    return out


def _rosinality_name(key: str) -> str:
    """stylegan2-pytorch's name of one of our generator's tensors.

    Raises:
        WeightsError: not a tensor of our generator.
    """
    if key == "synthesis.b4.const":
        return "input.input"
    mapping = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key)
    if mapping:
        return f"style.{int(mapping[1]) + 1}.{mapping[2]}"
    found = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", key)
    rest = {"weight": "conv.weight", "affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}
    rest |= {"noise_strength": "noise.weight", "bias": "activate.bias", "noise_const": ""}
    if not found or found[3] not in rest:
        raise WeightsError(f"expected the names of our generator; got {key!r}. Check which network the file holds.")
    index, layer = int(found[1]).bit_length() - 4, found[2]  # 8 -> 0, 16 -> 1; 4 -> -1
    if layer == "torgb":
        place = "to_rgb1" if index < 0 else f"to_rgbs.{index}"
        return f"{place}.{'bias' if found[3] == 'bias' else rest[found[3]]}"
    number = 2 * index + (layer == "conv1")
    if found[3] == "noise_const":
        return f"noises.noise_{number + 1}"
    return f"{'conv1' if index < 0 else f'convs.{number}'}.{rest[found[3]]}"


def _leading_ones(key: str) -> tuple[int, ...]:
    """Axes of length one that stylegan2-pytorch puts before one of our tensors."""
    if key.endswith("noise_const"):
        return (1, 1)
    one = key.endswith(("const", "noise_strength")) or re.search(r"(conv[01]|torgb)\.weight$", key)
    return (1,) if one else ()
