"""python -m mattface.benchmarks.swap_time: seconds per swap of the example pair, by every method that has weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mattface
from mattface.benchmarks.common import measure, save
from mattface.errors import LicenceError, WeightsError
from mattface.examples import example_pair
from mattface.methods import METHODS


def swap_time(method: str, device: str, runs: int, commercial: bool | None = None) -> dict[str, Any]:
    """Seconds of encoding the source and of swapping once it is encoded, files decoded before."""
    from mattface import picture_io

    source, target = (picture_io.read(path) for path in example_pair().values())
    swapper = mattface.load(method, device=device, commercial=commercial)
    identity = swapper.prepare(source)
    prepared = measure(lambda: swapper.prepare(source), runs=runs)
    swapped = measure(lambda: swapper.swap(identity, target), runs=runs)
    return {"prepare": prepared, "swap": swapped, "target_size": target.size, "notes": list(swapper.notes)}


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/swap_time.json", help="JSON file (default: runs/swap_time.json)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--commercial", action="store_true", default=None, help="only what allows commercial use")
    args = parser.parse_args()
    numbers: dict[str, Any] = {}
    for method in sorted(METHODS):
        try:
            numbers[method] = swap_time(method, args.device, args.runs, args.commercial)
        except (WeightsError, LicenceError) as error:
            print(f"{method}: left out. {error}")
            continue
        for note in numbers[method]["notes"]:
            print(f"{method}: {note}")
        for part in ("prepare", "swap"):
            seconds = numbers[method][part]
            print(f"{method} {part}: {seconds['median']:.3f} s ({seconds['fastest']:.3f} to {seconds['slowest']:.3f})")
    save({"methods": numbers}, Path(args.out))
    print(Path(args.out).resolve())


if __name__ == "__main__":
    main()
