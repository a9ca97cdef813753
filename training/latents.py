"""Fits the latents of a mattface checkpoint: the distribution of W+ codes from which `mattface sample` draws people.

    python -m mattface.training.latents CHECKPOINT --root DIR --out FILE.safetensors

adds them to a finished file, from the portraits of the training people and the shards of triplets (*.tar) in DIR.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from mattface import weights as registry
from mattface.errors import InputError, MattfaceError, UsageError
from mattface.generate.latents import AXES, PREFIX, Latents
from mattface.mesh.shape import canonical
from mattface.methods.mattface import MattfaceNetwork, network_of
from mattface.training.checkpoint import save_weights
from mattface.training.pairs import PairStore, crops_of, pictures, training_portraits
from mattface.training.studio_pairs import studio_pairs

Shown = tuple[torch.Tensor, torch.Tensor]
"""(B, 3, S, S) pictures in [-1, 1] and (B, 3, s, s) places on the mean face."""
BATCH = 32
MOST = 1024
"""Sources of a store that are looked at."""


def fit_latents(network: MattfaceNetwork, shown: Iterator[Shown], count: int = AXES) -> Latents:
    """The distribution of the codes that a network gives to people.

    Args:
        network: trained to draw; left as it is, in evaluation mode.
        shown: the people, from `sources_of` or `people_in`.
        count: components to keep.
    """
    network.eval()
    where, codes = next(network.parameters()).device, []
    with torch.inference_mode():
        for image, places in shown:
            told = places.to(where) if network.config.places else None
            codes.append(network.invert(network.encode(image.to(where), told)).float().cpu())
    return Latents.fit(torch.cat(codes), count)


def sources_of(store: PairStore) -> Iterator[Shown]:
    """The sources of a store's pairs, at most `MOST` of them, evenly spread."""
    for indices in torch.linspace(0, store.count - 1, min(MOST, store.count)).long().split(BATCH):
        pair = store.batch(indices.tolist())
        yield pair.source, pair.source_places


def people_in(root: Path, size: int) -> Iterator[Shown]:
    """The portraits of training people, and the sources of the shards, in a folder.

    Args:
        root: folder as the trainer takes it.
        size: side of the pictures.

    Raises:
        InputError: neither is there, or a file is damaged.
    """
    shards = sorted(root.glob("*.tar"))
    if not root.is_dir() or not (shards or pictures(root)):
        raise InputError(f"{root} must hold portraits, or shards of triplets (*.tar), or both; found neither.")
    for crop in crops_of(training_portraits(root), size) if pictures(root) else ():
        if crop.mesh is None:
            raise InputError("a training crop must have dense landmarks; got none.")
        yield crop.pixels, torch.from_numpy(canonical(crop.mesh, size))[None]
    if shards:
        yield from sources_of(studio_pairs(shards, size)[0])


def add_latents(checkpoint: str, root: Path, out: Path, count: int = AXES) -> Latents:
    """Writes a checkpoint once more, with latents fitted to the people of a folder in place of any that it has.

    Args:
        checkpoint: name of weights, file or folder.
        root: see `people_in`.
        out: ends in .safetensors; may be the checkpoint itself.
        count: components to keep.

    Raises:
        UsageError: another ending, or count below 1.
        InputError: nobody is shown, or `out` cannot be written.
        WeightsError: no mattface checkpoint.
    """
    if out.suffix != ".safetensors" or not out.absolute().parent.is_dir() or count < 1:
        raise UsageError(
            f"expected --out FILE.safetensors in an existing folder and --axes of at least 1; got {out} and {count}."
        )
    tensors, metadata = registry.load_tensors(registry.checkpoint_in(checkpoint))
    network = network_of(tensors, metadata, checkpoint)
    latents = fit_latents(network, people_in(root, network.config.encoder_size), count)
    kept = {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}
    try:
        save_weights(out, kept | latents.tensors(), metadata)
    except OSError as error:
        raise InputError(f"{out}: could not be written ({error}). Check the folder and its permissions.") from error
    return latents


def main() -> int:
    """Parses the command line and fits; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m mattface.training.latents", description=__doc__, formatter_class=raw)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="name of weights, .safetensors file, or its folder")
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="portraits, shards of triplets, or both"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="replaced if it exists")
    parser.add_argument("--axes", type=int, default=AXES, metavar="K", help=f"components to keep (default: {AXES})")
    args = parser.parse_args()
    try:
        latents = add_latents(args.checkpoint, args.root, args.out, args.axes)
    except MattfaceError as error:
        print(f"mattface: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: latents with {len(latents.axes)} axes, {os.path.getsize(args.out) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
