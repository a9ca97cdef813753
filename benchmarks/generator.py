"""python -m mattface.benchmarks.generator: StyleGAN2 from W+ to pixels against the arithmetic of its convolutions.

Arithmetic is what the convolutions must multiply and add, at the rate of one large convolution of the same run.
Half formats run as users run them: weights in single precision under autocast. On a GPU the forward pass is also
captured in a CUDA graph. Weights are seeded; the error of a half format is given in grey levels of a picture whose own
range is 255 of them, since random weights draw with another contrast than trained ones.
"""

from __future__ import annotations

import argparse
import gc
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mattface import cuda_ops
from mattface.benchmarks.common import measure, save, show
from mattface.generate.synthesis import SynthesisLayer, SynthesisNetwork, ToRGB

INNER_FACE = (0.222, 0.263, 0.771, 0.897)
"""Left, top, right, bottom of the inner face in an FFHQ crop: the mean over 46 portraits."""
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def convolution_rate(dtype: torch.dtype, device: str, runs: int) -> float:
    """FLOP per second of a 3x3 convolution of the generator's size, channels-last."""
    x = torch.randn(1, 256, 128, 128, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    seconds = measure(lambda: F.conv2d(x, weight, padding=1), warm_up=3, runs=runs)["median"]
    return 2 * 256 * 256 * 9 * 128 * 128 / seconds


def arithmetic(net: SynthesisNetwork, w_plus: torch.Tensor) -> float:
    """FLOP of the convolutions of one forward pass: twice weights times input pixels (or output pixels at stride 1)."""
    total = 0.0

    def count(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal total
        total += 2.0 * layer.weight.numel() * inputs[0].shape[2] * inputs[0].shape[3] * len(inputs[0])  # type: ignore

    layers = [m for m in net.modules() if isinstance(m, SynthesisLayer | ToRGB)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    net(w_plus)
    for hook in hooks:
        hook.remove()
    return total


def captured(work: Callable[[], Any]) -> Callable[[], None]:
    """The same work as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def peak_megabytes(work: Callable[[], Any], device: str) -> float | None:
    """Memory that `work` needs above what is held before it, in MB; None where the system does not tell.

    What the first call loads of libraries does not count, what it keeps for the next one does.
    """
    work()
    gc.collect()
    cuda_ops.release_memory()
    if device != "cpu":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status("VmRSS")
        work()
        return (_status("VmHWM") - before) * 1024 / 1e6
    except OSError:
        return None


def _status(name: str) -> int:
    """KiB of a line of /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    if found is None:
        raise OSError(f"{name} is not in /proc/self/status")
    return int(found.group(1))


def forward_times(
    net: SynthesisNetwork, w_plus: torch.Tensor, dtype: torch.dtype, runs: int, rate: float
) -> dict[str, float]:
    """Seconds of the whole picture and of an average inner face, in one dtype."""
    side, device = net.resolution, w_plus.device.type
    region = tuple(round(v * side) for v in INNER_FACE)

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast(device, dtype, enabled=dtype != torch.float32, cache_enabled=False)

    def run(**options: Any) -> Any:
        with cast():
            return net(w_plus, **options)

    def reference() -> Any:
        with cuda_ops.reference_only():
            return run()

    works = {"whole": run, "inner face": lambda: run(region=region), "reference": reference}
    if device == "cuda":
        works["whole, CUDA graph"] = captured(run)
    seconds = {name: measure(work, warm_up=2, runs=runs)["median"] for name, work in works.items()}
    out = {f"{name}, ms per picture": 1e3 * v / len(w_plus) for name, v in seconds.items()}
    out["whole / arithmetic"] = seconds["whole"] / (arithmetic(net, w_plus) / rate)
    out["inner face / whole"] = seconds["inner face"] / seconds["whole"]
    out["reference / whole"] = seconds["reference"] / seconds["whole"]
    return out


def error_levels(net: SynthesisNetwork, w_plus: torch.Tensor, dtype: torch.dtype) -> dict[str, float]:
    """Difference of a half format's picture to single precision."""
    exact = net(w_plus).image
    with torch.autocast(w_plus.device.type, dtype):
        half = net(w_plus).image
    if exact is None or half is None:
        raise RuntimeError("the generator drew no picture")
    difference = (half.float() - exact).abs()
    range_ = float(exact.max() - exact.min())
    return {
        "peak error, levels of the picture's range": 255 * float(difference.max()) / range_,
        "peak error, levels of [-1, 1]": 127.5 * float(difference.max()),
        "mean error, levels of [-1, 1]": 127.5 * float(difference.mean()),
        "picture's std": float(exact.std()),
    }


def run(device: str, resolution: int, runs: int) -> dict[str, Any]:
    """Everything for one device."""
    torch.manual_seed(0)
    net = SynthesisNetwork(resolution=resolution).to(device).eval()
    w_plus = torch.randn(1, net.num_styles, 512, device=device)
    memory = peak_megabytes(lambda: net(w_plus), device)
    rate = convolution_rate(torch.float32, device, runs)
    gflop = arithmetic(net, w_plus) / 1e9
    numbers: dict[str, Any] = {
        "arithmetic": {"GFLOP": gflop, "GFLOP/s of a convolution": rate / 1e9, "peak MB above weights": memory}
    }
    numbers["fp32"] = forward_times(net, w_plus, torch.float32, runs, rate)
    for name, dtype in HALVES.items():
        if device == "cpu" and dtype == torch.float16:
            continue
        numbers[name] = forward_times(net, w_plus, dtype, runs, convolution_rate(dtype, device, runs))
        numbers[name] |= error_levels(net, w_plus, dtype)
        numbers[name]["fp32 / this"] = (
            numbers["fp32"]["whole, ms per picture"] / numbers[name]["whole, ms per picture"]
        )  # fmt: skip
        if device != "cpu":
            eight = w_plus.expand(8, -1, -1).contiguous()
            numbers[f"{name}, batch 8"] = forward_times(net, eight, dtype, runs, convolution_rate(dtype, device, runs))
    return numbers


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/generator.json", help="JSON file (default: runs/generator.json)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--resolution", type=int, default=1024)
    args = parser.parse_args()
    with torch.no_grad():
        numbers = run(args.device, args.resolution, args.runs)
    show(f"{args.resolution} px on {args.device}", numbers)
    save({"available": cuda_ops.available(), **numbers}, Path(args.out))
    print(Path(args.out).resolve())


if __name__ == "__main__":
    main()
