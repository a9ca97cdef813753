"""A swapper made faster: the same contract, its network run by another engine.

An engine that cannot run here says why; nothing is replaced by something else in silence. The report of a swap names
device, dtype and engine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mattface.devices import resolve_dtype
from mattface.errors import UsageError
from mattface.pipeline import Swapper
from mattface.realtime.engine import graphs, torch_runs
from mattface.realtime.methods.aligned import AlignedMethod, Run
from mattface.realtime.methods.blocks import moved


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Attributes:
        build: (method, with its network in the wanted dtype and memory order, channels_last) -> run.
        obstacle: (device, dtype) -> why it cannot run there, or "".
    """

    build: Callable[[AlignedMethod, bool], Run]
    obstacle: Callable[[torch.device, torch.dtype], str]


ENGINES = {
    "eager": Engine(torch_runs.eager, lambda device, dtype: ""),
    "winograd": Engine(torch_runs.winograd, torch_runs.winograd_obstacle),
    "compile": Engine(torch_runs.compiled, torch_runs.compile_obstacle),
    "cuda-graph": Engine(torch_runs.cuda_graph, torch_runs.cuda_graph_obstacle),
    "onnxruntime": Engine(graphs.onnxruntime, graphs.onnxruntime_obstacle),
    "openvino": Engine(graphs.openvino, graphs.openvino_obstacle),
    "tensorrt": Engine(graphs.tensorrt, graphs.tensorrt_obstacle),
}
"""Engine name -> engine."""


def available(device: torch.device, dtype: torch.dtype = torch.float32) -> list[tuple[str, bool, str]]:
    """(engine, usable, reason if not) for every engine."""
    reasons = [(name, engine.obstacle(device, dtype)) for name, engine in ENGINES.items()]
    return [(name, not reason, reason) for name, reason in reasons]


def accelerate(
    swapper: Swapper, engine: str = "eager", dtype: str | torch.dtype | None = None, channels_last: bool = True
) -> Swapper:
    """A swapper whose network runs faster. Identities that the given swapper prepared fit the new one.

    Args:
        swapper: stays as it is. Its network must have been loaded in fp32 or in the wanted dtype.
        engine: "eager" (torch as it is), "winograd" (fp32 on the CPU with 4x fewer multiplications), "compile"
            (torch.compile), "cuda-graph" (the compiled network as one CUDA graph), "onnxruntime", "openvino" (CPU) or
            "tensorrt" (through ONNX Runtime).
        dtype: "fp32", "bf16" or "fp16"; None keeps the swapper's.
        channels_last: memory order of torch's own engines. The others choose theirs.

    Returns:
        A swapper with the same parts. Compiling and exporting happen here, not at the first frame.

    Raises:
        UsageError: unknown engine or dtype, or a method without a network of tensors.
        DeviceError: the engine cannot run here; the message says why and what to do.
    """
    if engine not in ENGINES:
        raise UsageError(f"expected an engine, one of {', '.join(ENGINES)}; got {engine!r}.")
    kind = swapper.dtype if dtype is None else resolve_dtype(dtype, swapper.device)
    if swapper.dtype not in (torch.float32, kind):
        raise UsageError(
            f"expected a network loaded in fp32 or in the wanted dtype; it was loaded in {swapper.dtype}. "
            "Load it again without a dtype and name it here."
        )
    twin = copy.copy(swapper)
    twin.method, twin.dtype = faster(swapper.method, engine, swapper.device, kind, channels_last), kind
    return twin


@torch.inference_mode()
def faster(method: Any, engine: str, device: torch.device, dtype: torch.dtype, channels_last: bool = True) -> Any:
    """A copy of a method whose network is run by an engine.

    Args:
        method: an `AlignedMethod`, or (engines eager and compile) any method with a module called `network` that
            computes in the dtype of its attribute `dtype`.
        engine: name in `ENGINES`.
        device, dtype: where the method is, and the wanted dtype.
        channels_last: see `accelerate`.

    Raises:
        UsageError: a method without such a network.
        DeviceError: the engine cannot run here.
    """
    network = getattr(method, "network", None)
    if not isinstance(network, torch.nn.Module):
        raise UsageError(f"{method.name} has no network to run faster; got engine {engine!r}. Leave the engine out.")
    reason = ENGINES[engine].obstacle(device, dtype)
    if reason:
        raise torch_runs.cannot(engine, reason)
    twin = copy.copy(method)
    twin.dtype, twin.engine = dtype, engine
    if isinstance(method, AlignedMethod):
        if dtype != method.dtype or not channels_last:
            twin.network = moved(copy.deepcopy(network), device, dtype, channels_last)
        twin.run = ENGINES[engine].build(twin, channels_last)
        return twin
    if engine not in ("eager", "compile"):
        raise UsageError(f"{method.name}'s network takes more than tensors; got engine {engine!r}. Use compile.")
    twin.network = moved(copy.deepcopy(network), device, torch.float32, channels_last)  # it casts by itself
    if engine == "compile":
        twin.network.compile()  # at its first frame: only then its inputs are known
    return twin
