"""Says which layout a file's tensors follow, and renames them to ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mattface.errors import UsageError, WeightsError
from mattface.weights.content import Content, open_any
from mattface.weights.onnx_read import Graph
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


def fit_of(content: Content, layout: Layout) -> Fit:
    """How well a file's tensors agree with a layout, wherever in the file they lie."""
    from mattface.weights.layouts.known import Fit, compare

    best: Fit | None = None
    for name in dict.fromkeys((layout.inside, "", *content.parts)):
        if name not in content.parts:
            continue
        fit = compare({key: tuple(value.shape) for key, value in content.parts[name].items()}, layout)
        lacking = [key for key in layout.beside if key not in content.beside]
        if lacking:
            fit = Fit(fit.share, (*fit.faults, f"no {' or '.join(lacking)} beside the tensors"))
        if best is None or fit.share > best.share:
            best = fit
    return best or Fit(0.0, ("holds no tensors",))


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
    from mattface.weights.layouts.known import LAYOUTS

    wanted, path = card(name).layout, find(name)
    known = LAYOUTS.get(wanted)
    content = open_any(path, only=(known.inside,) if known and known.inside else ())
    try:
        tensors, layout = to_ours(content, wanted if content.kind != "safetensors" else "")
    except WeightsError as error:
        raise WeightsError(f"weights {name!r} in {path}: {error}") from error
    if wanted and layout != wanted:
        raise WeightsError(
            f"weights {name!r} in {path}: expected the layout {wanted}; the file is {layout}. Adopt the right one."
        )
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

    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if to.suffix != ".safetensors" or to.absolute() == path.absolute():
        raise UsageError(f"expected a new file ending in .safetensors; got {str(to)!r}.")
    tensors, name = to_ours(open_any(path), layout)
    part = to.with_name(f".{to.name}.part")
    metadata = {LAYOUT_KEY: name, "converted_from": path.name, "converted_from_sha256": sha256_of(path)}
    try:
        save_file({key: value.clone().contiguous() for key, value in tensors.items()}, str(part), metadata)
        os.replace(part, to)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{to} cannot be written ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
    return name
