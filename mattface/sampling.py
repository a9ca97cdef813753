"""A seed -> the picture of a person who does not exist, by a checkpoint's generator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from mattface import pixels
from mattface import weights as registry
from mattface.devices import resolve_device
from mattface.errors import UsageError, WeightsError
from mattface.generate.generator import build_generator
from mattface.generate.latents import Latents
from mattface.generate.named import EMBEDDED, OFFICIAL, Synthesis, load_generator
from mattface.generate.synthesis import SynthesisNetwork
from mattface.methods.mattface import DEMO, network_of
from mattface.vocabulary import WPlus
from mattface.weights.convert import LAYOUT_KEY, official
from mattface.weights.licences import commercial_only, require, restriction

LAYOUTS = ("stylegan2-rosinality", "stylegan2-nvidia")
"""Of files that hold a mapping network beside their generator."""
SEEDS = 2**63
TRUNCATION = 0.7
"""As StyleGAN2's authors show their pictures."""

Draw = Callable[[torch.Generator, float], WPlus]
"""Random numbers and truncation to one W+ code."""


@dataclass(frozen=True)
class Sampler:
    """Draws people. Build one with `load`.

    Attributes:
        generate: W+ to pixels.
        draw: random numbers to W+, on the CPU.
        weights: where both come from.
        device: where the generator runs.
        notes: what was left out for commercial use.
    """

    generate: Synthesis
    draw: Draw
    weights: str
    device: torch.device
    notes: tuple[str, ...] = ()

    def __call__(self, seed: int, truncation: float = TRUNCATION) -> np.ndarray:
        """The person of a seed: the same picture every time on one machine; see `code` and `picture`."""
        return self.picture(self.code(seed, truncation))

    def code(self, seed: int, truncation: float = TRUNCATION) -> WPlus:
        """The W+ code of a seed.

        Args:
            seed: 0 to 2^63 - 1.
            truncation: 0 (everybody alike) to 1 (as various as the people learned from).

        Returns:
            (1, L, D).

        Raises:
            UsageError: a number outside its range.
        """
        check(seed, 1, truncation)
        return self.draw(torch.Generator().manual_seed(seed), truncation).to(self.device)

    def picture(self, w_plus: WPlus) -> np.ndarray:
        """(S, S, 3) uint8 RGB of a (1, L, D) code."""
        with torch.inference_mode():
            image = self.generate(w_plus, noise="const").image
        if image is None:
            raise UsageError("this generator draws no picture. Take another checkpoint.")
        return pixels.to_pixels(image, np.uint8)


def check(seed: int, count: int, truncation: float) -> None:
    """Rejects numbers outside their ranges.

    Raises:
        UsageError: with what was expected.
    """
    if count < 1:
        raise UsageError(f"expected count of at least 1; got {count}.")
    if not 0 <= seed <= SEEDS - count:
        raise UsageError(f"expected seeds between 0 and 2^63 - 1; got {seed} and {count - 1} more.")
    if not 0 <= truncation <= 1:
        raise UsageError(f"expected truncation between 0 and 1; got {truncation}.")


def load(
    weights: str | None = None, device: str | torch.device = "auto", commercial: bool | None = None
) -> Sampler:
    """Builds a sampler.

    Args:
        weights: "mobile-ffhq" or "stylegan2-ffhq"; or another name of weights, a safetensors file or a folder that
            holds one: a mattface checkpoint with latents, or a StyleGAN2 generator with its mapping network. None takes
            mobile-ffhq, or for commercial use mattface-demo.
        device: "auto", "cpu", "cuda" or "cuda:N".
        commercial: only weights that allow commercial use; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: weights that draw nothing, or forbid the commercial use that is asked for.
        WeightsError: missing, damaged, or without what people are drawn from.
    """
    if not commercial_only(commercial):
        return _load(weights or EMBEDDED, resolve_device(device))
    if weights is None:
        note = f"commercial use only: left out {EMBEDDED} ({restriction(EMBEDDED)}); {DEMO} draws instead"
        return replace(_load(DEMO, resolve_device(device)), notes=(note,))
    notes = require(weights, f"Leave them out: {DEMO} draws then.")
    return replace(_load(weights, resolve_device(device)), notes=notes)


def _load(name: str, where: torch.device) -> Sampler:
    if name in (EMBEDDED, OFFICIAL):
        return by_name(name, where)
    layout = registry.card(name).layout if name in registry.cards() else ""
    if layout and layout not in LAYOUTS:
        raise UsageError(f"expected weights that draw people, {EMBEDDED} or {OFFICIAL}; {name} does not.")
    if layout:
        tensors, metadata = official(name), {LAYOUT_KEY: layout}
    else:
        tensors, metadata = registry.load_tensors(registry.checkpoint_in(name))
    make = by_mapping if metadata.get(LAYOUT_KEY) in LAYOUTS else by_latents
    generate, draw = make(tensors, metadata, name)
    return Sampler(generate.to(where).eval().requires_grad_(False), draw, name, where)


def by_name(name: str, device: torch.device) -> Sampler:
    """One of the fixed generators."""
    fixed = load_generator(name, device, commercial=False)  # `load` has looked at the licence
    mapping = fixed.mapping

    def draw(rng: torch.Generator, truncation: float) -> WPlus:
        with torch.inference_mode():
            style: torch.Tensor = mapping(torch.randn(1, mapping.z_dim, generator=rng).to(device), truncation)
        return style

    return Sampler(fixed.synthesis, draw, name, device)


def by_latents(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], name: str
) -> tuple[SynthesisNetwork, Draw]:
    """Generator and distribution of a mattface checkpoint."""
    generate = network_of(tensors, metadata, name).generate
    return generate, Latents.read(tensors, (generate.num_styles, generate.w_dim), name).sample


def by_mapping(
    tensors: Mapping[str, torch.Tensor], _metadata: Mapping[str, str], name: str
) -> tuple[SynthesisNetwork, Draw]:
    """Generator and mapping network of a StyleGAN2 file under our names, of whatever size."""
    channels = {2**k: tensors.get(f"synthesis.b{2**k}.conv1.bias") for k in range(2, 15)}
    widths = {r: len(bias) for r, bias in channels.items() if bias is not None}
    first, layers = tensors.get("mapping.fc0.weight"), sum(k.startswith("mapping.fc") for k in tensors) // 2
    if first is None or len(widths) < 2:
        raise WeightsError(f"expected a StyleGAN2 generator with its mapping network in {name}; found no such tensors.")
    noise = any(key.endswith("noise_strength") for key in tensors)
    network = build_generator(max(widths), len(first), layers, channels=widths, use_noise=noise)
    registry.load_strictly(network, {k: v.float() for k, v in tensors.items()}, name)
    mapping = network.mapping.eval().requires_grad_(False)

    def draw(rng: torch.Generator, truncation: float) -> WPlus:
        with torch.inference_mode():
            style: torch.Tensor = mapping(torch.randn(1, mapping.z_dim, generator=rng), truncation)
        return style

    return network.synthesis, draw


def sample(
    seed: int = 0,
    count: int = 1,
    weights: str | None = None,
    truncation: float = TRUNCATION,
    device: str | torch.device = "auto",
    commercial: bool | None = None,
) -> list[np.ndarray]:
    """Draws people who do not exist; seed N + 1 alone gives what seed N gives second.

    Args:
        seed: of the first; the others follow by one.
        count: how many.
        weights, device, commercial: see `load`. What is left out for commercial use is said in a warning.
        truncation: see `Sampler.__call__`.

    Returns:
        (S, S, 3) uint8 RGB each.

    Raises:
        UsageError, WeightsError, DeviceError: see `load` and `Sampler.__call__`.
    """
    check(seed, count, truncation)
    sampler = load(weights, device, commercial)
    for note in sampler.notes:
        warnings.warn(note, stacklevel=2)
    return [sampler(one, truncation) for one in range(seed, seed + count)]
