"""mattface video: every frame of a file, none dropped, sound and tags kept, work done in parts that survive."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mattface import __version__
from mattface.errors import InputError
from mattface.pipeline import Swapper
from mattface.provenance import MARK, Settings, Swapped, hash_of
from mattface.provenance.laying import NO_FACE, Laying, payload_of_job
from mattface.realtime.encoding import Encoding, check_sound
from mattface.realtime.faces import Cast
from mattface.realtime.loop import Loop, Painter, Shot
from mattface.realtime.parts import FRAMES, Parts, PartsSink
from mattface.realtime.planes import Origin, upright_rgb
from mattface.realtime.track import OFFLINE, Pace, Tracker
from mattface.realtime.video import VideoReader

WARM_UP = 20
"""Frames before the first missing one from which faces are followed again, so that no seam shows."""
QUEUE = 4


@dataclass(frozen=True)
class Job:
    """One conversion.

    Attributes:
        source, output: video files.
        work: what decides the result beside the source (sources' names, method, options), as JSON holds it.
        encoding: how to encode.
        pace: how often the detector looks.
        resume: use the parts that an interrupted run has left.
        overwrite: the output may exist.
        mark: which layers of provenance are laid.
        part_frames: frames of a part.
    """

    source: str
    output: str
    work: dict[str, Any] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)
    pace: Pace = OFFLINE
    resume: bool = False
    overwrite: bool = False
    mark: Settings | bool = True
    part_frames: int = FRAMES


def convert(
    job: Job,
    swapper: Swapper,
    cast: Cast,
    stop: threading.Event | None = None,
    on_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Swaps the faces of a whole video file.

    Whatever ends it early, finished parts stay beside the output and `resume` goes on from there. When `stop` is set,
    the output is written with what is done so far.

    Args:
        job: what to do.
        swapper: with the parts to use.
        cast: which source goes onto which face.
        stop: set to end early.
        on_report: gets the report so far, about once a second.

    Returns:
        The report: "whole" (False when stopped early), frames, what was skipped, speeds, notes.

    Raises:
        InputError: the source cannot be read, the output not be written, or the disk is full.
    """
    stop = stop or threading.Event()
    with VideoReader(job.source) as reader:
        parts = Parts(job.output, job.source, _plan(job), job.resume, job.overwrite)
        notes = [*reader.info.notes, *check_sound(job.source, job.output, parts.folder / "trial")]
        sink = PartsSink(parts, reader.info, job.encoding, job.part_frames)
        tracker = Tracker(swapper.detector, swapper.landmarker, cast, job.pace)
        laying = _laying(job, cast, swapper)
        painter = _From(sink.first, Painter(swapper, cast, laying))
        loop = Loop(_shots(reader, sink.first - WARM_UP, stop), tracker, painter, sink, drop=False, depth=QUEUE)
        reused = parts.done
        loop.run(stop, on_report)
        whole = not stop.is_set()
        if whole and parts.unfinished.exists():
            parts.complete()
        if laying.wants(MARK) and not reused and not loop.meter.with_faces:
            laying.absent(MARK, NO_FACE)
        written = parts.write(job.source, reader.info, whole, laying)
        laid = laying.done(job.output)
        if whole and not written:
            raise InputError(f"{job.source}: expected frames; none could be used. Is the file damaged?")
        notes += [*_lost(reader), *laid.notes]
    return {
        "mattface": __version__,
        "files": {"target": job.source, "output": job.output if written else None},
        "whole": whole,
        "parts_reused": reused,
        "provenance": {"layers": laid.layers, "id": laid.payload},
        "video": {"size": reader.info.shown_size, "format": reader.info.format, "frames_read": reader.read,
                  "frames_skipped": reader.skipped, "cut_short": reader.cut_short},
        **loop.report(),
        "notes": notes,
    }  # fmt: skip


def _laying(job: Job, cast: Cast, swapper: Swapper) -> Laying:
    """Provenance of the output; a resumed run goes on with the same id."""
    record = Swapped(
        np.zeros((0, 0), np.float32), (), Path(job.source), hash_of(job.source), cast.hashes,
        swapper.method.name, swapper.method.describe().weights,
    )  # fmt: skip
    return Laying(Settings.of(job.mark), record, payload_of_job(_plan(job)))


def _plan(job: Job) -> dict[str, Any]:
    """What has to be the same for parts to fit."""
    state = os.stat(job.source)
    source = [str(Path(job.source).resolve()), state.st_size, state.st_mtime_ns]
    encoding = [job.encoding.codec, job.encoding.quality, job.encoding.preset]
    return {"version": __version__, "target": source, "encoding": encoding, "part": job.part_frames, **job.work}


class _From:
    """Paints frames from a given one on; those before are only looked at."""

    def __init__(self, first: int, painter: Painter) -> None:
        self.first, self.painter = first, painter

    def __call__(self, shot: Shot) -> Shot:
        return shot if shot.index < self.first else self.painter(shot)


def _shots(reader: VideoReader, first: int, stop: threading.Event) -> Iterator[Shot]:
    """Frames from `first` on, numbered from the beginning of the file."""
    for index, frame in enumerate(reader):
        if stop.is_set():
            return
        if index < first:
            continue
        pixels = upright_rgb(frame, reader.info)
        time = float((frame.pts or 0) * reader.info.time_base)
        yield Shot(index, pixels, time, perf_counter(), Origin(frame, reader.info, pixels))


def _lost(reader: VideoReader) -> list[str]:
    notes = []
    if reader.skipped:
        notes.append(
            f"{reader.skipped} damaged packet(s) or frame(s) were left out; the frames before them show longer"
        )
    if reader.cut_short:
        stated = f" of {reader.info.frames} stated" if reader.info.frames else ""
        notes.append(f"the file is cut off or damaged at its end: {reader.read} frames{stated} could be read")
    return notes
