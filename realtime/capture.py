"""Where live frames come from: a camera that may be unplugged, or a video file played at its own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mattface.errors import InputError
from mattface.realtime.loop import Shot
from mattface.realtime.planes import Origin, upright_rgb
from mattface.realtime.video import VideoReader

RETRY = 0.5
"""Seconds between attempts to open a camera that is gone."""


class Device(Protocol):
    """What a camera looks like: cv2.VideoCapture, or something like it."""

    def isOpened(self) -> bool:
        """Whether it can be read."""

    def read(self) -> tuple[bool, Any]:
        """(True, (H, W, 3) uint8 BGR), or (False, None)."""

    def release(self) -> None:
        """Gives it back."""


def open_camera(number: int, size: tuple[int, int] | None = None, fps: float | None = None) -> Device:
    """A camera by number.

    Args:
        number: from 0.
        size: wished width and height; the camera may choose others.
        fps: wished frames per second.
    """
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a missing camera is our own error message
    device = cv2.VideoCapture(number)
    wishes = {cv2.CAP_PROP_BUFFERSIZE: 1.0}
    if size is not None:
        wishes |= {cv2.CAP_PROP_FRAME_WIDTH: size[0], cv2.CAP_PROP_FRAME_HEIGHT: size[1]}
    if fps is not None:
        wishes[cv2.CAP_PROP_FPS] = fps
    for key, value in wishes.items():
        device.set(key, value)
    return device


class Camera:
    """Frames of a camera. One that is unplugged is waited for, and goes on when it is back.

    Args:
        opener: opens the device; called again after it was lost.
        name: for messages.
        say: gets a sentence when the camera is lost and when it is back.
        stop: ends waiting.
        required: True raises when the camera cannot be opened the first time.
    """

    def __init__(
        self,
        opener: Callable[[], Device],
        name: str,
        say: Callable[[str], None],
        stop: threading.Event,
        required: bool = True,
    ) -> None:
        self.opener, self.name, self.say, self.stop, self.required = opener, name, say, stop, required

    def __iter__(self) -> Iterator[Shot]:
        """Frames until `stop` is set.

        Raises:
            InputError: the camera cannot be opened at the start.
        """
        device: Device | None = self.opener()
        if device is not None and not device.isOpened():
            device.release()
            if self.required:
                raise InputError(f"{self.name}: expected a camera; none can be opened. Plug it in, or try --camera 1.")
            device = self._back()
        index, began = 0, time.perf_counter()
        try:
            while device is not None and not self.stop.is_set():
                good, bgr = device.read()
                now = time.perf_counter()
                if not good or bgr is None:
                    device.release()
                    device = self._back()
                    continue
                yield Shot(index, np.ascontiguousarray(bgr[..., ::-1]), now - began, now)
                index += 1
        finally:
            if device is not None:
                device.release()

    def _back(self) -> Device | None:
        """The camera once it can be opened again; None when asked to stop."""
        self.say(f"{self.name} is gone; waiting for it")
        while not self.stop.wait(RETRY):
            device = self.opener()
            if device.isOpened():
                self.say(f"{self.name} is back")
                return device
            device.release()
        return None


class Player:
    """Frames of a video file at the pace of its clock, as a camera would give them.

    Args:
        path: video file.
        stop: ends it.
        repeat: begins anew at the end.
        paced: False gives frames as fast as they are taken (measurements).
    """

    def __init__(self, path: str | Path, stop: threading.Event, repeat: bool = False, paced: bool = True) -> None:
        self.path, self.stop, self.repeat, self.paced = path, stop, repeat, paced

    def __iter__(self) -> Iterator[Shot]:
        """Frames until the end or `stop`.

        Raises:
            InputError: the file cannot be read, or has no picture in it.
        """
        began, offset, index, last = time.perf_counter(), 0.0, 0, 0.0
        while not self.stop.is_set():
            with VideoReader(self.path) as reader:
                first: float | None = None
                for frame in reader:
                    first = frame.time if first is None else first
                    last = offset + frame.time - first
                    early = began + last - time.perf_counter() if self.paced else 0.0
                    if self.stop.wait(max(0.0, early)):
                        return
                    pixels = upright_rgb(frame, reader.info)
                    yield Shot(index, pixels, last, time.perf_counter(), Origin(frame, reader.info, pixels))
                    index += 1
                step = 1 / float(reader.info.rate or 30)
            if not self.repeat:
                return
            offset = last + step
