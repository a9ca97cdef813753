"""Opens weight files of every kind. What a file is follows from its first bytes, never from its name.

Nothing in a file is executed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import WeightsError
from mattface.weights.onnx_read import Graph, open_graph

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Content:
    """What lies in a weight file.

    Attributes:
        kind: "torch", "nvidia", "safetensors", "onnx", "npz", "npy" or "other" (known by hashes only).
        parts: outer key ("" for a bare state dict) -> tensors by name; without values when only looked at.
        beside: what else lies at the outermost level: options, averages, a safetensors file's metadata.
        graph: of an ONNX file.
    """

    kind: str
    parts: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    graph: Graph | None = None


def open_any(path: Path, values: bool = True, only: tuple[str, ...] = ()) -> Content:
    """Opens a weight file.

    Args:
        path: the file.
        values: False to look at names and shapes only, where the kind allows that.
        only: outer keys to read, where the kind allows that; empty for all.

    Raises:
        WeightsError: no such file, or damaged.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        return _safetensors(path, values)
    if kind == "nvidia":
        from mattface.weights.nvidia_pickle import read_nvidia_pickle

        return Content(kind, {name: network.tensors for name, network in read_nvidia_pickle(path, only).items()})
    if kind == "torch":
        return _torch(path)
    if kind == "onnx":
        return Content(kind, graph=open_graph(path))
    if kind in ("npz", "npy"):
        return _numpy(path, kind)
    return Content(kind)


def kind_of(path: Path) -> str:
    """The kind of a file by its first bytes; see `Content`.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise WeightsError(f"expected a weight file; {path} cannot be read ({error}).") from error
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9"):  # torch's magic number, pickled
        return "torch"
    if head[:1] == b"\x80" and head[1:2] in b"\x03\x04\x05":
        return "nvidia"
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in b"\x12\x1a\x22\x2a\x32\x3a\x42":
        return "onnx"  # field 1, the IR version, and another field of a model behind it
    return "other"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as box:
            names = box.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"expected a whole weight file; {path} is damaged ({error}). Get it again.") from error
    return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"


def _safetensors(path: Path, values: bool) -> Content:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if values:
                tensors = {name: file.get_tensor(name) for name in names}
            else:
                tensors = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
            return Content("safetensors", {"": tensors}, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a whole safetensors file; {path} is damaged ({error}). Get it again.") from error


def _torch(path: Path) -> Content:
    from mattface.weights.tensors import load_checkpoint

    return split_parts(load_checkpoint(path))


def split_parts(state: Mapping[str, Any]) -> Content:
    """A checkpoint taken apart: state dicts by outer key, tensors at the outermost level under "", and the rest."""
    import torch

    parts, beside, bare = {}, {}, {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            bare[str(key)] = value
        if isinstance(value, Mapping) and value and all(isinstance(v, torch.Tensor) for v in value.values()):
            parts[str(key)] = _undressed(value)
        else:
            beside[str(key)] = value
    if bare:
        parts[""] = _undressed(bare)
    return Content("torch", parts, beside)


def _undressed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys without the "module." that training on several devices leaves before every one."""
    dressed = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if dressed else key: value for key, value in state.items()}


def _numpy(path: Path, kind: str) -> Content:
    import torch

    from mattface.weights.arrays import read_arrays

    shapes = {name: torch.empty(array.shape, device="meta") for name, array in read_arrays(path).items()}
    return Content(kind, {"": shapes})
