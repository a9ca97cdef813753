"""mattface: the MAttFace paper's network, whose source detail, proportions and matte are ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from mattface import perception
from mattface import weights as registry
from mattface.errors import UsageError, WeightsError
from mattface.layers import resize
from mattface.matte import MatteStage
from mattface.mesh.shape import blend_shapes, canonical_coordinates
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.methods.fixed_chain import CHAIN, FIXED, GENERATOR, FixedMethod, build_fixed
from mattface.methods.mattface_network import Config, Encoded, MattfaceNetwork, build_network, network_of
from mattface.methods.psp import OFFICIAL
from mattface.parse import Parser
from mattface.vocabulary import Crop, MatteFilter, Swap
from mattface.weights.licences import commercial_only, restriction

__all__ = ["Config", "MattfaceMethod", "MattfaceNetwork", "build", "build_network", "default_weights", "network_of"]
DEMO, TAUGHT = "mattface-demo", "mattface-ffhq"
"""Bundled weights for any use; weights that were trained with a fixed generator, and run with it."""


class MattfaceMethod:
    """mattface behind the method contract."""

    name = "mattface"

    def __init__(
        self,
        network: MattfaceNetwork,
        parser: Parser,
        weights: str,
        device: torch.device,
        dtype: torch.dtype,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.matte = MatteStage(parser, network.config.matte)
        self.network = network.to(device).eval().requires_grad_(False)
        self.crop = CropSpec("ffhq", network.config.resolution)
        self.weights = weights
        self.device, self.dtype, self.notes = device, dtype, notes
        self.engine: str | None = None

    def encode(self, source: Crop) -> Encoded:
        """Encodes an aligned source crop once."""
        coordinates = self._coordinates(source, source.mesh)
        with self._precision():
            encoded = self.network.encode_source(source.pixels.to(self.device), coordinates)
        return replace(encoded, mesh=source.mesh, seen=None if source.mesh is None else self._seen(source))

    def merge(self, encoded: Sequence[Encoded]) -> Encoded:
        """The first alone: the network attends to one picture, so what that one does not show is not filled in."""
        return encoded[0]

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.matte.parser.name, self.engine, self.notes)

    def swap(self, encoded: Encoded, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop of the network's resolution."""
        mask = torch.from_numpy(self.matte.inner(target, matte_filter))[None, None].to(self.device)
        mesh = target.mesh
        if mesh is not None and encoded.mesh is not None:
            mesh = blend_shapes(encoded.mesh, mesh, self.network.config.shape)
        coordinates = self._coordinates(target, mesh)
        with self._precision():
            swap = self.network(encoded, target.pixels.to(self.device), mask, coordinates, tight=True)
        matte = torch.minimum(swap.matte, mask)  # never more than the parser lets through
        if target.mesh is not None and encoded.mesh is not None:
            matte = matte * self._openings(encoded.mesh, target.mesh, target.size)
        return filtered(replace(swap, matte=matte), matte_filter)

    def _openings(self, source: np.ndarray, target: np.ndarray, size: int) -> torch.Tensor:
        """(1, 1, S, S) factor on the matte: mouth and eyes that do not fit stay the target's."""
        keep = self.matte.openings(source, target, size)
        return resize(torch.from_numpy(keep)[None, None].to(self.device), size)

    def _seen(self, source: Crop) -> torch.Tensor:
        """(1, 1, s, s) how far a source shows its face, shrunk without aliasing to the sizes of flows."""
        seen = torch.from_numpy(self.matte.source(source))[None, None]
        return resize(seen, min(seen.shape[-1], self.network.config.encoder_size)).to(self.device)

    def _coordinates(self, crop: Crop, mesh: np.ndarray | None) -> torch.Tensor | None:
        """(1, 3, s, s) canonical coordinates of a mesh in this crop, for a network that wants them."""
        side = self.network.config.encoder_size
        if not self.network.config.coordinates:
            return None
        if mesh is None:
            raise UsageError("these weights need dense landmarks; this crop has no mesh. Find landmarks first.")
        return torch.from_numpy(canonical_coordinates(mesh * (side / crop.size), side))[None].to(self.device)

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


class Default(NamedTuple):
    """The weights that run where none are named.

    Attributes:
        weights: their name.
        notes: for reports: which, and why; none where there is no choice.
    """

    weights: str
    notes: tuple[str, ...] = ()


def default_weights(commercial: bool) -> Default:
    """mattface-demo; or mattface-ffhq where its card is in the group "default", which it joins once it wins the
    examination, all it needs is on this machine and its licence allows the use.

    Args:
        commercial: only weights that allow commercial use.
    """
    if TAUGHT not in registry.cards() or "default" not in registry.card(TAUGHT).groups:
        return Default(DEMO)
    if commercial and (licence := restriction(TAUGHT)):
        return Default(DEMO, (f"weights {DEMO}: {TAUGHT} is left out, it forbids commercial use ({licence})",))
    needed = (TAUGHT, *registry.card(TAUGHT).needs)
    if missing := [name for name in needed if not registry.present(name)]:
        how = f"Type: mattface weights pull {' '.join(missing)}"
        return Default(DEMO, (f"weights {DEMO}: {TAUGHT} would run, but {', '.join(missing)} is not here. {how}",))
    use = "it forbids commercial use, for which --commercial takes" if restriction(TAUGHT) else "the other one is"
    return Default(TAUGHT, (f"weights {TAUGHT}: all that it needs is here; {use} {DEMO}",))


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> MattfaceMethod | FixedMethod:
    """Builds the method from a checkpoint that carries its configuration.

    Args:
        weights: name of registered weights, a safetensors file, or a folder that holds one; None: see
            `default_weights`.
        device, dtype: where and in which dtype the network runs.
        commercial: see the contract.
        options: `detail`, "flow" or "off" (the paper: nothing of the source is sampled), as trained by default; for
            weights over a fixed generator `generator`, "mobile-ffhq" or "stylegan2-ffhq", the checkpoint's by default,
            and `refine`, steps by which every code is moved towards the source's identity (about a second each).

    Raises:
        UsageError: an unknown option or value.
        WeightsError: weights that are missing, damaged, without a trained IDATT, or trained without the detail that is
            asked for.
    """
    detail, generator = options.pop("detail", None), options.pop("generator", None)
    refine = int(options.pop("refine", 0))
    if options:
        raise UsageError(f"mattface has the options detail, generator and refine; got {', '.join(sorted(options))}.")
    if detail not in (None, "flow", "off"):
        raise UsageError(f'detail must be "flow" or "off"; got {detail!r}.')
    if weights == OFFICIAL:
        raise WeightsError(
            f"{OFFICIAL} holds encoder and generator, but no trained IDATT and no blend; both are needed to swap. "
            "Train them, take --weights mattface-demo, or mix W+ codes instead: --method psp-mix."
        )
    name, notes = (weights, ()) if weights else default_weights(commercial_only(commercial))
    tensors, metadata = registry.load_tensors(registry.checkpoint_in(name))
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    if metadata.get(CHAIN) == FIXED:
        named = {**metadata, GENERATOR: generator} if generator else metadata
        return build_fixed(tensors, named, name, detail or "flow", device, dtype, parser, refine, commercial, notes)
    if generator is not None or refine:
        raise UsageError(f"{name} carries a generator of its own, without generator= and refine=. Leave them out.")
    network = network_of(tensors, metadata, name)
    if detail == "flow" and network.correspond is None:
        raise WeightsError(f'{name} was trained without detail; got detail="flow". Leave it out or take other weights.')
    if detail == "off":
        network.correspond = None
    return MattfaceMethod(network, parser, name, device, dtype, notes)
