"""Reads the network pickles of StyleGAN2-ADA (PyTorch) without running anything that they contain.

Such a file is a plain pickle of whole modules: it carries its own source code, which the official way of opening it
executes, and every tensor is a byte string that is a small pickle file again. Both layers are read here by
`pickle_machine` with a table of nine harmless stand-ins; the source code is skipped unread.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import WeightsError
from mattface.weights.pickle_machine import Budget, Buildable, Known, Machine, Rejected
from mattface.weights.pickled_tensors import MAGIC, PROTOCOL, STORAGES, check_window, expect, width

if TYPE_CHECKING:
    import torch

LARGEST = 4 << 30
"""Bytes a file may have; three 1024 px networks have about 380 MB."""

NETWORKS = ("G", "D", "G_ema")
CLASSES = {"Generator", "MappingNetwork", "SynthesisNetwork", "SynthesisBlock", "SynthesisLayer", "ToRGBLayer"}
CLASSES |= {"FullyConnectedLayer", "Conv2dLayer", "Discriminator", "DiscriminatorBlock", "DiscriminatorEpilogue"}
CLASSES |= {"MinibatchStdLayer"}
DEEPEST = 32
"""Levels of modules, or of containers in a network's arguments."""


@dataclass(frozen=True)
class PickledNetwork:
    """One network of the file.

    Attributes:
        class_name: "Generator" or "Discriminator".
        init_kwargs: the arguments it was made with: plain dictionaries, lists, tuples, numbers and texts.
        tensors: state-dict name -> tensor on the CPU, in the order of the original state dict.
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def read_nvidia_pickle(path: str | Path, only: tuple[str, ...] = ()) -> dict[str, PickledNetwork]:
    """The networks of a StyleGAN2-ADA pickle (`ffhq.pkl` and its kind).

    Args:
        path: the file.
        only: networks to make tensors of ("G_ema",); empty for all that are there.

    Returns:
        "G", "D", "G_ema" as far as they are there and asked for -> network.

    Raises:
        WeightsError: no such file, another kind of file, a damaged one, or one that names anything beyond the nine
            globals such files need. Nothing in it has been run.
    """
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            if not 0 < size <= LARGEST:
                raise Rejected(f"it has {size} bytes, expected 1 to {LARGEST}")
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        outer = Machine(data, _Names(Budget()).outer)
        top = outer.run()
        found = {key: top[key] for key in NETWORKS if isinstance(top.get(key), _Module)} if type(top) is dict else {}
        if not found:
            raise Rejected(f"it holds none of the networks {', '.join(NETWORKS)}")
        allowance = _Allowance(2 * size)
        return {key: _network(module, allowance) for key, module in found.items() if not only or key in only}
    except (Rejected, OSError) as error:
        raise WeightsError(
            f"expected a StyleGAN2-ADA network pickle; {path} is none: {error}. "
            "Nothing in it was run. Get the file from its makers again."
        ) from error


@dataclass(frozen=True)
class _Module:
    """A module of the file: what its class was called, and its attributes."""

    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True)
class _Storage:
    """Elements in the file: type name and bytes."""

    kind: str
    data: memoryview


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, checked to lie inside it; made into a real tensor when it is wanted."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dtype(Buildable):
    """Stands for a numpy type: remembers code and byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def build(self, state: Any) -> None:
        """Takes the byte order out of numpy's state tuple."""
        if not (isinstance(state, tuple) and len(state) == 8 and state[1] in ("<", ">", "|", "=")):
            raise Rejected("a numpy type of an unknown form")
        self.order = state[1]


class _Names:
    """The tables of globals: nine for the file itself, storages for the byte strings inside."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        scalar, table = Known("scalar", call=_scalar), {}
        table["torch_utils.persistence", "_reconstruct_persistent_obj"] = Known("module", call=_module)
        table["dnnlib.util", "EasyDict"] = Known("EasyDict", new=_empty)
        table["collections", "OrderedDict"] = Known("OrderedDict", call=_empty)
        table["builtins", "set"] = table["__builtin__", "set"] = Known("set", call=_set)
        table["torch._utils", "_rebuild_parameter"] = Known("parameter", call=_parameter)
        table["torch._utils", "_rebuild_tensor_v2"] = Known("tensor", call=_tensor)
        table["torch.storage", "_load_from_bytes"] = Known("storage", call=self.storage)
        table["numpy.core.multiarray", "scalar"] = table["numpy._core.multiarray", "scalar"] = scalar
        table["numpy", "dtype"] = Known("dtype", call=_dtype)
        self.table = table

    def outer(self, module: str, name: str) -> Known:
        """A global of the file itself."""
        if (module, name) not in self.table:
            raise Rejected(f"it names {module!r} {name!r}, which no such file needs")
        return self.table[module, name]

    def inner(self, module: str, name: str) -> Known:
        """A global of a tensor's byte string: a storage type, not to be called."""
        if module != "torch" or name not in STORAGES or name in ("BFloat16Storage", "BoolStorage"):
            raise Rejected(f"a tensor in it names {module!r} {name!r}, which no tensor needs")
        return Known(name)

    def storage(self, arguments: tuple[Any, ...]) -> _Storage:
        """The elements in a byte string: five pickles, a count, and raw little-endian numbers."""
        (data,) = expect("a storage", arguments, memoryview)
        at, parts = 0, []
        for _ in range(5):
            machine = Machine(data, self.inner, _stored, at, self.budget)
            parts.append(machine.run())
            at = machine.at
        magic, protocol, system, described, keys = parts
        little = isinstance(system, dict) and system.get("little_endian") is True
        if magic != MAGIC or protocol != PROTOCOL or not little or not isinstance(described, _Described):
            raise Rejected("a tensor in it is no storage of the known layout")
        raw = data[at + 8 :]
        fits = len(raw) == described.count * width(described.kind) and keys == [described.key]
        if not fits or struct.unpack("<q", data[at : at + 8])[0] != described.count:
            raise Rejected(f"a tensor in it states {described.count} elements; {len(raw)} bytes follow")
        return _Storage(described.kind, raw)


@dataclass(frozen=True)
class _Described:
    """What a storage's persistent identifier says."""

    kind: str
    key: str
    count: int


def _stored(identifier: Any) -> _Described:
    """("storage", type, key, device, count, None) -> what it says."""
    if not (isinstance(identifier, tuple) and len(identifier) == 6 and identifier[5] is None):
        raise Rejected("a tensor in it has no storage of the known layout")
    tag, kind, key, device, count = expect("a storage", identifier[:5], str, Known, str, str, int)
    if tag != "storage" or kind.name not in STORAGES or len(device) > 16 or count < 0:
        raise Rejected("a tensor in it has no storage of the known layout")
    return _Described(kind.name, key, count)


def _empty(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    expect("a dictionary", arguments)
    return {}


def _set(arguments: tuple[Any, ...]) -> set[str]:
    (items,) = expect("a set", arguments, list)
    if not all(type(item) is str for item in items):
        raise Rejected("a set in it holds other things than names")
    return set(items)


def _module(arguments: tuple[Any, ...]) -> _Module:
    (meta,) = expect("a module", arguments, dict)
    kind, name, state = expect("a module", tuple(meta.get(k) for k in ("type", "class_name", "state")), str, str, dict)
    if kind != "class" or meta.get("version") != 6:
        raise Rejected("a module in it is of another version than 6")
    return _Module(name, state)


def _parameter(arguments: tuple[Any, ...]) -> _Tensor:
    tensor, _, _ = expect("a parameter", arguments, _Tensor, bool, dict)
    return tensor


def _tensor(arguments: tuple[Any, ...]) -> _Tensor:
    storage, offset, size, stride, _, _ = expect("a tensor", arguments, _Storage, int, tuple, tuple, bool, dict)
    check_window(len(storage.data) // width(storage.kind), offset, size, stride)
    return _Tensor(storage, offset, size, stride)


def _dtype(arguments: tuple[Any, ...]) -> _Dtype:
    code, _, _ = expect("a numpy type", arguments, str, bool, bool)
    if code not in ("f8", "f4", "f2", "i8", "i4", "b1"):
        raise Rejected("a numpy type in it is no number")
    return _Dtype(code)


def _scalar(arguments: tuple[Any, ...]) -> float | int | bool:
    import numpy as np

    dtype, raw = expect("a numpy number", arguments, _Dtype, memoryview)
    if len(raw) != int(dtype.code[1]):
        raise Rejected("a numpy number in it has a wrong length")
    return np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order))[0].item()


class _Allowance:
    """Bytes of tensors that a file may still be made into: shared storages must not multiply what it holds."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.entries = 100_000

    def spend(self, size: int) -> None:
        self.left -= size
        self.entries -= 1
        if self.left < 0 or self.entries < 0:
            raise Rejected("it repeats the same tensors beyond its own size")


def _network(module: _Module, allowance: _Allowance) -> PickledNetwork:
    tensors: dict[str, torch.Tensor] = {}
    _flatten(module, "", tensors, allowance, 0)
    kwargs = _plain(module.state.get("_init_kwargs", {}), allowance, 0)
    if not isinstance(kwargs, dict):
        raise Rejected("the arguments of a network in it are no dictionary")
    return PickledNetwork(module.class_name, kwargs, tensors)


def _flatten(module: _Module, prefix: str, into: dict[str, torch.Tensor], allowance: _Allowance, depth: int) -> None:
    """The state-dict rule: own parameters, own persistent buffers, then each child module."""
    allowance.spend(0)
    if module.class_name not in CLASSES or depth > DEEPEST:
        raise Rejected(f"a module in it is {module.class_name[:40]!r} at level {depth}, which no such network has")
    fields = [module.state.get(key) for key in ("_parameters", "_buffers", "_modules")]
    parameters, buffers, children = expect("a module", tuple(fields), dict, dict, dict)
    hidden = module.state.get("_non_persistent_buffers_set", set())
    own = parameters | {k: v for k, v in buffers.items() if not (isinstance(hidden, set) and k in hidden)}
    for name, tensor in own.items():
        if tensor is not None:
            into[_new_name(prefix, name, into)] = _made(tensor, allowance)
    for name, child in children.items():
        if not isinstance(child, _Module):
            raise Rejected("a module in it has a child that is none")
        _flatten(child, f"{_new_name(prefix, name, into)}.", into, allowance, depth + 1)


def _new_name(prefix: str, name: Any, into: dict[str, torch.Tensor]) -> str:
    full = f"{prefix}{name}"
    if type(name) is not str or not name or "." in name or len(full) > 1024 or full in into:
        raise Rejected("a tensor in it has no name of its own")
    return full


def _made(tensor: Any, allowance: _Allowance) -> torch.Tensor:
    import numpy as np
    import torch

    if not isinstance(tensor, _Tensor):
        raise Rejected("a parameter in it is no tensor")
    elements = np.frombuffer(tensor.storage.data, STORAGES[tensor.storage.kind])
    allowance.spend(math.prod(tensor.size) * elements.itemsize)
    steps = [step * elements.itemsize for step in tensor.stride]
    window = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.size, steps, writeable=False)
    return torch.from_numpy(np.array(window, order="C"))


def _plain(value: Any, allowance: _Allowance, depth: int) -> Any:
    """A copy of nested containers of numbers and texts; anything else is rejected."""
    allowance.spend(0)
    if depth > DEEPEST:
        raise Rejected("the arguments of a network in it are nested too deeply")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item, allowance, depth + 1) for item in value)
    if type(value) is dict:
        return {key: _plain(item, allowance, depth + 1) for key, item in value.items()}
    raise Rejected("the arguments of a network in it hold other things than numbers and texts")
