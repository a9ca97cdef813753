"""Pickled networks and checkpoints that mean harm: they are read, never run, and sizes that lie are rejected."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from weight_files import CHECKPOINT, HUGE, MEBIBYTE, rejected, same

from mattface import weights
from mattface.errors import WeightsError
from mattface.weights import pickle_machine
from mattface.weights.nvidia_pickle import read_nvidia_pickle
from mattface.weights.torch_file import read_torch_file

# NVIDIA's network pickles


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_networks_are_read(written: Callable[..., Path], protocol: int) -> None:
    found = read_nvidia_pickle(written(hostile.nvidia_pickle(protocol)))
    assert list(found) == ["G", "G_ema"]
    for key, seed in (("G", 1), ("G_ema", 2)):
        assert found[key].class_name == "Generator"
        assert same(found[key].tensors, hostile.network(seed)[1])
        assert found[key].init_kwargs == {
            "z_dim": 4,
            "synthesis_kwargs": {"conv_clamp": 256, "resample_filter": [1, 3, 3, 1], "gain": 0.5},
        }
    assert "torch_utils" not in sys.modules and "dnnlib" not in sys.modules


def test_one_network_alone_can_be_asked_for(written: Callable[..., Path]) -> None:
    assert list(read_nvidia_pickle(written(hostile.nvidia_pickle()), only=("G_ema",))) == ["G_ema"]


def test_source_text_is_not_looked_at(written: Callable[..., Path]) -> None:
    data = hostile.nvidia_pickle()
    other = data.replace(
        hostile.SOURCE.encode(), b"\x00(" * (len(hostile.SOURCE) // 2) + b"!" * (len(hostile.SOURCE) % 2)
    )
    assert other != data
    found = read_nvidia_pickle(written(other))
    assert same(found["G_ema"].tensors, hostile.network(2)[1])


def test_big_endian_scalars_and_numpy_2_names(written: Callable[..., Path]) -> None:
    data = hostile.nvidia_pickle(3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert set(read_nvidia_pickle(written(data))) == {"G", "G_ema"}


CALLS = range(len(hostile.touching(Path("x"))))
PLACES: dict[str, Callable[[Any], bytes]] = {
    "outer dictionary": lambda call: hostile.nvidia_pickle(augment_pipe=call),
    "attribute": lambda call: hostile.with_state(activation=call),
    "arguments": lambda call: hostile.with_state(_init_kwargs={"a": [call]}),
    "parameter": lambda call: hostile.with_state(_parameters={"weight": call}),
    "child": lambda call: hostile.with_state(_modules={"mapping": call}),
    "tensor": lambda call: hostile.with_tensor(call, 0, (2,), (1,), False, {}),
    "storage": lambda call: hostile.with_blob(hostile.hostile_blob(call)),
    "storage, first pickle": lambda call: hostile.with_blob(pickle.dumps(call, protocol=2) + hostile.storage_blob()),
    "storage as torch file": lambda call: hostile.with_blob(hostile.torch_file({"a": call}, archive=False)),
    "storage as archive": lambda call: hostile.with_blob(hostile.torch_file({"a": call})),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_called(tmp_path: Path, written: Callable[..., Path], place: str, call: int) -> None:
    harm = tmp_path / "harm"
    data = PLACES[place](hostile.touching(harm)[call])
    with rejected("Nothing in it was run"):
        read_nvidia_pickle(written(data))
    assert not harm.exists()


@pytest.mark.parametrize("call", CALLS)
def test_the_calls_do_harm_to_a_careless_reader(tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    harm = tmp_path / "harm"
    (tmp_path / "harm_module.py").write_text(f"open({str(harm)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("harm_module", None)
    pickle.loads(pickle.dumps(hostile.touching(harm)[call]))
    assert harm.exists()


def storage() -> hostile.Call:
    return hostile.Call(torch.storage._load_from_bytes, hostile.storage_blob())


LIES: dict[str, Callable[[], bytes]] = {
    "shape": lambda: hostile.with_tensor(storage(), 0, (HUGE, HUGE), (1, 1), False, {}),
    "repeated element": lambda: hostile.with_tensor(storage(), 0, (HUGE,), (0,), False, {}),
    "one element too many": lambda: hostile.with_tensor(storage(), 1, (2,), (1,), False, {}),
    "stride": lambda: hostile.with_tensor(storage(), 0, (2,), (HUGE,), False, {}),
    "negative stride": lambda: hostile.with_tensor(storage(), 1, (2,), (-1,), False, {}),
    "negative offset": lambda: hostile.with_tensor(storage(), -1, (1,), (1,), False, {}),
    "offset of nothing": lambda: hostile.with_tensor(storage(), HUGE, (0,), (1,), False, {}),
    "truth as a size": lambda: hostile.with_tensor(storage(), 0, (True,), (1,), False, {}),
    "dimensions": lambda: hostile.with_tensor(storage(), 0, (1,) * 9, (1,) * 9, False, {}),
    "stored count": lambda: hostile.with_blob(hostile.storage_blob(2, stated=HUGE)),
    "negative count": lambda: hostile.with_blob(hostile.storage_blob(2, stated=-1)),
    "long byte string": lambda: b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x.",
    "long text": lambda: b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
    "four-byte text": lambda: b"\x80\x04X\xff\xff\xff\xffx.",
    "frame": lambda: b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"}.",
    "memo index": lambda: b"\x80\x04}r\xff\xff\xff\xff.",
    "integer": lambda: b"\x80\x04\x8a\xff" + b"\x7f" * 255 + b".",
    "long integer": lambda: b"\x80\x04\x8b\xff\xff\xff\x7f" + b"\x7f" * 255 + b".",
    "name without end": lambda: b"\x80\x04c" + b"a" * 100_000,
    "endless opcodes": lambda: b"\x80\x04" + b"}" * 30_000 + b".",
    "nested key": hostile.nested_key,
    "own child": hostile.cyclic_pickle,
    "own item": hostile.cyclic_list,
    "not a module": lambda: hostile.with_state(_modules={"a": 3}),
    "foreign class": lambda: hostile.nvidia_pickle(G_ema=hostile.Module("Trainer", {}, {})),
    "name with a dot": lambda: hostile.with_state(_buffers={"a.b": torch.ones(1)}),
    "empty": lambda: b"",
    "nothing in it": lambda: hostile.nvidia_pickle(G=None, G_ema=None),
    "a page": lambda: b"<!DOCTYPE html><html><title>404</title></html>",
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_rejected(written: Callable[..., Path], lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine.Budget, "__init__", lambda self: setattr(self, "steps", 20_000))
    with rejected("Nothing in it was run"):
        read_nvidia_pickle(written(LIES[lie]()))


def test_children_that_double_are_bounded(written: Callable[..., Path]) -> None:
    """Thirty modules, each the child of the next under two names: a billion paths in a small file."""
    top, _ = hostile.network()
    for _ in range(30):
        top = hostile.Module("SynthesisBlock", {}, {}, {"a": top, "b": top})
    with rejected("repeats the same"):
        read_nvidia_pickle(written(hostile.nvidia_pickle(G_ema=top)))


def test_one_storage_under_many_names_is_bounded(written: Callable[..., Path]) -> None:
    big = torch.nn.Parameter(torch.zeros(1 << 18))
    module = hostile.Module("Generator", {f"p{i}": big for i in range(2000)}, {})
    with rejected("repeats the same"):
        read_nvidia_pickle(written(hostile.nvidia_pickle(G_ema=module)))


# torch checkpoints


@pytest.mark.parametrize("archive", [True, False])
def test_checkpoints_are_read(written: Callable[..., Path], archive: bool) -> None:
    found = read_torch_file(written(hostile.torch_file(CHECKPOINT, archive)))
    assert same(found["state_dict"], CHECKPOINT["state_dict"])
    assert found["view"].tolist() == [2, 3, 4] and found["parameter"].tolist() == [1, 1]
    assert (found["args"].size, found["size"], found["step"]) == (1024, (1, 2), 7)
    found["state_dict"]["a"] += 1  # what is mapped from the file can be written to; the file stays
    assert read_torch_file(written(hostile.torch_file(CHECKPOINT, archive)))["state_dict"]["a"][0, 0] == 0


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_checkpoints_call_nothing(tmp_path: Path, written: Callable[..., Path], archive: bool, call: int) -> None:
    harm = tmp_path / "harm"
    bad = hostile.touching(harm)[call]
    with rejected("Nothing in it was run"):
        weights.load_checkpoint(written(hostile.torch_file({"a": bad}, archive)))
    with rejected("Nothing in it was run"):
        weights.load_checkpoint(written(pickle.dumps(bad, protocol=2)))
    assert not harm.exists()


def test_makers_of_large_tensors_are_rejected_though_torch_allows_them(written: Callable[..., Path]) -> None:
    maker = hostile.Call(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (HUGE,), (1,), False)
    for archive in (True, False):
        with rejected("_rebuild_meta_tensor_no_storage"):
            read_torch_file(written(hostile.torch_file({"a": maker}, archive)))


def with_numbers(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same archive whose object pickle states other numbers."""
    with zipfile.ZipFile(io.BytesIO(data)) as box:
        folder = box.namelist()[0].partition("/")[0]
        changed = box.read(f"{folder}/data.pkl").replace(old, new)
        assert changed != box.read(f"{folder}/data.pkl")
    return hostile.rezipped(data, **{f"{folder}__data_0pkl": changed})


SIXTEEN = b"K\x10"
"""A checkpoint of sixteen numbers: its count and its shape are written so."""
BILLION = b"J\x00\x00\x00\x40"
ARCHIVE_LIES: dict[str, Callable[[bytes], bytes]] = {
    "count and shape": lambda data: with_numbers(data, SIXTEEN, BILLION),
    "count": lambda data: with_numbers(data, SIXTEEN + b"t", BILLION + b"t"),
    "shape": lambda data: with_numbers(data, SIXTEEN + b"\x85", BILLION + b"\x85"),
    "offset": lambda data: with_numbers(data, b"K\x00" + SIXTEEN, b"K\x01" + SIXTEEN),
    "no record": lambda data: hostile.rezipped(data, archive__data__0=None),
    "short record": lambda data: hostile.rezipped(data, archive__data__0=bytes(63)),
    "compressed": lambda data: hostile.rezipped(data, zipfile.ZIP_DEFLATED),
    "bomb": lambda data: hostile.rezipped(data, zipfile.ZIP_DEFLATED, archive__data__0=bytes(100 * MEBIBYTE)),
    "program": lambda data: hostile.rezipped(data, archive__constants_0pkl=b"\x80\x02)."),
    "second folder": lambda data: hostile.rezipped(data, other__data_0pkl=b"\x80\x02)."),
    "path out of it": lambda data: hostile.rezipped(data, _0_0__data_0pkl=b"\x80\x02)."),
    "nothing": lambda data: hostile.zip_file(compression=zipfile.ZIP_STORED),
    "comment": lambda data: data[:-2] + b"\x01\x00x",
    "more after it": lambda data: data + b"x" * 30,
    "one bit of an element": lambda data: data.replace(torch.arange(16.0).numpy().tobytes(), bytes(64)),
}


@pytest.mark.parametrize("lie", ARCHIVE_LIES)
def test_archives_that_lie_are_rejected(written: Callable[..., Path], lie: str) -> None:
    good = hostile.torch_file({"a": torch.arange(16.0)})
    bad = ARCHIVE_LIES[lie](good)
    assert bad != good
    with rejected("Nothing in it was run"):
        read_torch_file(written(bad))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SIXTEEN + b"N", BILLION + b"N"),
        (SIXTEEN + b"\x85", BILLION + b"\x85"),
        (b"K\x00" + SIXTEEN, b"K\x01" + SIXTEEN),
    ],
)
def test_older_files_that_lie_are_rejected(written: Callable[..., Path], old: bytes, new: bytes) -> None:
    good = hostile.torch_file({"a": torch.arange(16.0)}, archive=False)
    assert old in good
    with rejected("Nothing in it was run"):
        read_torch_file(written(good.replace(old, new)))


@pytest.mark.parametrize("archive", [True, False])
def test_repeated_elements_are_bounded(written: Callable[..., Path], archive: bool) -> None:
    few = hostile.torch_file({"a": torch.ones(1).expand(1000)}, archive)
    assert read_torch_file(written(few))["a"].tolist() == [1] * 1000
    many = {str(i): torch.ones(1).expand(1 << 30) for i in range(5)}
    with rejected("its tensors have more than"):
        read_torch_file(written(hostile.torch_file(many, archive)))


def test_tar_checkpoints_are_rejected(written: Callable[..., Path]) -> None:
    with rejected("Nothing in it was run"):
        read_torch_file(written(hostile.tar_file(("pickle", pickle.dumps({})), ("storages", b""))))


def test_a_list_is_no_dictionary(written: Callable[..., Path]) -> None:
    with rejected("dictionary of tensors"):
        weights.load_checkpoint(written(hostile.torch_file([torch.ones(1)])))


# random programs


def run_programs(written: Callable[..., Path], count: int, seed: int) -> None:
    for program in hostile.programs(count, seed):
        try:
            read_nvidia_pickle(written(program))
        except WeightsError as error:
            assert "\n" not in str(error)
        else:
            pytest.fail(f"read as a network: {program!r}")


def test_random_programs(written: Callable[..., Path]) -> None:
    run_programs(written, 500, seed=0)


@pytest.mark.slow
def test_many_random_programs(written: Callable[..., Path]) -> None:
    run_programs(written, 20_000, seed=1)
