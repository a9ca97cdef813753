"""Saving and continuing a run: written to a temporary name and renamed, so that an interruption loses nothing.

A checkpoint is a folder: networks.safetensors, optimisers.pt (read as plain tensors and numbers), state.json.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mattface.errors import InputError, WeightsError

PREFIX = "checkpoint-"
PARTIAL = ".partial"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers and strings."""
    temporary = path.with_suffix(PARTIAL)
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Reads what `save_state` wrote; None when there is nothing to go on from."""
    return torch.load(path, weights_only=True) if path.exists() else None


def save_weights(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a network as safetensors, floating point tensors in half precision."""
    half = {k: v.detach().cpu().to(torch.float16 if v.is_floating_point() else v.dtype) for k, v in tensors.items()}
    temporary = path.with_suffix(PARTIAL)
    save_file({k: v.contiguous() for k, v in half.items()}, temporary, metadata)
    os.replace(temporary, path)


def write_json(path: Path, values: Any) -> None:
    """Writes JSON under a temporary name and renames it."""
    temporary = path.with_suffix(PARTIAL)
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def save_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], optimisers: Mapping[str, Any], state: dict[str, Any], keep: int
) -> Path:
    """Writes a checkpoint; only when it is whole it gets its name and older ones go.

    Args:
        folder: of the run.
        networks: name -> module.
        optimisers: name -> state dict (tensors and numbers).
        state: at least "images".
        keep: checkpoints that stay.

    Raises:
        InputError: the disk is full or not writable; what was saved before stays.
    """
    path = folder / f"{PREFIX}{state['images']:012d}"
    temporary = path.with_suffix(PARTIAL)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = {f"{n}.{k}": v.detach().cpu().clone() for n, m in networks.items() for k, v in m.state_dict().items()}
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "networks.safetensors")
        torch.save(dict(optimisers), temporary / "optimisers.pt")
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for file in temporary.iterdir():
            _sync(file)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = latest(folder)
        raise InputError(
            f"expected room for a checkpoint in {folder}; saving failed ({error}). "
            f"{'The last good one, ' + last.name + ', stays' if last else 'None was saved before'}: "
            "make room and give the same command again."
        ) from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def _sync(file: Path) -> None:
    """Waits until a file is on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if p.is_dir() and p.suffix != PARTIAL)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, if any."""
    found = checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint into networks.

    Args:
        path: from `latest`.
        networks: name -> module of exactly the shapes that were saved.

    Returns:
        State dicts of the optimisers; state.

    Raises:
        WeightsError: damaged, or of other networks.
    """
    try:
        tensors = load_file(path / "networks.safetensors")
        optimisers = torch.load(path / "optimisers.pt", map_location="cpu", weights_only=True)
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} must be a whole checkpoint; it cannot be read ({error}). Remove it.") from error
    for name, network in networks.items():
        part = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}
        try:
            network.load_state_dict(part)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise WeightsError(
                f"{path} holds other networks than this recipe's: {name}: {first} Take another folder."
            ) from error
    return optimisers, state
