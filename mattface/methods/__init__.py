"""The methods by name. A name is the same everywhere: file, registry key, weight prefix, recipe, benchmark row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mattface.errors import UsageError

if TYPE_CHECKING:
    from mattface.methods.contract import Builder


@dataclass(frozen=True)
class Entry:
    """What is known of a method before it is imported.

    Attributes:
        module: where its `build` is.
        summary: one line for a table.
        weights: registered weights it runs on by default; None for a method that needs none, or none is published.
        needs: further registered weights, or kinds of parts, without which it cannot run.
        resolution: side in pixels of what it makes; None for the picture's own.
        licence: of code and default weights together.
        commercial: whether code and default weights allow commercial use.
        dtypes: those it takes, the default first.
        live: options that trade a little of a still's detail for speed.
    """

    module: str
    summary: str
    weights: str | None = None
    needs: tuple[str, ...] = ()
    resolution: int | None = None
    licence: str = "Apache-2.0"
    commercial: bool = True
    dtypes: tuple[str, ...] = ("fp32", "bf16", "fp16")
    live: Mapping[str, Any] = field(default_factory=dict)

    def builder(self) -> Builder:
        """Imports the module and returns what builds the method."""
        build: Builder = import_module(self.module).build
        return build


RESEARCH = "non-commercial research"
METHODS: dict[str, Entry] = {
    "alphaface": Entry(
        "mattface.realtime.methods.alphaface",
        "AlphaFace with its public weights: 256 px, real time on a GPU",
        weights="alphaface", needs=("alphaface-identity", "alphaface-emap"), resolution=256,
        licence=RESEARCH, commercial=False,
    ),
    "alphaface-paper": Entry(
        "mattface.realtime.methods.alphaface_paper",
        "AlphaFace as its paper describes it; to be trained",
        needs=("identity",), resolution=256,
    ),
    "alphaface-small": Entry(
        "mattface.realtime.methods.alphaface_small",
        "a small network of AlphaFace's family with its own matte: 256 px, real time on a laptop's CPU",
        weights="alphaface-demo", needs=("identity-resnet",), resolution=256,
    ),
    "facechanger": Entry(
        "mattface.realtime.methods.facechanger", "FaceChanger; to be trained", needs=("identity",), resolution=256
    ),
    "inswapper": Entry(
        "mattface.methods.inswapper",
        "insightface's public 128 px swapper",
        weights="inswapper-128", needs=("insightface-recognition",), resolution=128,
        licence=RESEARCH, commercial=False, dtypes=("fp32",),
    ),
    "magicmask": Entry(
        "mattface.realtime.methods.magicmask", "MagicMask; to be trained", needs=("identity",), resolution=224
    ),
    "mattface": Entry(
        "mattface.methods.mattface",
        "MAttFace: feature attention, StyleGAN2 and two-stage blending at a megapixel",
        weights="mattface-demo", resolution=1024,
    ),
    "mesh": Entry(
        "mattface.methods.mesh",
        "dense correspondence, light matching and multi-band blending; nothing is trained, any resolution",
        live={"coarse": 2.0, "light_side": 96, "largest": 320, "look_every": 3},
    ),
    "psp-mix": Entry(
        "mattface.methods.psp_mix",
        "mixed W+ codes of the official pSp file: what can be done without a trained network",
        weights="psp-ffhq", resolution=1024, licence=RESEARCH, commercial=False,
    ),
}  # fmt: skip
"""Name -> entry. `mattface.realtime.methods` is the companion package of the small networks; both are one layer."""


def entry(name: str) -> Entry:
    """The entry of a method.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise UsageError(f"expected a method, one of {', '.join(sorted(METHODS))}; got {name!r}.")
    return METHODS[name]


def require_commercial(name: str, weights: str | None) -> tuple[str, ...]:
    """Refuses a method, or the weights named for it, whose licence forbids commercial use.

    Args:
        name: of the method.
        weights: name or path of its weights; None for its default.

    Returns:
        Notes for reports: a file of weights that has no card.

    Raises:
        UsageError: there is no such method, or it or its weights forbid commercial use.
    """
    from mattface.weights import licences

    found = entry(name)
    ready = [method for method, one in METHODS.items() if one.commercial and (one.weights or not one.needs)]
    instead = f"Take one of the methods {', '.join(ready)}."
    if weights is not None:
        return licences.require(weights, "Leave them out." if found.commercial and found.weights else instead)
    if not found.commercial:
        licences.refuse(f"the method {name}", found.licence, instead)
    return ()
