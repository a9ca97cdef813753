"""Triplets as WebDataset shards, written and read, and as tensors for training."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mattface.errors import InputError
from mattface.training.studio.triplet import Triplet

PICTURES = ("source", "target", "swap")
MASKS = ("visible", "matte", "mask", "occluder")
"""The channels of masks.png."""


def as_tensors(triplet: Triplet) -> dict[str, torch.Tensor]:
    """A triplet as the trainer takes it: pictures (3, S, S) and flow (2, S, S) in [-1, 1], masks (1, S, S) in [0, 1].

    Where the flow is not defined it points at its own pixel and "visible" is 0. "exact" is 1 or 0.
    """
    size = len(triplet.swap)
    out = {k: torch.from_numpy(getattr(triplet, k)).permute(2, 0, 1).float() / 127.5 - 1 for k in PICTURES}
    out |= {k: torch.from_numpy(np.ascontiguousarray(getattr(triplet, k)))[None].float() for k in MASKS[:3]}
    axis = np.arange(size, dtype=np.float32) + 0.5
    here = np.stack(np.broadcast_arrays(axis[None], axis[:, None]), -1)
    known = (triplet.flow != 0).any(-1, keepdims=True)
    flow = np.where(known, triplet.flow, here) * np.float32(2 / size) - 1
    out["flow"] = torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))
    return out | {"exact": torch.tensor(float(triplet.exact))}


def encode_triplet(triplet: Triplet) -> dict[str, bytes]:
    """The files of one sample: lossless pictures, masks in the channels of one PNG, arrays, numbers as JSON."""
    files = {f"{name}.png": _png(getattr(triplet, name)[..., ::-1]) for name in PICTURES}
    files["masks.png"] = _png(np.rint(np.stack([getattr(triplet, m) for m in MASKS], -1) * 255).astype(np.uint8))
    files["flow.npy"] = _npy(triplet.flow.astype(np.float32))
    files["depth.npy"] = _npy(triplet.depth.astype(np.float16))
    numbers: dict[str, Any] = {"kind": triplet.kind, "exact": triplet.exact, "seed": triplet.seed}
    numbers |= {"notes": list(triplet.notes), "masks": list(MASKS)}
    numbers["landmarks"] = {k: np.round(v, 3).tolist() for k, v in triplet.landmarks.items()}
    numbers["coefficients"] = {k: np.round(v, 5).tolist() for k, v in triplet.coefficients.items()}
    files["json"] = json.dumps(numbers).encode()
    return files


def _png(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise InputError(f"expected a picture that PNG holds; got {image.shape} {image.dtype}.")
    return data.tobytes()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write_shards(
    maker: Callable[[int], Triplet], folder: Path, count: int, per_shard: int = 500, seed: int = 0
) -> list[Path]:
    """Writes triplets as WebDataset shards: triplets-000000.tar, ... A shard that is there already is not made again.

    Args:
        maker: seed to triplet.
        folder: made if need be.
        count: triplets in all.
        per_shard: triplets of one file.
        seed: of the first triplet.

    Returns:
        The shards, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, start in enumerate(range(0, count, per_shard)):
        path = folder / f"triplets-{number:06d}.tar"
        paths.append(path)
        if path.exists():
            continue
        temporary = path.with_suffix(".partial")
        try:
            with tarfile.open(temporary, "w") as tar:
                for index in range(start, min(start + per_shard, count)):
                    _add(tar, f"{index:08d}", encode_triplet(maker(seed + index)))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return paths


def _add(tar: tarfile.TarFile, key: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        entry = tarfile.TarInfo(f"{key}.{name}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def read_shard(path: Path) -> Iterator[Triplet]:
    """Triplets of a shard.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    try:
        with tarfile.open(path) as tar:
            files: dict[str, bytes] = {}
            current = ""
            for entry in tar:
                key, _, name = entry.name.partition(".")
                if key != current and files:
                    yield decode_triplet(files)
                    files = {}
                current = key
                stream = tar.extractfile(entry)
                files[name] = b"" if stream is None else stream.read()
            if files:
                yield decode_triplet(files)
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"shard {path}: expected triplets; {type(error).__name__}: {error}. Make it again.") from error


def decode_triplet(files: dict[str, bytes]) -> Triplet:
    """Inverse of `encode_triplet`, but for the rounding of masks (1/255) and depth (half precision)."""
    numbers = json.loads(files["json"])
    fields: dict[str, Any] = {name: _image(files[f"{name}.png"])[..., ::-1].copy() for name in PICTURES}
    stacked = _image(files["masks.png"]).astype(np.float32) / 255
    fields |= {name: np.ascontiguousarray(stacked[..., k]) for k, name in enumerate(MASKS)}
    fields |= {k: np.load(io.BytesIO(files[f"{k}.npy"])).astype(np.float32) for k in ("flow", "depth")}
    for group in ("landmarks", "coefficients"):
        fields[group] = {k: np.array(v, np.float32) for k, v in numbers[group].items()}
    return Triplet(**fields, kind=numbers["kind"], seed=numbers["seed"], notes=tuple(numbers["notes"]))


def _image(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("a picture cannot be decoded")
    return image
