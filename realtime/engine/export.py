"""The aligned-crop network as a file: ONNX or TorchScript, (target, code, ...) -> picture.

Pixels are RGB in [-1, 1], sizes those of the method, the batch is free. Detection, framing, the identity network and
pasting stay outside.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mattface.errors import InputError, MattfaceError, UsageError
from mattface.pipeline import Swapper
from mattface.realtime.methods.aligned import AlignedMethod
from mattface.realtime.methods.blocks import SwapNetwork, moved

TOLERANCE = 1e-3
"""Largest difference from PyTorch, of pixels in [-1, 1]."""
OPSET = 20
EXPORTERS = ("onnx", "onnxscript")
"""Packages that writing ONNX needs."""
BATCHES = (1, 2)
"""Batch sizes that a written file is tried with."""


def missing(*packages: str) -> str:
    """Why packages are missing and what to type, or ""."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed. Type: pip install 'mattface[realtime]'" if absent else ""


def export_onnx(method: AlignedMethod | Swapper, path: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Writes the network as ONNX and compares it with PyTorch in ONNX Runtime, with one crop and with two.

    Args:
        method: an aligned method, or a swapper of one.
        path: ends in .onnx.
        overwrite: whether an existing file may be replaced.

    Returns:
        "path", "inputs" and "output" (name -> shape), "difference" (largest, of pixels in [-1, 1]) and "tolerance".

    Raises:
        UsageError: another kind of method, or packages are missing.
        InputError: the file exists or cannot be written.
        MattfaceError: the graph differs from PyTorch by more than the tolerance; nothing is written then.
    """
    reason = missing("onnxruntime", *EXPORTERS)
    if reason:
        raise UsageError(f"ONNX cannot be written here: {reason}")
    import onnxruntime

    def run(file: Path, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]

    return _export(method, Path(path), overwrite, onnx_file, run)


def export_torchscript(method: AlignedMethod | Swapper, path: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Writes the network as TorchScript and compares it with PyTorch, with one crop and with two.

    Args, returns and errors: see `export_onnx`; a description of the network lies in the file as "mattface.json".
    """

    def run(file: Path, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
        with _quiet():
            return torch.jit.load(str(file))(*inputs).numpy()

    return _export(method, Path(path), overwrite, torchscript_file, run)


def onnx_file(
    network: SwapNetwork, path: Path, example: tuple[torch.Tensor, ...], about: dict[str, str] | None = None
) -> Path:
    """Writes a network in float32 as ONNX, batch free.

    Args:
        network: on any device, in any dtype.
        path: file to write.
        example: inputs.
        about: metadata of the file.
    """
    pairs = [torch.cat([x.cpu().float()] * 2) for x in example]  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            _plain(network),
            tuple(pairs),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(network.input_names),
            output_names=["picture"],
            dynamic_shapes=({0: batch},) * len(pairs),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise MattfaceError("torch.onnx.export returned nothing. Install another version of onnxscript.")
    program.model.metadata_props.update(about or {})
    program.save(str(path))
    return path


def torchscript_file(
    network: SwapNetwork, path: Path, example: tuple[torch.Tensor, ...], about: dict[str, str] | None = None
) -> Path:
    """Writes a network in float32 as TorchScript; arguments as in `onnx_file`."""
    with _quiet():
        traced = torch.jit.trace(_plain(network), tuple(x.cpu().float() for x in example), check_trace=False)
        torch.jit.save(traced, str(path), {"mattface.json": json.dumps(about or {})})
    return path


def _plain(network: SwapNetwork) -> SwapNetwork:
    """A copy in float32 on the CPU in torch's plain memory order."""
    return moved(copy.deepcopy(network), torch.device("cpu"), torch.float32, channels_last=False).eval()


class _quiet(warnings.catch_warnings):
    """No warnings of torch about its own exporters; gradients are off."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self.grad = torch.no_grad()
        self.grad.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.grad.__exit__(*error)
        super().__exit__(*error)


def _export(method: AlignedMethod | Swapper, path: Path, overwrite: bool, write: Any, run: Any) -> dict[str, Any]:
    """Writes beside the goal, compares, and moves into place."""
    one = method.method if isinstance(method, Swapper) else method
    if not isinstance(one, AlignedMethod):
        raise UsageError(f"expected a method with an aligned-crop network; got {one.name}. Export alphaface, say.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Choose another name or pass --overwrite (overwrite=True).")
    if not path.parent.is_dir():
        raise InputError(f"expected a folder {path.parent} to write into; there is none. Make it first.")
    side = one.crop.size or one.example()[0].shape[-1]
    about = {
        "method": one.name, "weights": str(one.weights), "crop": one.crop.template, "size": str(side),
        "pixels": "RGB in [-1, 1]", "code": "identity, unit length",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = write(one.network, Path(folder) / path.name, one.example(), about)
        difference = max(_difference(one, file, batch, run) for batch in BATCHES)
        if not difference <= TOLERANCE:
            raise MattfaceError(
                f"expected pixels within {TOLERANCE} of PyTorch's; the exported network differs by {difference:.2g}. "
                "Nothing was written. Try another version of torch or onnxscript."
            )
        os.replace(file, path)
    shapes = {
        name: ("batch", *s) for name, s in zip(one.network.input_names, one.network.input_shapes(side), strict=True)
    }
    output = {"picture": ("batch", *one.run(*one.example()).shape[1:])}  # a predicted matte is a fourth channel
    return {"path": str(path), "inputs": shapes, "output": output, "difference": difference, "tolerance": TOLERANCE}


def _difference(method: AlignedMethod, file: Path, batch: int, run: Any) -> float:
    """Largest difference of pixels between a file and PyTorch in float32."""
    inputs = tuple(x.cpu() for x in method.example(batch))
    with torch.no_grad():
        expected = _plain(method.network)(*inputs).numpy()
    got = run(file, inputs)
    if got.shape != expected.shape:
        raise MattfaceError(f"expected a result of shape {expected.shape}; the exported network gives {got.shape}.")
    return float(np.abs(got - expected).max())
