"""WPlus -> WPlus: a code moved, and nothing else, until what it draws agrees better with what is wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mattface.vocabulary import WPlus

RATE = 0.03
"""Largest move of a style in one step, over the spread of styles."""
STAY = 0.01
"""Weight of the squared distance from the start, over the spread."""

Progress = Callable[[int, int, float], bool]
"""(steps done, steps in all, loss) -> whether to go on."""


def refine_code(
    start: WPlus,
    average: torch.Tensor,
    loss_of: Callable[[WPlus], torch.Tensor],
    steps: int,
    progress: Progress | None = None,
) -> WPlus:
    """Descends on a loss by Adam (Kingma and Ba 2015).

    Args:
        start: (1, L, D).
        average: (D,) average style; the spread of the start around it sets the scale of steps.
        loss_of: code to a number.
        steps: how many.
        progress: called after every step; returning False ends it.

    Returns:
        The best code seen, also when it was ended early; the start if no step was better.
    """
    code = nn.Parameter(start.detach().clone())
    spread = float((start - average).square().mean().sqrt())
    descent = torch.optim.Adam([code], lr=RATE * spread, betas=(0.9, 0.99))
    best, least = start.detach().clone(), float("inf")
    for step in range(steps):
        loss = loss_of(code) + STAY * (code - start).square().mean() / spread**2
        value = float(loss.detach())
        if value < least:
            best, least = code.detach().clone(), value
        if progress is not None and not progress(step + 1, steps, value):
            break
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()
    return best
