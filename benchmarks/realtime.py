"""python -m mattface.benchmarks.realtime: parameters, GFLOP and ms a frame of the real-time networks by engine.

alphaface is also held against its convolution work at the rate of its widest convolution, and against a plain
transcription of the published network, both measured in the same run. Only ratios within one run mean something. What
cannot run here is listed with its reason. Weights are random: they change no time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mattface.benchmarks.common import measure, save
from mattface.devices import DTYPES, resolve_device
from mattface.errors import DeviceError, UsageError
from mattface.methods.contract import CropSpec
from mattface.parse import Parser
from mattface.realtime import engine
from mattface.realtime.methods import alphaface, alphaface_paper, facechanger, magicmask
from mattface.realtime.methods.aligned import AlignedMethod
from mattface.realtime.methods.alphaface import InjectionUnit
from mattface.realtime.methods.blocks import SwapNetwork, moved

NETWORKS: dict[str, Any] = {
    "alphaface": alphaface,
    "alphaface-paper": alphaface_paper,
    "facechanger": facechanger,
    "magicmask": magicmask,
}
"""Method -> its module."""
CONVOLUTIONS = ("aten.convolution", "aten._convolution")


class PlainUnit(nn.Module):
    """Convolution, instance normalisation and AdaIN, every step as a line of its own."""

    def __init__(self, channels: int, code: int, active: bool) -> None:
        super().__init__()
        self.conv, self.style = nn.Conv2d(channels, channels, 3), nn.Linear(code, 2 * channels)
        self.active = active

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        scale, shift = self.style(code)[..., None, None].chunk(2, 1)
        scale, shift = (scale + self.adapted(scale, x)) / 2, (shift + self.adapted(shift, x)) / 2
        y = self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        y = y - y.mean((2, 3), keepdim=True)
        y = y * torch.rsqrt((y * y).mean((2, 3), keepdim=True) + 1e-8)
        y = y * scale + shift
        return F.relu(y) if self.active else y

    @staticmethod
    def adapted(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """AdaIN(value, x), statistics over space."""
        own = (value - value.mean((2, 3), keepdim=True)) / torch.sqrt(
            value.var((2, 3), correction=0, keepdim=True) + 1e-8
        )
        return own * x.std((2, 3), correction=0, keepdim=True) + x.mean((2, 3), keepdim=True)


class PlainAlphaFace(nn.Module):
    """AlphaFace's published network written down without any thought of speed; parameters as in `alphaface`."""

    def __init__(self, network: SwapNetwork) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(network.encoder.get_submodule("convs").children())
        self.units = nn.ModuleList()
        for block in network.inject:
            for name in ("first", "second"):
                source = block.get_submodule(name)
                if not isinstance(source, InjectionUnit):
                    raise UsageError(f"expected a network of alphaface; got a {type(source).__name__} in it.")
                unit = PlainUnit(source.conv.in_channels, source.style.in_features, source.active)
                unit.load_state_dict(source.state_dict())
                self.units.append(unit)
        self.convs = nn.ModuleList(network.decoder.get_submodule("convs").children())
        self.to_rgb = network.decoder.get_submodule("to_rgb")

    def forward(self, target: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [-1, 1] and (B, D) to (B, 3, S, S) in [-1, 1]."""
        x = (target + 1) / 2
        for conv in self.encoder:
            x = F.leaky_relu(conv(x), 0.2)
        for first, second in zip(self.units[::2], self.units[1::2], strict=True):
            x = x + second(first(x, code), code)
        for index, conv in enumerate(self.convs):
            if index < 2:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2)
        x = (torch.tanh(self.to_rgb(F.pad(x, (3, 3, 3, 3), mode="reflect"))) + 1) / 2
        return x * 2 - 1


def method(name: str, device: torch.device) -> AlignedMethod:
    """A method of official size with random weights, without identity part."""
    module = NETWORKS[name]
    torch.manual_seed(0)
    config = module.Config()
    network = module.build_network(config)
    crop = CropSpec("arcface", config.size)
    coder = lambda crop: torch.ones(1, config.code)  # noqa: E731
    return AlignedMethod(name, crop, network, coder, Parser("mesh"), "random", device, torch.float32)


def work(one: AlignedMethod) -> dict[str, float]:
    """Parameters, and FLOP of everything and of the convolutions."""
    with FlopCounterMode(display=False) as counter:
        one.network(*one.example())
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(v for op, v in counts.items() if str(op).startswith(CONVOLUTIONS))
    parameters = sum(p.numel() for p in one.network.parameters())
    return {"parameters": parameters, "GFLOP": counter.get_total_flops() / 1e9, "convolution GFLOP": convolutions / 1e9}


def by_engine(one: AlignedMethod, engines: list[str], dtype: str, runs: int) -> dict[str, Any]:
    """Engine -> milliseconds a frame, or why it cannot run; for alphaface "plain" and "convolution", too.

    All of them take turns, so that what else the machine does meets all alike.
    """
    given, rows = one.example(), dict[str, Any]()
    works: dict[str, Callable[[], torch.Tensor]] = {}
    for name in engines:
        try:
            fast = engine.faster(one, name, one.device, DTYPES[dtype])
        except DeviceError as error:
            rows[name] = str(error)
            continue
        works[name] = partial(fast.run, *given)
    if one.name == "alphaface":
        works |= yardsticks(one, DTYPES[dtype])
    turns: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(runs + 1):
        for name, call in works.items():
            seconds = measure(call, warm_up=0, runs=1)["median"]
            turns[name] += [1000 * seconds] if turn else []  # the first turn warms up
    for name, ms in turns.items():
        rows[name] = {"median": statistics.median(ms), "fastest": min(ms), "slowest": max(ms)}
        print(f"  {name}, {dtype}: {rows[name]['median']:.1f} ms ({min(ms):.1f} to {max(ms):.1f})", flush=True)
    return rows


def yardsticks(one: AlignedMethod, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """The plain transcription, and alphaface's widest convolution (channels-last)."""
    plain = moved(PlainAlphaFace(copy.deepcopy(one.network)), one.device, dtype, channels_last=False).eval()
    weight, side = widest(one)
    x = torch.randn(1, weight.shape[1], side, side, device=one.device)
    x, weight = (v.to(dtype=dtype, memory_format=torch.channels_last) for v in (x, weight))
    given = [x.to(dtype) for x in one.example()]
    return {"plain": partial(plain, *given), "convolution": partial(F.conv2d, x, weight, padding=1)}


def widest(one: AlignedMethod) -> tuple[torch.Tensor, int]:
    """Weight of alphaface's widest convolution, and the side of its map."""
    block = one.network.get_submodule("inject.0.first.conv")
    return block.get_parameter("weight"), one.example()[0].shape[-1] // 4


def ratios(one: AlignedMethod, row: dict[str, Any], dtype: str) -> dict[str, Any]:
    """alphaface against its convolution work at the measured rate, and against the plain transcription.

    Fastest turns are compared: what else the machine does can only add to a turn.
    """
    ms = {name: v["fastest"] for name, v in row["milliseconds"][dtype].items() if isinstance(v, dict)}
    weight, side = widest(one)
    rate = 2 * weight.numel() * side * side / (1e6 * ms.pop("convolution"))  # GFLOP/s
    ideal, slow = 1000 * row["convolution GFLOP"] / rate, ms.pop("plain")
    return {
        "GFLOP/s of a convolution": rate,
        "ms of its convolutions at that rate": ideal,
        "engine / convolutions": {k: v / ideal for k, v in ms.items()},
        "plain / engine": {k: slow / v for k, v in ms.items()},
    }


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/realtime.json", help="JSON file (default: runs/realtime.json)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--engines", nargs="+", choices=engine.ENGINES, default=list(engine.ENGINES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    device, numbers = resolve_device(args.device), {}
    with torch.inference_mode():
        for name in args.methods:
            one = method(name, device)
            row: dict[str, Any] = work(one)
            print(f"{name}: {row['parameters'] / 1e6:.1f} M parameters, {row['GFLOP']:.0f} GFLOP", flush=True)
            row["milliseconds"] = {d: by_engine(one, args.engines, d, args.runs) for d in args.dtypes}
            if name == "alphaface":
                row["ratios"] = {d: ratios(one, row, d) for d in args.dtypes}
                _show(row["ratios"])
            numbers[name] = row
    save({"device": str(device), "methods": numbers}, Path(args.out))
    print(Path(args.out).resolve())


def _show(rows: dict[str, Any]) -> None:
    for dtype, row in rows.items():
        for key, value in row.items():
            text = ", ".join(f"{k} {v:.2f}" for k, v in value.items()) if isinstance(value, dict) else f"{value:.0f}"
            print(f"  {dtype} {key}: {text}")


if __name__ == "__main__":
    main()
