"""Every layout that `adopt` recognises and `convert` knows: its key list, and the way to our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mattface.errors import WeightsError
from mattface.weights.layouts import alphaface, arcface, estimators, loss_networks, psp, sdxl, stylegan2
from mattface.weights.layouts.renaming import State
from mattface.weights.layouts.shapes import COUNTER, Shapes

Beside = Mapping[str, Any]
"""What lies in a file beside the tensors of a layout: outer key -> anything."""
NOISE = (r".*noises?[._].*", r".*\.kernel", COUNTER)


@dataclass(frozen=True)
class Layout:
    """How one kind of file names its tensors.

    Attributes:
        name: what cards call it.
        what: for messages.
        shapes: the whole key list of the official file.
        convert: (tensors, what lies beside them) -> our names.
        inside: outer key that the tensors lie under; empty for a bare state dict.
        beside: outer keys that conversion needs.
        optional: patterns of keys that a good file may lack or have more of.
    """

    name: str
    what: str
    shapes: Callable[[], Shapes]
    convert: Callable[[State, Beside], dict[str, torch.Tensor]]
    inside: str = ""
    beside: tuple[str, ...] = ()
    optional: tuple[str, ...] = (COUNTER,)


@dataclass(frozen=True)
class Fit:
    """How well a list of keys and shapes agrees with a layout.

    Attributes:
        share: agreeing keys of all that are wanted or there, in [0, 1].
        faults: what is wrong, in words; empty for a perfect fit.
    """

    share: float
    faults: tuple[str, ...]


def compare(found: Mapping[str, tuple[int, ...]], layout: Layout) -> Fit:
    """Compares keys and shapes with a layout's.

    Args:
        found: key -> shape.
        layout: see `Layout`.
    """
    wanted = layout.shapes()
    optional = re.compile("|".join(layout.optional) or r"(?!)")
    missing = [key for key in wanted if key not in found and not optional.fullmatch(key)]
    unknown = [key for key in found if key not in wanted and not optional.fullmatch(key)]
    both = [key for key in found if key in wanted]
    other = [key for key in both if found[key] != wanted[key]]
    faults = [_some(f"of {len(wanted)} keys missing", missing), _some("unknown keys", unknown)]
    if other:
        key = other[0]
        faults.append(f"{len(other)} of another shape, first {key}: expected {wanted[key]}, got {found[key]}")
    total = len(both) + len(missing) + len(unknown)
    return Fit((len(both) - len(other)) / max(total, 1), tuple(fault for fault in faults if fault))


def _some(what: str, keys: list[str]) -> str:
    return f"{len(keys)} {what}, first {keys[0]}" if keys else ""


def _plain(rename: Callable[[State], dict[str, torch.Tensor]]) -> Callable[[State, Beside], dict[str, torch.Tensor]]:
    """A conversion that needs nothing beside the tensors."""
    return lambda state, beside: rename(state)


def _same(layout_shapes: Callable[[], Shapes], what: str, optional: tuple[str, ...] = (COUNTER,)) -> Callable[..., Any]:
    """The conversion of networks whose names we keep: checks that every key is known, and drops nothing."""

    def convert(state: State, beside: Beside) -> dict[str, torch.Tensor]:
        wanted = layout_shapes()
        unknown = [key for key in state if key not in wanted and not any(re.fullmatch(p, key) for p in optional)]
        if unknown:
            raise WeightsError(f"{what}: {_some('unknown keys', unknown)}. Check which network the file holds.")
        return dict(state)

    return convert


def _psp(state: State, beside: Beside) -> dict[str, torch.Tensor]:
    """One flat dict: "encoder.", "heads." and "generator." before the names of the three networks."""
    starts = bool(beside.get("opts", {}).get("start_from_latent_avg", True))
    parts = psp.psp_file(state, beside["latent_avg"], starts)
    out = {f"encoder.{key}": value for key, value in parts.encoder.items()}
    out |= {f"heads.{key}": value for key, value in parts.heads.items()}
    return out | {f"generator.{key}": value for key, value in parts.generator.items()}


def _rosinality(state: State, beside: Beside) -> dict[str, torch.Tensor]:
    return stylegan2.rosinality_generator(state, beside["latent_avg"])


def _kept(name: str, what: str, shapes: Callable[[], Shapes], optional: tuple[str, ...] = (COUNTER,)) -> Layout:
    return Layout(name, what, shapes, _same(shapes, what, optional), optional=optional)


FILTERS = (r".*\.resample_filter",)

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("psp", "a pSp file", psp.psp_shapes, _psp, "state_dict", ("latent_avg",), NOISE),
        Layout("ir-se-50", "an IR-SE-50", psp.ir_se50_shapes, _plain(psp.ir_se50)),
        Layout(
            name="stylegan2-rosinality",
            what="a generator of stylegan2-pytorch",
            shapes=stylegan2.rosinality_generator_shapes,
            convert=_rosinality,
            inside="g_ema",
            beside=("latent_avg",),
            optional=NOISE,
        ),
        Layout(
            name="stylegan2-rosinality-discriminator",
            what="a discriminator of stylegan2-pytorch",
            shapes=stylegan2.rosinality_discriminator_shapes,
            convert=_plain(stylegan2.rosinality_discriminator),
            inside="d",
            optional=NOISE,
        ),
        Layout(
            name="stylegan2-nvidia",
            what="a generator of stylegan2-ada-pytorch",
            shapes=stylegan2.nvidia_generator_shapes,
            convert=_plain(stylegan2.nvidia_generator),
            inside="G_ema",
            optional=FILTERS,
        ),
        Layout(
            name="stylegan2-nvidia-discriminator",
            what="a discriminator of stylegan2-ada-pytorch",
            shapes=stylegan2.nvidia_discriminator_shapes,
            convert=_plain(stylegan2.nvidia_discriminator),
            inside="D",
            optional=FILTERS,
        ),
        Layout(
            name="alphaface",
            what="AlphaFace's swapper",
            shapes=alphaface.alphaface_shapes,
            convert=_plain(alphaface.alphaface_swapper),
            inside="swapper",
        ),
        Layout(
            name="arcface-folded",
            what="an ArcFace ResNet-50 with folded norms",
            shapes=arcface.folded_arcface_shapes,
            convert=_plain(arcface.folded_arcface),
        ),
        Layout(
            name="arcface-r50",
            what="an arcface_torch ResNet-50",
            shapes=arcface.arcface_shapes,
            convert=_plain(arcface.arcface_torch),
        ),
        Layout(
            name="arcface-r100",
            what="an arcface_torch ResNet-100",
            shapes=lambda: arcface.arcface_shapes(arcface.UNITS_100),
            convert=_plain(arcface.arcface_torch),
        ),
        Layout("bisenet", "a 19-class BiSeNet", estimators.bisenet_shapes, _plain(estimators.bisenet)),
        Layout("deep3d", "Deep3DFaceRecon", estimators.deep3d_shapes, _plain(estimators.deep3d), "net_recon"),
        _kept("lpips-vgg", "LPIPS heads for VGG16", loss_networks.lpips_shapes),
        _kept("vgg16", "torchvision's VGG16", loss_networks.vgg16_shapes),
        _kept("clip-vit-b32", "CLIP ViT-B/32 of open_clip", loss_networks.clip_shapes),
        _kept("sdxl-unet", "SDXL's UNet", sdxl.unet_shapes),
        _kept("sdxl-vae", "SDXL's VAE", sdxl.vae_shapes),
        _kept("sdxl-text-encoder", "SDXL's first text encoder", sdxl.text_encoder_shapes, (r".*\.position_ids",)),
        _kept("sdxl-text-encoder-2", "SDXL's second text encoder", sdxl.text_encoder_2_shapes, (r".*\.position_ids",)),
    )
}
