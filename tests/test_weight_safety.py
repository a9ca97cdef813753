"""Damaged weight files, reader by reader: each is read or ends in one clear line, and memory does not grow."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from safetensors.torch import save
from tiny_ir import write_tiny
from weight_files import CHECKPOINT, rejected, same

from mattface import weights
from mattface.errors import WeightsError
from mattface.weights.archives import extract_member
from mattface.weights.arrays import read_arrays
from mattface.weights.nvidia_pickle import read_nvidia_pickle
from mattface.weights.onnx_graph import free_sizes
from mattface.weights.onnx_read import open_graph
from mattface.weights.openvino_ir import read_topology
from mattface.weights.torch_file import read_torch_file


def reading(kind: str, folder: Path) -> tuple[bytes, Callable[[bytes], Any]]:
    """(a good file of a kind, what reads such bytes)."""
    members = (("other", b"x"), ("net.dat", bytes(range(256))))

    def through(read: Callable[[Path], Any], name: str = "file") -> Callable[[bytes], Any]:
        def run(data: bytes) -> Any:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return run

    def member(path: Path) -> bytes:
        return extract_member(path, "net.dat", folder / "out").read_bytes()

    def openvino() -> tuple[bytes, Callable[[bytes], Any]]:
        xml, numbers, _ = write_tiny()
        return xml, lambda data: read_topology(data, numbers)

    return {
        "nvidia": lambda: (hostile.nvidia_pickle(), through(read_nvidia_pickle)),
        "nvidia, protocol 3": lambda: (hostile.nvidia_pickle(3), through(read_nvidia_pickle)),
        "torch archive": lambda: (hostile.torch_file(CHECKPOINT), through(read_torch_file)),
        "torch before 1.6": lambda: (hostile.torch_file(CHECKPOINT, archive=False), through(read_torch_file)),
        "safetensors": lambda: (
            save({"a": torch.arange(30.0), "b": torch.ones(2, 3)}),
            through(weights.load_tensors, "file.safetensors"),
        ),
        "zip": lambda: (hostile.zip_file(*members), through(member)),
        "tar.gz": lambda: (hostile.tar_file(*members), through(member)),
        "npy": lambda: (hostile.array_file(), through(read_arrays)),
        "npz": lambda: (hostile.arrays_file(compressed=True), through(read_arrays)),
        "openvino": lambda: openvino(),
        "onnx": lambda: (hostile.tiny_onnx(3), through(open_graph)),
        "onnx, freed": lambda: (hostile.tiny_onnx(3), free_sizes),
    }[kind]()


READERS = ["nvidia", "nvidia, protocol 3", "torch archive", "torch before 1.6", "safetensors", "zip", "tar.gz", "npy"]
READERS += ["openvino", "npz", "onnx", "onnx, freed"]


@pytest.mark.parametrize("kind", READERS)
def test_files_cut_at_every_hundredth_are_rejected(tmp_path: Path, kind: str) -> None:
    good, read = reading(kind, tmp_path)
    for hundredth, cut in enumerate(hostile.truncations(good)):
        try:
            got = read(cut)
        except WeightsError as error:
            assert "\n" not in str(error)
        else:
            whole = kind == "tar.gz" and got == bytes(range(256))  # the member may be there before the archive ends
            assert whole or kind.startswith("onnx"), f"cut at {hundredth} % was read"
            # between two fields a graph may end: only its hash tells


def survives(kind: str, folder: Path, count: int, seed: int) -> dict[str, int]:
    """Reads `count` damaged files; only a WeightsError of one line may come, and memory must not grow."""
    good, read = reading(kind, folder)
    reference = read(good)
    said = {"read": 0, "rejected": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bad in hostile.damaged(good, count, seed):
        try:
            got = read(bad)
            said["read"] += 1
        except WeightsError as error:
            said["rejected"] += 1
            assert "\n" not in str(error)
            continue
        if kind == "torch archive":  # its checksums find every wrong byte
            assert same(got["state_dict"], reference["state_dict"])
        if kind == "zip":
            assert got == reference
    assert said["rejected"] > count // 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "300 MB"
    return said


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    survives(kind, tmp_path, 100, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_many_damaged_files(tmp_path: Path, kind: str) -> None:
    survives(kind, tmp_path, 5000, seed=1)


def test_load_strictly_names_the_first_difference() -> None:
    net = torch.nn.BatchNorm1d(2)
    state = {k: v for k, v in net.state_dict().items() if k != "num_batches_tracked"}
    weights.load_strictly(net, state | {"weight": torch.tensor([5.0, 6.0])}, "a norm")
    assert net.weight.tolist() == [5, 6]
    with rejected(r"'weight': expected shape \(2,\), got \(3,\)"):
        weights.load_strictly(net, state | {"weight": torch.ones(3)}, "a norm")
    with rejected("1 differ, first 'extra'"):
        weights.load_strictly(net, state | {"extra": torch.ones(3)}, "a norm")
