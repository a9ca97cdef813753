"""python -m mattface.benchmarks.studio: how fast the studio draws, how well it fits, how alike its renderers are.

A triplet is three pictures with masks, depth and flow; pictures per second count three a triplet. CPU seconds are given
beside wall-clock seconds, since a machine is seldom idle. Landmark errors are in pixels of a 1024 px photograph: 68
landmarks, those of the outline measured across it.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mattface.benchmarks.common import save, show
from mattface.errors import InputError
from mattface.training.studio.people import Studio
from mattface.training.studio.render import Renderer
from mattface.training.studio.shots import KINDS, Config
from mattface.training.studio.studio_file import load_studio
from mattface.training.studio.triplets import TripletMaker

WARM_UP = 2


def speed(studio: Studio, size: int, count: int, kind: str | None = None) -> dict[str, float]:
    """Pictures per second of one process, and CPU seconds of a picture."""
    make = TripletMaker(studio, Config(size=size))
    for seed in range(WARM_UP):
        make(seed, kind)
    wall, busy = time.perf_counter(), time.process_time()
    for seed in range(count):
        make(seed, kind)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    return {"pictures per second": 3 * count / wall, "CPU seconds a picture": busy / (3 * count)}


def _work(path: str, size: int, start: float, count: int) -> tuple[float, float, int]:
    """One process of `together`: prepares, waits for the start, draws."""
    make = TripletMaker(load_studio(Path(path)), Config(size=size))
    for seed in range(WARM_UP):
        make(seed)
    late = time.time() > start
    time.sleep(max(0.0, start - time.time()))
    begun = time.time()
    for seed in range(count):
        make(seed)
    return begun, time.time(), int(late)


def together(path: Path, size: int, count: int, processes: int) -> dict[str, float]:
    """Pictures per second of several processes that start at one time."""
    start = time.time() + 30
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_work, str(path), size, start, count) for _ in range(processes)]
        times = [job.result() for job in jobs]
    seconds = max(t[1] for t in times) - min(t[0] for t in times)
    late = float(sum(t[2] for t in times))
    return {"pictures per second": 3 * count * processes / seconds, "processes": float(processes), "late": late}


def renderers(studio: Studio, size: int, count: int) -> dict[str, float]:
    """Grey levels by which pictures of the torch renderer differ from those of the CPU's."""
    makers = [TripletMaker(studio, Config(size=size), Renderer(studio.model, b)) for b in ("cpu", "torch")]
    worst, unequal, seconds = 0, 0.0, 0.0
    for seed in range(count):
        one = makers[0](seed)
        begun = time.perf_counter()
        other = makers[1](seed)
        seconds += time.perf_counter() - begun
        for name in ("source", "target", "swap"):
            apart = np.abs(getattr(one, name).astype(int) - getattr(other, name))
            worst, unequal = max(worst, int(apart.max())), unequal + float((apart > 0).mean()) / (3 * count)
    seconds /= 3 * count
    return {"largest difference": float(worst), "share unequal": unequal, "torch seconds a picture": seconds}


def fits(folder: Path) -> dict[str, float]:
    """Landmark errors and seconds of the linear fit over a folder of photographs."""
    from mattface import perception, picture_io
    from mattface.training.studio.face_model import load_model
    from mattface.training.studio.fit import Fitter

    find, measure, fitter = perception.load("detector"), perception.load("landmarks"), Fitter(load_model())
    errors, seconds = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        pixels = picture_io.read(path).pixels
        faces = find(pixels)
        if not faces:
            continue
        mesh = measure(pixels, faces[0]).mesh
        if mesh is None:
            raise InputError(f"{path}: expected dense landmarks; got none.")
        begun = time.perf_counter()
        fit = fitter(mesh)
        seconds.append(time.perf_counter() - begun)
        errors.append(fit.errors * 1024 / max(pixels.shape[:2]))
    if not errors:
        raise InputError(f"expected photographs with faces in {folder}; found none.")
    flat = np.concatenate(errors)
    tail = float(np.percentile(flat, 95))
    return {"faces": float(len(errors)), "median px": float(np.median(flat)), "95th px": tail} | {
        "worst face px": float(max(np.median(e) for e in errors)), "seconds": float(np.median(seconds))
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m mattface.benchmarks.studio", description=__doc__)
    parser.add_argument("--people", type=Path, required=True, help="made by: mattface studio people")
    parser.add_argument("--portraits", type=Path, help="folder of photographs to fit")
    parser.add_argument("--count", type=int, default=20, help="triplets a measurement (default: 20)")
    parser.add_argument("--processes", type=int, default=2, help="default: 2")
    parser.add_argument("--out", type=Path, help="write numbers as JSON")
    arguments = parser.parse_args()
    studio = load_studio(arguments.people)
    rows: dict[str, dict[str, Any]] = {}
    for size in (256, 512):
        rows[f"{size} px, one process"] = speed(studio, size, arguments.count)
    rows |= {f"256 px, {kind}": speed(studio, 256, arguments.count // 2, kind) for kind in KINDS}
    rows[f"256 px, {arguments.processes} processes"] = together(
        arguments.people, 256, arguments.count, arguments.processes
    )
    rows["torch against CPU at 256 px"] = renderers(studio, 256, max(1, arguments.count // 4))
    if arguments.portraits:
        rows["fit"] = fits(arguments.portraits)
    show("studio", rows)
    if arguments.out:
        save({"studio": rows}, arguments.out)


if __name__ == "__main__":
    main()
