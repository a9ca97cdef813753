"""python -m mattface.benchmarks.mobile_generator: mobile-ffhq in PyTorch and in OpenVINO, by turns in one run.

Both draw the same W at 1024 px on the same threads; what counts is the ratio. Needs the weights and openvino
(`pip install 'mattface[realtime]'`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mattface import weights as registry
from mattface.benchmarks.common import measure, save, show
from mattface.errors import UsageError
from mattface.generate.named import EMBEDDED, load_generator
from mattface.weights.archives import read_member

HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino_network(threads: int, hint: str) -> Callable[[np.ndarray], np.ndarray]:
    """(1, 512) style to (1, 3, 1024, 1024), by OpenVINO on the file as it is."""
    try:
        import openvino
    except ImportError as error:
        raise UsageError("this benchmark compares with OpenVINO. Type: pip install openvino") from error
    card = registry.card(EMBEDDED)
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    with tempfile.TemporaryDirectory() as folder:
        for member, digest in card.members.items():
            if "SynthesisNetwork" in member:
                data = read_member(registry.find(EMBEDDED), member, digest)
                (Path(folder) / Path(member).name).write_bytes(data)
        topology, options = str(Path(folder) / "SynthesisNetwork.xml"), {"INFERENCE_PRECISION_HINT": hint}
        model = core.compile_model(topology, "CPU", options)
    return lambda style: next(iter(model({0: style}).values()))


def compare(dtype: str, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of both by turns, their ratio, and their mean error against OpenVINO in single precision."""
    torch.set_num_threads(threads)
    generator = load_generator(EMBEDDED)
    theirs = openvino_network(threads, HINTS[dtype])
    style = generator.mapping.style(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)))
    w_plus, plain = style[:, None].repeat(1, 18, 1), style.numpy()

    def ours() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            return generator.synthesis(w_plus).image

    turns: dict[str, list[float]] = {"ours": [], "openvino": []}
    for _ in range(rounds):
        turns["ours"].append(measure(ours, warm_up=1, runs=3)["median"])
        turns["openvino"].append(measure(lambda: theirs(plain), warm_up=1, runs=3)["median"])
    ratios = [a / b for a, b in zip(turns["ours"], turns["openvino"], strict=True)]
    exact = openvino_network(threads, HINTS["fp32"])(plain)
    pictures = {"ours": ours().float().numpy(), "openvino": theirs(plain)}
    errors = {f"{name}, mean error": float(np.abs(one - exact).mean()) for name, one in pictures.items()}
    medians = {f"{name}, s": statistics.median(values) for name, values in turns.items()}
    return {**medians, "ours / openvino": statistics.median(ratios), **errors}


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mobile_generator.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    args = parser.parse_args()
    with torch.inference_mode():
        numbers = {dtype: compare(dtype, args.threads, args.rounds) for dtype in HINTS}
    show(f"{EMBEDDED}, 1024 px, {args.threads} threads", numbers)
    save(numbers, args.out)
    print(args.out.resolve())


if __name__ == "__main__":
    main()
