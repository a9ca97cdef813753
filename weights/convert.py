"""Opens weight files of every kind, says which layout their tensors follow, and renames them to ours.

What a file is follows from its first bytes, never from its name; nothing in it is executed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import UsageError, WeightsError
from mattface.weights.onnx_read import Graph, open_graph
from mattface.weights.registry import card, find, sha256_of

if TYPE_CHECKING:
    import torch

    from mattface.weights.layouts.known import Fit, Layout

LAYOUT_KEY = "layout"
"""Metadata of a converted file: the layout it came from; its names are ours."""
ONNX_ARCFACE = ("arcface-onnx", "arcface-r100-onnx")
"""Layouts of ONNX graphs that convert to tensors."""
NEAR = 0.5
"""Share of agreeing keys from which a layout is worth naming as the nearest."""


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


def open_any(path: Path, values: bool = True) -> Content:
    """Opens a weight file.

    Args:
        path: the file.
        values: False to look at names and shapes only, where the kind allows that.

    Raises:
        WeightsError: no such file, or damaged.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        return _safetensors(path, values)
    if kind == "nvidia":
        from mattface.weights.nvidia_pickle import read_nvidia_pickle

        return Content(kind, {name: network.tensors for name, network in read_nvidia_pickle(path).items()})
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
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and path.stat().st_size > 64 and head[2:3] in b"\x12\x1a\x22\x2a\x32\x3a\x42":
        return "onnx"  # field 1, the IR version, and another field of a model behind it
    return "other"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as box:
            names = box.namelist()
    except zipfile.BadZipFile as error:
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

    return sorted_out(load_checkpoint(path))


def sorted_out(state: Mapping[str, Any]) -> Content:
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
    import numpy as np
    import torch

    try:
        if kind == "npy":
            arrays = {"": np.load(path, allow_pickle=False, mmap_mode="r")}
        else:
            with np.load(path, allow_pickle=False) as box:
                arrays = {name: box[name] for name in box.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"expected NumPy arrays in {path}; it holds none ({error}). Get it again.") from error
    shapes = {name: torch.empty(array.shape, device="meta") for name, array in arrays.items()}
    return Content(kind, {"": shapes})


def fit_of(content: Content, layout: Layout) -> Fit:
    """How well a file's tensors agree with a layout, wherever in the file they lie."""
    from mattface.weights.layouts.known import Fit, compare

    best = Fit(0.0, ("holds no tensors",))
    for name in dict.fromkeys((layout.inside, "", *content.parts)):
        if name not in content.parts:
            continue
        fit = compare({key: tuple(value.shape) for key, value in content.parts[name].items()}, layout)
        lacking = [key for key in layout.beside if key not in content.beside]
        if lacking:
            fit = Fit(fit.share, (*fit.faults, f"no {' or '.join(lacking)} beside the tensors"))
        if fit.share > best.share:
            best = fit
    return best


def best_layouts(content: Content) -> list[tuple[Layout, Fit]]:
    """Layouts by how well a file follows them, best first."""
    from mattface.weights.layouts.known import LAYOUTS

    fits = [(layout, fit_of(content, layout)) for layout in LAYOUTS.values()]
    return sorted(fits, key=lambda pair: -pair[1].share)


def to_ours(content: Content, name: str = "") -> tuple[dict[str, torch.Tensor], str]:
    """A file's tensors under our names.

    Args:
        content: of `open_any`, with values.
        name: layout to read it as; empty for the one that fits.

    Returns:
        (tensors, name of the layout).

    Raises:
        UsageError: an unknown layout.
        WeightsError: no layout fits; the message names the nearest and what differs.
    """
    from mattface.weights.layouts.known import LAYOUTS

    if name and name not in (*LAYOUTS, *ONNX_ARCFACE):
        raise UsageError(f"expected a layout, one of {', '.join((*LAYOUTS, *ONNX_ARCFACE))}; got {name!r}.")
    if content.kind == "safetensors" and content.beside.get(LAYOUT_KEY):
        return dict(content.parts[""]), str(content.beside[LAYOUT_KEY])
    if content.graph is not None:
        return _unfolded(content.graph)
    fits = [(LAYOUTS[name], fit_of(content, LAYOUTS[name]))] if name else best_layouts(content)[:1]
    layout, fit = fits[0]
    if fit.faults:
        raise WeightsError(f"expected {layout.what}; {'; '.join(fit.faults)}. {nearest_hint(fit)}")
    return layout.convert(_state(content, layout), content.beside), layout.name


def _unfolded(graph: Graph) -> tuple[dict[str, torch.Tensor], str]:
    from mattface.weights.layouts.arcface_onnx import arcface_onnx

    layout = onnx_layout(graph)
    if layout not in ONNX_ARCFACE:
        raise WeightsError(
            f"expected an ArcFace ResNet-50 or -100; got {layout or 'another ONNX graph'}. "
            "Other graphs run as they are and need no conversion."
        )
    return arcface_onnx(graph), layout


def onnx_layout(graph: Graph) -> str:
    """What an ONNX graph is, by its inputs, outputs and tensors; empty for none that a card describes."""
    shapes = [value.shape[1:] for value in graph.inputs]
    last = next(reversed(graph.tensors.values()), None)
    if shapes == [(3, 128, 128), (512,)] and last is not None and last.shape == (512, 512):
        return "inswapper-onnx"
    if shapes == [(3, 112, 112)] and len(graph.outputs) == 1:
        convolutions = sum(node.op == "Conv" for node in graph.nodes)
        return {53: "arcface-onnx", 103: "arcface-r100-onnx"}.get(convolutions, "")
    if len(graph.inputs) == 1 and len(graph.outputs) == 9:
        return "scrfd-onnx"
    if len(graph.inputs) == 1 and len(graph.outputs) == 4:
        return "centerface-onnx"
    return ""


def nearest_hint(fit: Fit) -> str:
    """What to do about a file that fits no layout."""
    if fit.share >= NEAR:
        return "The file is nearly of this kind: another version or a part of it. Get the published file."
    return "Known files: mattface weights list."


def _state(content: Content, layout: Layout) -> Mapping[str, torch.Tensor]:
    """The part that fits best."""
    from mattface.weights.layouts.known import compare

    def share(part: Mapping[str, torch.Tensor]) -> float:
        return compare({key: tuple(value.shape) for key, value in part.items()}, layout).share

    if layout.inside in content.parts and share(content.parts[layout.inside]) >= NEAR:
        return content.parts[layout.inside]
    return max(content.parts.values(), key=share)


def official(name: str) -> dict[str, torch.Tensor]:
    """Tensors of a weight under our names, from its official file or from one that `convert` wrote.

    Args:
        name: weight name.

    Raises:
        UsageError: unknown name.
        WeightsError: not here, damaged, or of another kind than its card says.
    """
    content = open_any(find(name))
    tensors, layout = to_ours(content, card(name).layout if content.kind != "safetensors" else "")
    if card(name).layout and layout != card(name).layout:
        raise WeightsError(f"weights {name!r}: expected the layout {card(name).layout}; the file is {layout}. Adopt it.")
    return tensors


def convert(path: Path, to: Path, layout: str = "") -> str:
    """Writes a file's tensors under our names as safetensors, with where they came from in its metadata.

    Args:
        path: a weight file of a known layout.
        to: ends in .safetensors; written to a temporary name first.
        layout: see `to_ours`.

    Returns:
        Name of the layout it was read as.

    Raises:
        UsageError: `to` has another ending, or is the file itself.
        WeightsError: the file is of no known layout, or `to` cannot be written.
    """
    import os

    from safetensors.torch import save_file

    if to.suffix != ".safetensors" or to.absolute() == path.absolute():
        raise UsageError(f"expected a new file ending in .safetensors; got {str(to)!r}.")
    tensors, name = to_ours(open_any(path), layout)
    part = to.with_name(f".{to.name}.part")
    metadata = {LAYOUT_KEY: name, "converted_from": path.name, "converted_from_sha256": sha256_of(path)}
    try:
        save_file({key: value.clone().contiguous() for key, value in tensors.items()}, str(part), metadata)
        os.replace(part, to)
    except OSError as error:
        raise WeightsError(f"{to} cannot be written ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
    return name
