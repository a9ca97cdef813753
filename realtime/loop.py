"""Capture, track, swap, show: four stages in threads of their own, bounded queues between them.

Live, a full queue drops its oldest frame and counts it, so that what is shown is never old. Off line, a full queue
makes the stage before wait, and nothing is dropped. The last stage runs in the caller's thread (windows want that).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from mattface.align import native_size
from mattface.devices import Stopwatch
from mattface.paste import Pasted
from mattface.pipeline import Swapper
from mattface.pixels import eight_bit
from mattface.provenance import MARK, watermark
from mattface.provenance.laying import Laying, settled
from mattface.realtime.faces import Cast
from mattface.realtime.meter import Meter
from mattface.realtime.smooth import Pose, TemporalMatteFilter
from mattface.realtime.track import Tracked
from mattface.vocabulary import Box, Face, Picture

HYSTERESIS = 1.25
"""A face's crop keeps its size until the picture's own resolution differs by this factor."""
CHECK = 0.1
"""Seconds after which a waiting stage looks whether it shall stop."""
LAST_FRAME = 30
"""Seconds a stage gets to finish the frame in work when the loop ends."""


@dataclass(frozen=True)
class Shot:
    """One frame on its way.

    Attributes:
        index: position among the frames captured.
        pixels: (H, W, 3) RGB, uint8 or uint16, upright.
        time: seconds on the video's own clock.
        captured: seconds of time.perf_counter when it came in.
        origin: what the capture stage wants the sink to have (the decoded frame, ...).
        tracks: faces in it.
        boxes: where pixels were replaced.
    """

    index: int
    pixels: np.ndarray
    time: float
    captured: float
    origin: Any = None
    tracks: tuple[Tracked, ...] = ()
    boxes: tuple[Box, ...] = ()


class Sink(Protocol):
    """Where frames go."""

    def show(self, shot: Shot) -> None:
        """Takes the next frame."""

    def close(self) -> None:
        """Finishes; called once, also after errors."""


class Closed(Exception):
    """The queue will bring nothing more."""


class Mailbox:
    """A queue of at most `size` frames; full, it drops the oldest (and counts) or makes the sender wait."""

    def __init__(self, size: int, drop: bool) -> None:
        self.size, self.drop, self.dropped = size, drop, 0
        self._waiting: deque[Shot] = deque()
        self._state = threading.Condition()
        self._closed = self._cut = False

    def put(self, shot: Shot) -> None:
        """Puts a frame at the end.

        Raises:
            Closed: the receiver is gone.
        """
        with self._state:
            while len(self._waiting) >= self.size and not self._cut:
                if self.drop:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._state.wait()
            if self._cut:
                raise Closed
            self._waiting.append(shot)
            self._state.notify_all()

    def get(self, patience: float | None = None) -> Shot | None:
        """The oldest frame; None when none came within `patience` seconds.

        Raises:
            Closed: the sender has closed it and it is empty.
        """
        with self._state:
            self._state.wait_for(lambda: self._waiting or self._closed, patience)
            if self._waiting:
                shot = self._waiting.popleft()
                self._state.notify_all()
                return shot
            if self._closed:
                raise Closed
            return None

    def close(self) -> None:
        """No more frames will be put; those inside can still be taken."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    def cut(self) -> None:
        """Nobody will take frames any more: waiting ones are let go, senders are woken."""
        with self._state:
            self._closed = self._cut = True
            self._waiting.clear()
            self._state.notify_all()


class Painter:
    """The swap stage: every tracked face gets its role's source, matte and crop size filtered per face.

    Args:
        swapper: does it.
        cast: who becomes whom.
        laying: provenance of the file; its imperceptible mark goes into every face. None for no mark.
    """

    def __init__(self, swapper: Swapper, cast: Cast, laying: Laying | None = None) -> None:
        self.swapper, self.cast, self.laying = swapper, cast, laying
        self._filters: dict[int, TemporalMatteFilter] = {}
        self._sides: dict[int, int] = {}
        self._last = 0.0

    @torch.inference_mode()
    def __call__(self, shot: Shot) -> Shot:
        """The frame with its faces swapped; pixels outside `boxes` are untouched."""
        picture, boxes, gap = Picture(shot.pixels), list(shot.boxes), shot.time - self._last
        self._last = shot.time
        self._forget({t.number for t in shot.tracks})
        watch = Stopwatch(self.swapper.device)
        for tracked in shot.tracks:
            if tracked.role is None:
                continue
            face, size = tracked.face, self._size(tracked)
            matte_filter = self._filters.setdefault(tracked.number, TemporalMatteFilter())
            if face.mesh is not None:
                matte_filter.observe(Pose.of(face.mesh).to_face_units(face.mesh), gap)
            identity = self.cast.identity(tracked.role)
            _, _, pasted = self.swapper.swap_face(picture, face, identity, watch, size, matte_filter)
            picture = self._marked(pasted, face)
            boxes += [] if pasted.box is None else [pasted.box]
        return replace(shot, pixels=picture.pixels, boxes=tuple(boxes))

    def _marked(self, pasted: Pasted, face: Face) -> Picture:
        """The picture with the mark in the face that was just pasted."""
        if self.laying is None or not self.laying.wants(MARK) or pasted.box is None or pasted.matte is None:
            return pasted.picture
        left, top, right, bottom = pasted.box
        mesh = settled(self.swapper.landmarker, eight_bit(pasted.picture.pixels), face)
        mesh = mesh - np.array([left, top, 0.0])
        part = pasted.picture.pixels[top:bottom, left:right]
        part[...] = watermark.embed(part, pasted.matte, [mesh], self.laying.number)
        return pasted.picture

    def _size(self, tracked: Tracked) -> int | None:
        """Side of the face's crop: constant while the face's own size hardly changes."""
        spec = self.swapper.method.crop
        if spec.size is not None:
            return None
        wanted = min(native_size(tracked.face, spec.template), spec.largest or 1 << 30)
        kept = self._sides.get(tracked.number, wanted)
        if not 1 / HYSTERESIS < wanted / kept < HYSTERESIS:
            kept = wanted
        self._sides[tracked.number] = kept
        return kept

    def _forget(self, present: set[int]) -> None:
        for number in set(self._filters) - present:
            del self._filters[number]
            self._sides.pop(number, None)


class Loop:
    """Runs frames of a capture through tracker and painter into a sink.

    Args:
        capture: gives frames; a live one at its own pace.
        tracker: finds faces.
        paint: swaps them, usually a `Painter`.
        sink: takes the results.
        drop: True drops the oldest frame where a stage is too slow (live), False waits (files).
        depth: frames a queue holds.
    """

    def __init__(
        self,
        capture: Iterator[Shot],
        tracker: Callable[[np.ndarray, float], tuple[Tracked, ...]],
        paint: Callable[[Shot], Shot],
        sink: Sink,
        drop: bool = True,
        depth: int = 1,
    ) -> None:
        self.capture, self.tracker, self.paint, self.sink = capture, tracker, paint, sink
        self.boxes = {name: Mailbox(depth, drop) for name in ("track", "swap", "show")}
        self.meter = Meter()
        self._error: BaseException | None = None

    def report(self) -> dict[str, Any]:
        """Frames, drops, fps and latencies so far."""
        return self.meter.report({name: box.dropped for name, box in self.boxes.items()})

    def run(
        self, stop: threading.Event | None = None, on_report: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """Runs until the capture ends or `stop` is set; the sink is closed then.

        Args:
            stop: set by anybody to end after the frame in work.
            on_report: gets the report about once a second.

        Raises:
            whatever a stage raised.
        """
        stop = stop or threading.Event()
        boxes = self.boxes
        stages = [
            self._thread("capture", boxes["track"], lambda: self._capture(stop)),
            self._thread("track", boxes["swap"], lambda: self._stage("track", self._tracked, "swap")),
            self._thread("swap", boxes["show"], lambda: self._stage("swap", self.paint, "show")),
        ]
        self.meter.began = time.perf_counter()
        for stage in stages:
            stage.start()
        try:
            self._show(stop, on_report)
        finally:
            self._end(stages)
        if self._error is not None:
            raise self._error

    def _end(self, stages: list[threading.Thread]) -> None:
        for box in self.boxes.values():
            box.cut()
        for stage in stages:
            stage.join(timeout=LAST_FRAME)
        self.meter.ended = time.perf_counter()
        self.sink.close()

    def _thread(self, name: str, out: Mailbox, work: Callable[[], None]) -> threading.Thread:
        """A stage that is not started yet; its error, if any, ends the loop and is raised by `run`."""

        def guarded() -> None:
            try:
                work()
            except Closed:
                pass
            except BaseException as error:  # kept, and raised again in the caller's thread
                self._error = self._error or error
            finally:
                out.close()

        return threading.Thread(target=guarded, name=f"mattface-{name}", daemon=True)

    def _capture(self, stop: threading.Event) -> None:
        for shot in self.capture:
            if stop.is_set():
                return
            self.meter.captured += 1
            self.boxes["track"].put(shot)

    def _stage(self, name: str, work: Callable[[Shot], Shot], following: str) -> None:
        into, out = self.boxes[name], self.boxes[following]
        try:
            while (shot := into.get()) is not None:
                start = time.perf_counter()
                done = work(shot)
                self.meter.stages[name].add(time.perf_counter() - start)
                out.put(done)
        finally:
            into.cut()

    def _tracked(self, shot: Shot) -> Shot:
        return replace(shot, tracks=self.tracker(eight_bit(shot.pixels), shot.time))

    def _show(self, stop: threading.Event, on_report: Callable[[dict[str, Any]], None] | None) -> None:
        reported = time.perf_counter()
        while not stop.is_set() and self._error is None:
            try:
                shot = self.boxes["show"].get(CHECK)
            except Closed:
                return
            if shot is not None:
                self._show_one(shot)
            if on_report is not None and time.perf_counter() - reported > 1:
                reported = time.perf_counter()
                self.meter.ended = reported
                on_report(self.report())

    def _show_one(self, shot: Shot) -> None:
        start = time.perf_counter()
        self.sink.show(shot)
        now = time.perf_counter()
        self.meter.stages["show"].add(now - start)
        self.meter.latency.add(now - shot.captured)
        self.meter.shown += 1
        self.meter.with_faces += bool(shot.boxes)
