"""Random numbers -> WPlus for a generator without a mapping network: a normal distribution over people's codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mattface.errors import UsageError, WeightsError
from mattface.vocabulary import WPlus

PREFIX = "latents."
"""Of the tensors' names in a checkpoint."""
AXES = 64
"""Most principal components that are kept."""


@dataclass(frozen=True)
class Latents:
    """A normal distribution of W+ codes, by its mean and its principal components.

    Attributes:
        mean: (L, D) float32.
        axes: (K, L * D) float32, orthogonal, each as long as the codes' standard deviation along it, longest first.
    """

    mean: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def fit(cls, codes: WPlus, count: int = AXES) -> Latents:
        """The distribution of known codes.

        Args:
            codes: (N, L, D) with N >= 2.
            count: components to keep; there are at most N - 1, and no more than have a length.

        Raises:
            UsageError: too few codes, another shape, or count below 1.
        """
        if codes.ndim != 3 or len(codes) < 2 or count < 1:
            raise UsageError(
                f"latents need (N, L, D) codes, N >= 2, and count >= 1; got {tuple(codes.shape)}, {count}."
            )
        flat = codes.detach().double().cpu().flatten(1)
        _, lengths, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        kept = min(count, len(codes) - 1, int((lengths > 1e-6 * lengths[0].clamp_min(1e-12)).sum()))
        axes = axes[:kept] * lengths[:kept, None] / (len(codes) - 1) ** 0.5
        largest = axes.gather(
            1, axes.abs().argmax(1, keepdim=True)
        )  # an axis points either way; this one is repeatable
        return cls(flat.mean(0).view(codes.shape[1:]).float(), (axes * largest.sign()).float())

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int], what: str) -> Latents:
        """The latents among a checkpoint's tensors.

        Args:
            tensors: name -> tensor; those without `PREFIX` are not looked at.
            shape: (L, D) of the generator.
            what: the checkpoint's name, for messages.

        Raises:
            WeightsError: there are none, or others than these.
        """
        found = {name.removeprefix(PREFIX): t.float() for name, t in tensors.items() if name.startswith(PREFIX)}
        if not found:
            raise WeightsError(
                f"{what} carries no latents, from which people are drawn; files of mattface train mattface-demo do."
            )
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        many = shapes.get("axes", (0,))[0]
        wanted = {"axes": (many, shape[0] * shape[1]), "mean": shape}
        if shapes != wanted or not many or not all(bool(torch.isfinite(v).all()) for v in found.values()):
            raise WeightsError(f"expected finite latents {wanted}, at least one axis, in {what}; got {shapes}.")
        return cls(**found)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `read` reads."""
        return {f"{PREFIX}mean": self.mean, f"{PREFIX}axes": self.axes}

    def sample(self, rng: torch.Generator, truncation: float = 1.0, count: int = 1) -> WPlus:
        """Codes of people who do not exist.

        Args:
            rng: a generator on the CPU; its state alone decides.
            truncation: 1 varies as the known codes do, 0 gives the mean.
            count: B.

        Returns:
            (B, L, D) float32 on the CPU.
        """
        steps = torch.randn(count, len(self.axes), generator=rng)
        return self.mean + truncation * (steps @ self.axes).view(count, *self.mean.shape)
