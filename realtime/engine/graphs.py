"""Engines that run an exported graph: ONNX Runtime, OpenVINO, and TensorRT through ONNX Runtime.

The graph is the one that `export_onnx` writes; it is made in a temporary folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mattface.realtime.engine.export import EXPORTERS, missing, onnx_file
from mattface.realtime.engine.torch_runs import cannot
from mattface.realtime.methods.aligned import AlignedMethod, Run

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT = "TensorrtExecutionProvider"
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class Graph:
    """A run of arrays behind tensors.

    Args:
        compute: list of (B, ...) float32 arrays to (B, 3, S, S).
        device: of the tensors that come back.
    """

    def __init__(self, compute: Any, device: torch.device) -> None:
        self.compute, self.device = compute, device

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Network inputs, float32, to (B, 3, S, S) float32."""
        arrays = [np.ascontiguousarray(x.detach().cpu().numpy()) for x in inputs]
        return torch.from_numpy(np.asarray(self.compute(arrays), np.float32)).to(self.device)


def onnxruntime_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    return missing("onnxruntime", *EXPORTERS) or _provider_missing(PROVIDERS[device.type]) or _only_fp32(dtype)


def _only_fp32(dtype: torch.dtype) -> str:
    return "" if dtype == torch.float32 else f"its graph is written in fp32; got {dtype}. Use fp32 or another engine."


def _provider_missing(provider: str) -> str:
    import onnxruntime

    here = onnxruntime.get_available_providers()
    return "" if provider in here else f"this onnxruntime has no {provider} (it has {', '.join(here)})."


def onnxruntime(method: AlignedMethod, channels_last: bool) -> Run:
    """ONNX Runtime on the method's device."""
    return _session(method, "onnxruntime", PROVIDERS[method.device.type], {})


def _session(method: AlignedMethod, engine: str, provider: str, options: dict[str, Any]) -> Run:
    """A session of one provider; the runtime's own falling back to another is an error."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads()
    settings.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(method.network, Path(folder) / "network.onnx", method.example())
        session = onnxruntime.InferenceSession(str(path), settings, providers=[(provider, options)])
    if session.get_providers()[0] != provider:
        raise cannot(engine, f"onnxruntime rejects {provider}; it offers {', '.join(session.get_providers())}.")
    names = [entry.name for entry in session.get_inputs()]
    return Graph(lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0], method.device)


def threads() -> int:
    """Threads as torch would use them."""
    return int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads())


def openvino_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    if device.type != "cpu":
        return f"it is used for the CPU; got {device}. Use compile, cuda-graph or tensorrt."
    return missing("openvino", *EXPORTERS)


def openvino(method: AlignedMethod, channels_last: bool) -> Run:
    """OpenVINO on the CPU; the dtype is the one it may compute in."""
    import openvino as ov

    core = ov.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(method.network, Path(folder) / "network.onnx", method.example())
        settings = {"INFERENCE_PRECISION_HINT": NAMES[method.dtype], "INFERENCE_NUM_THREADS": threads()}
        settings["PERFORMANCE_HINT"] = "LATENCY"
        model = core.compile_model(core.read_model(path), "CPU", settings)
    used = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != NAMES[method.dtype]:
        raise cannot("openvino", f"asked for {NAMES[method.dtype]}, it computes in {used} on this CPU. Use fp32.")
    return Graph(lambda arrays: model(arrays)[0], method.device)


def tensorrt_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why it cannot run, or ""."""
    if device.type != "cuda":
        return f"it needs a CUDA device; got {device}. Use winograd, compile or openvino on the CPU."
    return missing("onnxruntime", *EXPORTERS) or _provider_missing(TENSORRT)


def tensorrt(method: AlignedMethod, channels_last: bool) -> Run:
    """TensorRT on the GPU; the dtype is the lowest it may compute in."""
    options = {
        "device_id": method.device.index or 0,
        "trt_fp16_enable": method.dtype == torch.float16,
        "trt_bf16_enable": method.dtype == torch.bfloat16,
    }
    return _session(method, "tensorrt", TENSORRT, options)
