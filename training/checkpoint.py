"""Saving and continuing a run: written to a temporary name and renamed, so that an interruption loses nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes everything a run needs to go on (tensors, numbers and strings only)."""
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Reads what `save_state` wrote; None when there is nothing to go on from."""
    return torch.load(path, weights_only=True) if path.exists() else None


def save_weights(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a network as safetensors, floating point tensors in half precision."""
    half = {k: v.detach().cpu().to(torch.float16 if v.is_floating_point() else v.dtype) for k, v in tensors.items()}
    temporary = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in half.items()}, temporary, metadata)
    os.replace(temporary, path)
