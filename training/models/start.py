"""Starting a training from weights that are there already."""

from __future__ import annotations

import torch
from torch import nn

from mattface import weights
from mattface.errors import WeightsError
from mattface.methods.psp import OFFICIAL, official_parts

PARTS_OF_OFFICIAL = ("encoder", "invert", "generate")


def load_start(network: nn.Module, start: str | None) -> tuple[str, ...]:
    """Loads weights into a network, part by part: those of its parts that the file has, each whole.

    Args:
        network: with the parts that the file names before the first dot.
        start: a weight name ("psp-ffhq" is the official pSp file), a .safetensors file, or a folder with one; None
            leaves the network as it is.

    Returns:
        Sentences about what was loaded, for the notes of a stage.

    Raises:
        WeightsError: the file is not here, has no part of this network, or a part of another size.
    """
    if start is None:
        return ()
    own = {name: part for name, part in network.named_children() if part.state_dict()}
    parts = read_parts(start)
    shared = [name for name in own if name in parts]
    if not shared:
        raise WeightsError(
            f"start={start} must hold parts of this network ({', '.join(own)}); it holds {', '.join(sorted(parts))}. "
            "Give weights of the same method, or leave start out."
        )
    for name in shared:
        weights.load_strictly(own[name], parts[name], f"start={start}: {name}")
    fresh = [name for name in own if name not in shared]
    return (f"{', '.join(shared)} start from {start}" + (f"; {', '.join(fresh)} are fresh" if fresh else ""),)


def read_parts(start: str) -> dict[str, dict[str, torch.Tensor]]:
    """Part -> state dict, in single precision."""
    if start == OFFICIAL:
        return {name: part.state_dict() for name, part in zip(PARTS_OF_OFFICIAL, official_parts(), strict=True)}
    tensors, _ = weights.load_tensors(weights.checkpoint_in(start))
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value.float() if value.is_floating_point() else value
    return parts
