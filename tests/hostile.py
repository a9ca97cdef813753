"""Files that mean harm, made by tests: pickles that call, sizes that lie, archives that explode, seeded damage."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

SOURCE = "raise SystemExit('the source text inside a weight file was run')"


class Call:
    """Calls `function(*arguments)` when an ordinary reader unpickles it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def touching(path: Path) -> list[Call]:
    """Objects that create `path` by several roads when unpickled carelessly."""
    return [
        Call(os.system, f"touch {path}"),
        Call(open, str(path), "w"),
        Call(eval, f"open({str(path)!r}, 'w')"),
        Call(exec, f"open({str(path)!r}, 'w')"),
        Call(__import__, f"{path.stem}_module"),
        Call(os.mkdir, str(path)),
    ]


# NVIDIA's network pickles, written as the original writes them: real tensors, stand-ins for the two foreign modules


class EasyDict(dict):  # type: ignore[type-arg]
    """Pickled under the name of NVIDIA's class."""


def _reconstruct_persistent_obj(meta: Any) -> None:
    """Pickled under the name of NVIDIA's function; never called."""
    raise SystemExit("the function that runs source text was called")


class Module:
    """A network module as the original pickles it."""

    def __init__(self, class_name: str, parameters: Any, buffers: Any, children: Any = (), **attributes: Any) -> None:
        self.class_name = class_name
        self.state = {
            "training": False,
            "_parameters": collections.OrderedDict(parameters),
            "_buffers": collections.OrderedDict(buffers),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": collections.OrderedDict(),
            "_modules": collections.OrderedDict(children),
            **attributes,
        }

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        meta = EasyDict(type="class", version=6, module_src=SOURCE, class_name=self.class_name, state=self.state)
        return _reconstruct_persistent_obj, (meta,)


@contextmanager
def foreign_names() -> Iterator[None]:
    """Lets pickle find the two stand-ins under the names that NVIDIA's files use."""
    made: dict[str, dict[str, Any]] = {"dnnlib": {}, "dnnlib.util": {"EasyDict": EasyDict}, "torch_utils": {}}
    made["torch_utils.persistence"] = {"_reconstruct_persistent_obj": _reconstruct_persistent_obj}
    homes = {EasyDict: "dnnlib.util", _reconstruct_persistent_obj: "torch_utils.persistence"}
    for name, content in made.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    for thing, home in homes.items():
        thing.__module__ = home
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
        for thing in homes:
            thing.__module__ = __name__


def network(seed: int = 0, extra: Any = ()) -> tuple[Module, dict[str, torch.Tensor]]:
    """A small network of the known classes and its state dict; `extra` are more children of the top module."""
    make = torch.Generator().manual_seed(seed)
    weight, bias, average = (torch.randn(*s, generator=make) for s in ((4, 3), (4,), (2,)))
    strided = torch.randn(5, 6, generator=make).T[1:4]  # a view with an offset that is not contiguous
    layer = Module(
        "FullyConnectedLayer",
        {"weight": torch.nn.Parameter(weight), "bias": torch.nn.Parameter(bias), "none": None},
        {"filter": strided, "steps": torch.tensor([3, 4])},
        weight_gain=np.float64(0.25),
        activation="lrelu",
    )
    mapping = Module("MappingNetwork", {}, {"w_avg": average, "scratch": torch.ones(2)}, {"fc0": layer})
    mapping.state["_non_persistent_buffers_set"] = {"scratch"}
    kwargs = EasyDict(z_dim=4, synthesis_kwargs=EasyDict(conv_clamp=256, resample_filter=[1, 3, 3, 1], gain=0.5))
    top = Module("Generator", {}, {}, {"mapping": mapping, **dict(extra)}, _init_args=(), _init_kwargs=kwargs)
    state = {"mapping.w_avg": average, "mapping.fc0.weight": weight, "mapping.fc0.bias": bias}
    return top, state | {"mapping.fc0.filter": strided, "mapping.fc0.steps": torch.tensor([3, 4])}


def nvidia_pickle(protocol: int = 4, **more: Any) -> bytes:
    """The bytes of a file with networks G and G_ema; `more` are further entries of its outer dictionary."""
    content = {"G": network(1)[0], "D": None, "G_ema": network(2)[0], "training_set_kwargs": None, **more}
    with foreign_names():
        return pickle.dumps(content, protocol=protocol)


def with_state(**changes: Any) -> bytes:
    """A file whose generator has other attributes than it should."""
    top, _ = network()
    top.state.update(changes)
    return nvidia_pickle(G_ema=top)


def with_tensor(*arguments: Any) -> bytes:
    """A file whose generator has a buffer with these arguments of the tensor maker, storage first."""
    return with_state(_buffers={"b": Call(torch._utils._rebuild_tensor_v2, *arguments)})


def with_blob(blob: bytes) -> bytes:
    """A file whose generator has a buffer with this byte string as storage."""
    storage = Call(torch.storage._load_from_bytes, blob)
    return with_tensor(storage, 0, (2,), (1,), False, collections.OrderedDict())


def storage_blob(elements: int = 2, stated: int | None = None) -> bytes:
    """The byte string of a float storage; `stated` replaces the count at its end."""
    out = io.BytesIO()
    storage = torch.arange(elements, dtype=torch.float32)._typed_storage()
    torch.save(storage, out, _use_new_zipfile_serialization=False)
    blob = out.getvalue()
    if stated is None:
        return blob
    raw = 4 * elements
    return blob[: -raw - 8] + stated.to_bytes(8, "little", signed=True) + blob[-raw:]


def hostile_blob(thing: Any) -> bytes:
    """A storage byte string whose object pickle is `thing`."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = (0x1950A86A20F9469CFC6C, 1001, system, thing, ["0"])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts) + (0).to_bytes(8, "little")


# pickles put together by hand, where no pickler would write them


def text(value: str) -> bytes:
    """The opcode that makes a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def items(**values: bytes) -> bytes:
    """The opcodes that put items into the dictionary on the stack."""
    return b"(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def made_dict(**values: bytes) -> bytes:
    """The opcodes that make a dictionary."""
    return b"}" + items(**values)


def cyclic_pickle() -> bytes:
    """A generator that is its own child: number 0 of the memo is its dictionary of children, number 1 itself."""
    state = made_dict(_parameters=b"}", _buffers=b"}", _modules=b"h\x00")
    meta = made_dict(type=text("class"), version=b"K\x06", class_name=text("Generator"), state=state)
    module = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"\x85Rq\x01"
    return b"\x80\x04}q\x00" + module + b"h\x00" + items(again=b"h\x01") + made_dict(G_ema=b"h\x01") + b"."


def cyclic_list() -> bytes:
    """Arguments of a generator that hold a list which holds itself."""
    state = made_dict(_parameters=b"}", _buffers=b"}", _modules=b"}", _init_kwargs=made_dict(a=b"]q\x00h\x00a"))
    meta = made_dict(type=text("class"), version=b"K\x06", class_name=text("Generator"), state=state)
    module = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"\x85R"
    return b"\x80\x04" + made_dict(G_ema=module) + b"."


def nested_key() -> bytes:
    """A dictionary whose key is a pair of the same pair, sixty levels deep: hashing it would never end."""
    pairs = b")" + b"".join(b"q%c" % level + b"h%c\x86" % level for level in range(60))
    return b"\x80\x04}" + pairs + b"Ns."


def programs(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` random pickles made of whole opcodes, known globals among them: they get further than damaged files."""
    chance = random.Random(seed)
    names = [
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
        b"cdnnlib.util\nEasyDict\n",
        b"cnumpy\ndtype\n",
    ]
    names += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"c__builtin__\nset\n"]
    names += [
        b"ctorch.storage\n_load_from_bytes\n",
        b"ccollections\nOrderedDict\n",
        b"cnumpy.core.multiarray\nscalar\n",
    ]
    blob = storage_blob(2)
    values = [b"}", b"]", b")", b"\x8f", b"N", b"\x88", b"K\x06", b"J\xff\xff\xff\x7f", b"G" + bytes(8), b"M\x00\x01"]
    values += [text(word) for word in ("class", "state", "_modules", "_buffers", "Generator", "G_ema", "f8", "<")]
    values += [b"B" + len(blob).to_bytes(4, "little") + blob, b"h\x00", b"h\x01", b"h\x02"]
    joins = [b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"\x90", b"R", b"\x81", b"b", b"Q", b"\x94"]
    for _ in range(count):
        steps = [
            chance.choice(chance.choice((names, values, values, joins, joins))) for _ in range(chance.randrange(40))
        ]
        yield b"\x80\x04" + b"".join(steps) + b"."


# torch checkpoints


def torch_file(content: Any, archive: bool = True) -> bytes:
    """What torch.save writes, as a zip archive or in the format before torch 1.6."""
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=archive)
    return out.getvalue()


def rezipped(data: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes | None) -> bytes:
    """The same zip archive with records replaced (None: left out); "__" in a name stands for "/" and "_0" for "."."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        changes = {name.replace("__", "/").replace("_0", "."): value for name, value in records.items()}
        for name in [*old.namelist(), *(n for n in changes if n not in old.namelist())]:
            value = changes.get(name, old.read(name) if name in old.namelist() else b"")
            if value is not None:
                new.writestr(name, value)
    return out.getvalue()


# archives


def tar_file(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "/etc/hostname") -> bytes:
    """A tar.gz archive with these (name, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return out.getvalue()


def zip_file(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive with these (name, content)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as box:
        for name, data in members:
            box.writestr(name, data)
    return out.getvalue()


# damage


def truncations(data: bytes) -> Iterator[bytes]:
    """The file cut at every hundredth of its length."""
    for hundredth in range(100):
        yield data[: len(data) * hundredth // 100]


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged versions of a file: flipped bits, foreign bytes, huge numbers, parts cut, doubled or swapped."""
    chance = random.Random(seed)
    for _ in range(count):
        out = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            _damage(out, chance)
        yield bytes(out)


def _damage(out: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(out)) if out else 0
    length = chance.choice((1, 2, 4, 8, 64))
    match chance.randrange(7):
        case 0 | 1:
            out[at : at + 1] = bytes([out[at] ^ 1 << chance.randrange(8)]) if out else b""
        case 2:
            out[at : at + 1] = chance.randbytes(1)
        case 3:
            huge = chance.choice((b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x00\x00\x00\x40", b"\x00" * 8))
            out[at : at + len(huge)] = huge
        case 4:
            del out[at : at + length]
        case 5:
            out[at:at] = out[at : at + length]
        case 6:
            other = chance.randrange(len(out)) if out else 0
            out[at : at + length] = out[other : other + length]


# graphs and arrays, well formed


def field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2, len(body)]) + body


def tiny_onnx(size: int) -> bytes:
    """A graph y = relu(x) whose x and y are stated to have `size` values."""
    shape = field(2, field(1, b"\x08" + bytes([size])))
    kind = field(2, field(1, b"\x08\x01" + shape))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + kind) + field(12, field(1, b"y") + kind)
    return b"\x08\x07" + field(7, graph) + field(8, b"\x10\x0d")


def arrays_file(compressed: bool = False) -> bytes:
    """A .npz file of two arrays."""
    out = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(out, a=np.arange(40.0), b=np.ones((2, 3), np.float32))
    return out.getvalue()


def array_file(array: np.ndarray | None = None, **lies: Any) -> bytes:
    """A .npy file; `lies` replace entries of its header."""
    out, array = io.BytesIO(), np.arange(40.0) if array is None else array
    header = np.lib.format.header_data_from_array_1_0(array) | lies
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + array.tobytes()
