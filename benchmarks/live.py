"""python -m mattface.benchmarks.live: is the live loop fast enough, cheap enough by itself, and flat in memory?

Three measurements, each of public calls only. "mesh": the whole loop at 640x480 and 30 frames a second, the example
pair moved by a known path. "overhead": 1280x720 frames through the loop without any network, once without and once with
a face that is cut out and pasted back. "memory": resident memory over many frames.
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import mattface
from mattface import picture_io
from mattface.benchmarks.common import save
from mattface.devices import quick_dtype
from mattface.examples import example_pair
from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.methods import entry
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.pipeline import Swapper
from mattface.realtime.faces import Cast
from mattface.realtime.loop import Loop, Painter, Shot
from mattface.realtime.track import LIVE, Tracked, Tracker
from mattface.vocabulary import Crop, Face, MatteFilter, Swap

FAST = ("mesh", "alphaface-small")
"""Methods that are fast enough on a CPU."""
FPS = 30
STEPS = 120


def path(step: int, size: tuple[int, int]) -> np.ndarray:
    """(2, 3) cv2 matrix of the moving picture (512 wide) at a step of the closed path."""
    t = 2 * np.pi * step / STEPS
    matrix = cv2.getRotationMatrix2D((256, 240), 8 * np.sin(t), size[1] / 480 * (0.9 + 0.1 * np.sin(2 * t)))
    matrix[:, 2] += np.array(size) / 2 - [256, 240] + [0.08 * size[0] * np.sin(t), 0.03 * size[1] * np.cos(2 * t)]
    return matrix


def moving(size: tuple[int, int]) -> list[np.ndarray]:
    """Frames (H, W, 3) of a face on a closed path, as a camera would see it: with some noise."""
    picture = picture_io.read(example_pair()["hopper"]).pixels
    rng = np.random.default_rng(0)
    frames = []
    for step in range(STEPS):
        frame = cv2.warpAffine(picture, path(step, size), size, borderMode=cv2.BORDER_REFLECT)
        noise = rng.normal(0, 2, (*frame.shape[:2], 1)).astype(np.float32)
        frames.append(np.clip(frame + noise, 0, 255).astype(np.uint8))
    return frames


class Frames:
    """Frames out of memory, paced like a camera's or as fast as they are taken."""

    def __init__(self, frames: list[np.ndarray], count: int, paced: bool) -> None:
        self.frames, self.count, self.paced = frames, count, paced

    def __iter__(self) -> Iterator[Shot]:
        """`count` frames, repeated from the beginning as often as needed."""
        began = time.perf_counter()
        for index, frame in zip(range(self.count), itertools.cycle(self.frames), strict=False):
            due = began + index / FPS
            if self.paced and due > time.perf_counter():
                time.sleep(max(0.0, due - time.perf_counter()))
            yield Shot(index, frame, index / FPS, time.perf_counter())


class Nowhere:
    """A sink that only counts, and looks at memory now and then."""

    def __init__(self, look_every: int = 0) -> None:
        self.look_every, self.count = look_every, 0
        self.memory: list[tuple[int, float]] = []

    def show(self, shot: Shot) -> None:
        """Counts."""
        self.count += 1
        if self.look_every and self.count % self.look_every == 0:
            self.memory.append((self.count, resident()))

    def close(self) -> None:
        """Nothing to do."""


def resident() -> float:
    """Resident memory of this process in MB; the largest so far where the system tells no other."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(loop: Loop) -> dict[str, Any]:
    """The loop's report, with CPU seconds per frame and what else the machine was doing."""
    before = time.process_time()
    loop.run(threading.Event())
    used = time.process_time() - before
    report = loop.report()
    report["cpu_ms_per_frame"] = round(1000 * used / max(1, report["frames"]["shown"]), 2)
    report["load_average"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return report


def whole(method: str, seconds: float, size: tuple[int, int]) -> dict[str, Any]:
    """The whole loop with a method, at 30 frames a second."""
    cv2.setNumThreads(1)  # as the live command does
    dtype = quick_dtype(torch.device("cpu"))
    swapper = mattface.load(method, device="cpu", dtype=dtype, **entry(method).live)
    cast = Cast(swapper, example_pair()["astronaut"])
    frames = moving(size)
    warm = Loop(iter(Frames(frames, 30, True)), tracker(swapper, cast), Painter(swapper, cast), Nowhere())
    warm.run()
    count = round(seconds * FPS)
    return run(Loop(iter(Frames(frames, count, True)), tracker(swapper, cast), Painter(swapper, cast), Nowhere()))


def tracker(swapper: Swapper, cast: Cast) -> Tracker:
    """Of the live command."""
    return Tracker(swapper.detector, swapper.landmarker, cast, LIVE)


class Copy:
    """A method without a network: it returns the target's own crop under a disc."""

    name, crop = "copy", CropSpec("ffhq", 256)

    def __init__(self) -> None:
        y, x = np.mgrid[:256, :256]
        disc = (np.hypot(x - 127.5, y - 127.5) < 80).astype(np.float32)
        self.matte = torch.from_numpy(cv2.GaussianBlur(disc, (0, 0), 8))[None, None]

    def encode(self, source: Crop) -> None:
        """Nothing."""

    def merge(self, encoded: Sequence[None]) -> None:
        """Nothing."""

    def describe(self) -> Description:
        """Its name."""
        return Description(self.name, None, "none")

    def swap(self, encoded: None, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """The target as it is."""
        return filtered(Swap(target.pixels, self.matte), matte_filter)


class Known:
    """Instead of networks: knows where the face is, because it knows the path."""

    name = "known"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.step = size, 0
        mesh = topology().mean * 60
        mesh[:, :2] += [250, 170]
        self.mesh = mesh

    def __call__(self, rgb: np.ndarray, *_: Any, **__: Any) -> Any:
        """The face in the next frame, as the landmark stage would tell it."""
        matrix = path(self.step % STEPS, self.size)
        self.step += 1
        mesh = self.mesh.copy()
        mesh[:, :2] = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)])
        return Face(box, 1.0, five_points(mesh), mesh, 1.0)


class Looks:
    """A detector that finds the face of `Known`."""

    name = "known"

    def __init__(self, known: Known) -> None:
        self.known = known

    def __call__(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """One face."""
        scale = rgb.shape[1] / self.known.size[0]
        face = self.known(rgb)
        return [replace(face, box=face.box * scale, points=face.points * scale)]


def without_networks(size: tuple[int, int]) -> tuple[Swapper, Cast]:
    """A swapper whose parts compute next to nothing."""
    known = Known(size)
    copy: Any = Copy()
    detector: Any = Looks(known)
    landmarker: Any = known
    swapper = Swapper(copy, detector, landmarker, None, torch.device("cpu"))
    return swapper, Cast(swapper, moving(size)[0])


def overhead(frames: int, size: tuple[int, int] = (1280, 720)) -> dict[str, Any]:
    """Milliseconds a frame costs beside networks: in the loop alone, and with one face cut out and pasted back."""
    pictures = moving(size)[:: STEPS // 8]
    swapper, cast = without_networks(size)

    def nobody(_rgb: np.ndarray, _time: float) -> tuple[Tracked, ...]:
        return ()

    found = {}
    for name, find in (("empty", nobody), ("one_face", tracker(swapper, cast))):
        capture = iter(Frames(pictures, frames, False))
        report = run(Loop(capture, find, Painter(swapper, cast), Nowhere(), drop=False))
        wall = 1000 * report["seconds"] / max(1, report["frames"]["shown"])
        found[name] = {"wall_ms_per_frame": round(wall, 3), **report}
    return found


def memory(frames: int, size: tuple[int, int] = (640, 480)) -> dict[str, Any]:
    """Resident memory while many frames pass through the loop without networks; growth from a tenth of them on."""
    swapper, cast = without_networks(size)
    sink, pictures = Nowhere(max(1, frames // 20)), moving(size)
    run(Loop(iter(Frames(pictures, frames, False)), tracker(swapper, cast), Painter(swapper, cast), sink, False))
    seen = dict(sink.memory)
    start = min(count for count in seen if count >= frames / 10)
    return {"frames": sink.count, "megabytes": seen, "growth_mb": round(seen[max(seen)] - seen[start], 2)}


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/live.json", help="JSON file (default: runs/live.json)")
    parser.add_argument("--seconds", type=float, default=60, help="of the live run (default: 60)")
    parser.add_argument("--frames", type=int, default=10_000, help="of the memory run (default: 10000)")
    parser.add_argument("--overhead-frames", type=int, default=600)
    parser.add_argument("--only", choices=(*FAST, "overhead", "memory"))
    args = parser.parse_args()
    cv2.setNumThreads(1)  # stages run side by side; inside one, threads would only wait for each other
    torch.set_num_threads(1)
    numbers: dict[str, Any] = {}
    for method in FAST if args.only is None else {args.only} & set(FAST):
        told = numbers[f"{method}_640x480"] = whole(method, args.seconds, (640, 480))
        print(f"{method} 640x480: {told['fps']} fps, latency {told['latency_ms']}, dropped {told['dropped']}, "
              f"CPU {told['cpu_ms_per_frame']} ms a frame, load {told['load_average']}")  # fmt: skip
    if args.only in (None, "overhead"):
        numbers["overhead_1280x720"] = overhead(args.overhead_frames)
        for name, told in numbers["overhead_1280x720"].items():
            print(
                f"overhead 1280x720, {name}: {told['wall_ms_per_frame']} ms a frame, {told['cpu_ms_per_frame']} of CPU"
            )
    if args.only in (None, "memory"):
        numbers["memory"] = memory(args.frames)
        print(f"memory: {numbers['memory']['growth_mb']} MB more after {numbers['memory']['frames']} frames")
    save(numbers, Path(args.out))
    print(Path(args.out).resolve())


if __name__ == "__main__":
    main()
