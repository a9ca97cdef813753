"""Face swapping at megapixel resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from mattface.pipeline import Swapper


def load(
    method: str = "mesh",
    weights: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    grain: float = 1.0,
    **options: Any,
) -> Swapper:
    """Builds a ready swapper. See `mattface.pipeline.load`."""
    from mattface import pipeline

    return pipeline.load(method, weights=weights, device=device, dtype=dtype, grain=grain, **options)
