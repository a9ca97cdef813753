"""Refinement of W+ on the command line: its steps are shown, and Ctrl-C ends it with the best code so far."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def refinement(
    steps: int, quiet: bool, losses: list[float] | None = None
) -> Iterator[Callable[[int, int, float], bool]]:
    """Shows the steps on a terminal; Ctrl-C ends them after the running one instead of tearing it.

    Args:
        steps: how many there are at most; with 0 nothing is shown or caught.
        quiet: show nothing.
        losses: gets the loss of every step.
    """
    pressed: list[int] = []
    bar = tqdm(total=steps, unit="step", disable=quiet or not steps or not sys.stderr.isatty())

    def progress(_done: int, _steps: int, loss: float) -> bool:
        if losses is not None:
            losses.append(loss)
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update()
        return not pressed

    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number)) if steps else None
    try:
        yield progress
    finally:
        bar.close()
        if before is not None:
            signal.signal(signal.SIGINT, before)
