"""insightface's own FaceAnalysis, for those who have the package and one of its model packs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from mattface.errors import WeightsError
from mattface.weights.parts import Status

NAME = "face-analysis"
PACK = "buffalo_l"
FOLDER = "~/.insightface"
"""Where the package keeps its model packs."""
LICENCE = "the package's model packs are for non-commercial research only"
SIDE = 640
"""Of the square that its detector is given."""
INSTALL = "Type: pip install 'mattface[perception]'"


def status() -> Status:
    """Whether package and model pack are here. Nothing is fetched: the package itself would, without being asked."""
    if importlib.util.find_spec("insightface") is None:
        return Status(NAME, False, f"the package insightface is not installed. {INSTALL}", LICENCE)
    folder = Path(FOLDER).expanduser() / "models" / PACK
    if not any(folder.glob("*.onnx")):
        return Status(NAME, False, f"expected insightface's model pack {PACK} in {folder}; unpack it there.", LICENCE)
    return Status(NAME, True, "", LICENCE)


def open_pack(device: torch.device, modules: tuple[str, ...]) -> Any:
    """A prepared `insightface.app.FaceAnalysis`.

    Args:
        device: "cuda" needs onnxruntime-gpu; the package takes the CPU without it.
        modules: which of the pack's models; "detection" must be among them.

    Raises:
        WeightsError: the package or its model pack is not here.
    """
    state = status()
    if not state.usable:
        raise WeightsError(state.note)
    from insightface.app import FaceAnalysis

    cuda = device.type == "cuda"
    providers = (["CUDAExecutionProvider"] if cuda else []) + ["CPUExecutionProvider"]
    app = FaceAnalysis(name=PACK, root=FOLDER, allowed_modules=list(modules), providers=providers)
    app.prepare(ctx_id=(device.index or 0) if cuda else -1, det_size=(SIDE, SIDE))
    return app
