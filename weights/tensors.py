"""Reads tensors; nothing in a file is ever executed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import WeightsError
from mattface.weights.registry import cards, find
from mattface.weights.torch_file import read_torch_file

if TYPE_CHECKING:
    import torch


def load_tensors(name_or_path: str | Path, device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        name_or_path: a weight name, or a path of a .safetensors file.
        device: where the tensors go.

    Returns:
        (name -> tensor, metadata strings).

    Raises:
        WeightsError: no such file, another kind of file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    path = find(str(name_or_path)) if str(name_or_path) in cards() else Path(name_or_path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise WeightsError(
            f"expected a weight name or a .safetensors file; got {str(name_or_path)!r}. "
            "Files of other kinds are converted first; names: mattface weights list"
        )
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"expected a whole safetensors file; {path} is damaged ({error}). Get it again.") from error


def checkpoint_in(name: str) -> str | Path:
    """What `load_tensors` shall read: of a folder its one safetensors file, anything else as it is.

    Args:
        name: a weight name, a path of a .safetensors file, or a folder that holds one.

    Raises:
        WeightsError: a folder with none, or with several.
    """
    if not Path(name).is_dir():
        return name
    files = sorted(Path(name).glob("*.safetensors"))
    if len(files) != 1:
        raise WeightsError(f"{name} must hold one .safetensors file; found {len(files)}. Name the file itself.")
    return files[0]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dictionary in a torch checkpoint (.pth, .pt): tensors and plain containers, see `read_torch_file`.

    Args:
        path: the file.

    Raises:
        WeightsError: no such file, it is damaged or holds more than tensors in plain containers, or no dictionary.
    """
    state = read_torch_file(path)
    if not isinstance(state, dict):
        raise WeightsError(f"expected a dictionary of tensors in {path}; got {type(state).__name__}.")
    return state


def load_strictly(network: torch.nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Copies tensors into a network; every name and shape must fit. Batch counters, which compute nothing, may lack.

    Args:
        network: receives the tensors.
        state: name -> tensor.
        what: what the tensors should be, for the message.

    Raises:
        WeightsError: a name is missing or unknown, or a shape differs.
    """
    own = network.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = counters | dict(state)
    wrong = [name for name in sorted(own.keys() | state.keys()) if _shape(own, name) != _shape(state, name)]
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"expected the tensors of {what}; {len(wrong)} differ, first {first!r}: expected shape "
            f"{_shape(own, first)}, got {_shape(state, first)}. Check which network the file holds."
        )
    network.load_state_dict(state)


def _shape(state: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
