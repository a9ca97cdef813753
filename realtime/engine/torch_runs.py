"""Engines of torch's own: as it is, with Winograd convolutions, compiled, and as a CUDA graph."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from typing import Any

import torch

from mattface.errors import DeviceError
from mattface.realtime.methods.aligned import AlignedMethod, Eager, Run

WARM_UP = 3
"""Runs before a CUDA graph is recorded."""
COMPILATIONS = 64
"""How often torch may compile networks of one class in one process."""


def cannot(engine: str, reason: str) -> DeviceError:
    """The error of an engine that cannot run."""
    return DeviceError(f"the engine {engine} cannot run here: {reason}")


def eager(method: AlignedMethod, channels_last: bool) -> Run:
    """torch as it is."""
    return Eager(method.network, method.dtype, channels_last)


def winograd(method: AlignedMethod, channels_last: bool) -> Run:
    """Every wide 3x3 convolution by Winograd's method, its weights transformed once."""
    from mattface.realtime.engine.winograd import packed

    return Eager(packed(method.network), method.dtype, True)


def winograd_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    if device.type != "cpu":
        return "it is made for the CPU. Use compile or cuda-graph."
    if dtype != torch.float32:
        return f"its transforms need fp32; got {dtype}. Use compile for other dtypes."
    return ""


class Compiled(Eager):
    """torch.compile of a module, with weights packed once on the CPU; compiled where it is made.

    It runs in inference mode on copies of its inputs, so that the caller's mode never asks for another compilation, and
    as one graph, so that torch cannot leave parts of it uncompiled in silence.

    Args:
        method: its network is compiled.
        channels_last: memory order.

    Raises:
        DeviceError: the compiler fails.
    """

    def __init__(self, method: AlignedMethod, channels_last: bool) -> None:
        super().__init__(method.network, method.dtype, channels_last)
        options: dict[str, Any] = {"freezing": True} if method.device.type == "cpu" else {}
        self.network = torch.compile(method.network, fullgraph=True, dynamic=False, options=options)
        with torch._dynamo.config.patch(recompile_limit=COMPILATIONS):
            self(*method.example())

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Eager`; another batch size is compiled when it comes."""
        try:
            return super().__call__(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            first = str(error).strip().splitlines()[0]
            raise cannot("compile", f"torch.compile fails ({first}). Use another engine.") from error

    def prepared(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies in the network's dtype and memory order."""
        return [x.clone() if x is given else x for x, given in zip(super().prepared(inputs), inputs, strict=True)]


def compiled(method: AlignedMethod, channels_last: bool) -> Run:
    """torch.compile."""
    return Compiled(method, channels_last)


def compile_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return "torch.compile needs a C++ compiler on the CPU and finds none. Install g++, or use winograd or openvino."
    if device.type == "cuda" and not torch.utils._triton.has_triton():
        return "torch.compile needs Triton on the GPU, and it is not installed. Type: pip install triton"
    return ""


class CudaGraph:
    """The compiled network recorded once, played back for every frame; one caller at a time.

    Args:
        run: what is recorded.
        example: inputs of the only shapes it will take.
    """

    def __init__(self, run: Eager, example: tuple[torch.Tensor, ...]) -> None:
        self.inputs = run.prepared(example)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run.network(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = run.network(*self.inputs).float()
        self.lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Network inputs of the recorded shapes, float32, to (1, 3, S, S) float32."""
        with self.lock:
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            self.graph.replay()
            return self.output.clone()


def cuda_graph(method: AlignedMethod, channels_last: bool) -> Run:
    """The compiled network as one CUDA graph."""
    return CudaGraph(Compiled(method, channels_last), method.example())


def cuda_graph_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    if device.type != "cuda":
        return f"it needs a CUDA device; got {device}. Use winograd, compile or openvino on the CPU."
    return compile_obstacle(device, dtype)
