"""Face swapping at megapixel resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "invert", "load", "sample"]

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch

    from mattface.pipeline import Swapper


def load(
    method: str = "mattface",
    weights: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    grain: float = 1.0,
    commercial: bool | None = None,
    **options: Any,
) -> Swapper:
    """Builds a ready swapper. See `mattface.pipeline.load`."""
    from mattface import pipeline

    return pipeline.load(method, weights, device, dtype, grain, commercial, **options)


def sample(
    seed: int = 0,
    count: int = 1,
    weights: str | None = None,
    truncation: float = 0.7,
    device: str = "auto",
    commercial: bool | None = None,
) -> list[np.ndarray]:
    """Draws people who do not exist. See `mattface.sampling.sample`."""
    from mattface import sampling

    return sampling.sample(seed, count, weights, truncation, device, commercial)


def invert(
    picture: Any,
    steps: int = 0,
    generator: str = "mobile-ffhq",
    device: str = "auto",
    progress: Callable[[int, int, float], bool] | None = None,
    commercial: bool | None = None,
) -> torch.Tensor:
    """The (1, 18, 512) W+ code of a photograph's largest face. See `mattface.inversion.invert`."""
    from mattface import inversion

    return inversion.invert(picture, steps, generator, device, progress, commercial)
