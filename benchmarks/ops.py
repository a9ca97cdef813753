"""python -m mattface.benchmarks.ops: cuda_ops against the common formulation and a copy of the bytes.

The common formulation is what most StyleGAN2 code runs without custom kernels: insert zeros, pad, grouped convolution;
bias, activation, gain and clamp as passes of their own. Only ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mattface import cuda_ops
from mattface.benchmarks.common import measure, save, show

FILTER = (1.0, 3.0, 3.0, 1.0)
CLAMP = 256.0


def common_upfirdn2d(x: torch.Tensor, f: torch.Tensor, up: int, pad: list[int], gain: float) -> torch.Tensor:
    """Zeros inserted by reshaping, padding, one grouped convolution with the two-dimensional filter."""
    b, c, h, w = x.shape
    x = F.pad(x.reshape(b, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(b, c, h * up, w * up)
    weight = (f * gain).flip(0, 1).to(x.dtype)[None, None].repeat(c, 1, 1, 1)
    return F.conv2d(F.pad(x, pad), weight, groups=c)


def common_bias_act(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Bias, leaky ReLU, gain, clamp, one after the other."""
    x = x + b.reshape(1, -1, 1, 1)
    x = F.leaky_relu(x, 0.2)
    x = x * math.sqrt(2)
    return x.clamp(-CLAMP, CLAMP)


def op_cases(dtype: torch.dtype, device: str, last: bool) -> dict[str, tuple[Callable, Callable, torch.Tensor, int]]:
    """Name -> (ours, common formulation, input, bytes that must be moved)."""
    layout = torch.channels_last if last else torch.contiguous_format
    make = lambda *shape: torch.randn(*shape, device=device).to(dtype).contiguous(memory_format=layout)  # noqa: E731
    f = cuda_ops.setup_filter(FILTER, device=device)
    x, small, b = make(1, 32, 1024, 1024), make(1, 64, 512, 512), torch.randn(32, device=device).to(dtype)
    size = x.element_size()
    return {
        "filter (1,32,1024,1024)": (
            lambda x: cuda_ops.filter2d(x, f),
            lambda x: common_upfirdn2d(x, f, 1, [2, 1, 2, 1], 1),
            x,
            2 * size * x.numel(),
        ),
        "up 2 (1,64,512,512)": (
            lambda x: cuda_ops.upsample2d(x, f),
            lambda x: common_upfirdn2d(x, f, 2, [2, 1, 2, 1], 4),
            small,
            5 * size * small.numel(),
        ),
        "bias, leaky ReLU, clamp (1,32,1024,1024)": (
            lambda x: cuda_ops.bias_act(x, b, act="lrelu", clamp=CLAMP),
            lambda x: common_bias_act(x, b),
            x,
            2 * size * x.numel(),
        ),
    }


def compare_ops(dtype: torch.dtype, device: str, last: bool, runs: int) -> dict[str, Any]:
    """Every case: seconds of ours, of the common formulation (contiguous, its usual layout), and of copies."""
    out = {}
    for name, (ours, common, x, moved) in op_cases(dtype, device, last).items():
        plain, source = x.contiguous(), torch.zeros(moved // 2 // x.element_size(), dtype=dtype, device=device)
        target = torch.empty_like(source)
        seconds = {
            "ours": measure(partial(ours, x), runs=runs)["median"],
            "common": measure(partial(common, plain), runs=runs)["median"],
            "copy": measure(partial(target.copy_, source), runs=runs)["median"],
            "copy into fresh memory": measure(source.clone, runs=runs)["median"],
        }
        ratios = {f"{k} / ours": v / seconds["ours"] for k, v in seconds.items() if k == "common"}
        ratios |= {f"ours / {k}": seconds["ours"] / v for k, v in seconds.items() if k.startswith("copy")}
        out[name] = {"seconds": seconds, **ratios}
    return out


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/ops.json", help="JSON file (default: runs/ops.json)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    numbers: dict[str, Any] = {"available": cuda_ops.available()}
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            for last in (True, False):
                title = f"{str(dtype).removeprefix('torch.')} {'channels-last' if last else 'NCHW'}"
                numbers[title] = compare_ops(dtype, args.device, last, args.runs)
                show(title, numbers[title])
    save(numbers, Path(args.out))
    print(Path(args.out).resolve())


if __name__ == "__main__":
    main()
