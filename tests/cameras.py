"""Cameras that are not there: frames as a camera would give them, and a camera that can be pulled out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from clips import still

from mattface.realtime.loop import Shot


def shots(count: int, pause: float = 0.0) -> Iterator[Shot]:
    for k in range(count):
        time.sleep(pause)
        yield Shot(k, still(k % 3), k / 30, time.perf_counter())


class Plug:
    """A camera that can be pulled out: gives frames while `here`, and counts how often it was opened."""

    def __init__(self) -> None:
        self.here, self.opened, self.released, self.given = True, 0, 0, 0
        self.failing_after: int | None = None

    def open(self) -> Plug:
        self.opened += 1
        return self

    def isOpened(self) -> bool:
        return self.here

    def read(self) -> tuple[bool, Any]:
        if not self.here or self.given == self.failing_after:
            self.here = False
            return False, None
        self.given += 1
        time.sleep(0.002)
        return True, np.full((48, 64, 3), (10, 20, 30), np.uint8)

    def release(self) -> None:
        self.released += 1
