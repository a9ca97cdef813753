"""Reads a pickle without Python's own reader: few opcodes, a table of known globals, and nothing is imported or called.

A pickle is a program for a small stack machine. This one knows the opcodes that checkpoints are written with. A name
in the file picks an entry of the caller's table or ends the reading; lengths are compared with the bytes that are left
before anything is made of them; byte strings stay views of the file; the number of steps is bounded, so is what they
can build.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

STEPS = 4_000_000
"""Opcodes that all pickles of one file may have together; a file with three 1024 px networks has about 60 thousand."""

LONGEST_NAME = 256
LONGEST_INTEGER = 32


class Rejected(ValueError):
    """The bytes are no pickle of the known kind; the text says why, without naming the file."""


@dataclass
class Budget:
    """Steps left; shared by all pickles of one file."""

    steps: int = STEPS


@dataclass(frozen=True)
class Known:
    """What a global of the file stands for here.

    Attributes:
        name: as in the file.
        call: receives the tuple of arguments of REDUCE; None when the file must not call it.
        new: receives the tuple of arguments of NEWOBJ; None when the file must not make one.
    """

    name: str
    call: Callable[[tuple[Any, ...]], Any] | None = None
    new: Callable[[tuple[Any, ...]], Any] | None = None


class Buildable:
    """A value that takes the state a BUILD opcode gives; what is no subclass takes none."""

    def build(self, state: Any) -> None:
        """Takes the state, or raises Rejected."""
        raise NotImplementedError


class Inert(Buildable):
    """A value whose content does not matter: it takes any state and a dictionary's items, and forgets them."""

    def build(self, state: Any) -> None:
        """Nothing."""


def reject_persistent(identifier: Any) -> NoReturn:
    """For pickles without persistent identifiers."""
    raise Rejected("it refers to data outside itself")


class Machine:
    """Runs one pickle.

    Args:
        data: the bytes; what follows the pickle's end is left alone.
        resolve: (module, name) -> Known; raises Rejected for any other name.
        persistent: what a persistent identifier stands for.
        at: where the pickle begins; after `run`, where it ended.
        budget: shared step counter.
    """

    def __init__(
        self,
        data: memoryview,
        resolve: Callable[[str, str], Known],
        persistent: Callable[[Any], Any] = reject_persistent,
        at: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.data, self.resolve, self.persistent, self.at = data, resolve, persistent, at
        self.budget = budget or Budget()
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under each open mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes.

        Raises:
            Rejected: it is cut short, damaged, too large, or holds anything that is not known.
        """
        while True:
            code = self._number(1)
            self.budget.steps -= 1
            if self.budget.steps < 0:
                raise Rejected(f"it has more than {STEPS} steps")
            if code == STOP:
                return self._pop()
            step = OPCODES.get(code)
            if step is None:
                raise Rejected(f"byte {self.at - 1} is opcode 0x{code:02x}, which no checkpoint needs")
            step(self)

    def _take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise Rejected(
                f"it ends early: {count} bytes are stated at byte {self.at}, {len(self.data) - self.at} follow"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def _number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        if not self.stack:
            raise Rejected(f"its stack is empty at byte {self.at}")
        return self.stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self.below:
            raise Rejected(f"a mark lacks at byte {self.at}")
        items, self.stack = self.stack, self.below.pop()
        return items

    def _mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _protocol(self) -> None:
        if not 2 <= self._number(1) <= 5:
            raise Rejected("its pickle protocol is none of 2 to 5")

    def _frame(self) -> None:
        size = self._number(8)
        if size > len(self.data) - self.at:
            raise Rejected(f"it ends early: a frame of {size} bytes is stated, {len(self.data) - self.at} follow")

    def _long(self) -> None:
        size = self._number(1)
        if size > LONGEST_INTEGER:
            raise Rejected(f"an integer of {size} bytes")
        self._push(self._number(size, signed=True))

    def _text(self, width: int, coding: str = "utf-8") -> None:
        raw = self._take(self._number(width))
        try:
            self._push(str(raw, coding))
        except UnicodeDecodeError as error:
            raise Rejected(f"text before byte {self.at} is not {coding}") from error

    def _line(self) -> str:
        window = bytes(self.data[self.at : self.at + LONGEST_NAME + 1])
        size = window.find(b"\n")
        if size < 0:
            raise Rejected(f"a name at byte {self.at} has no end within {LONGEST_NAME} bytes")
        self.at += size + 1
        return window[:size].decode("latin-1")

    def _global(self) -> None:
        module = self._line()
        self._push(self.resolve(module, self._line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)) or len(name) + len(module) > LONGEST_NAME:
            raise Rejected(f"a global without a name at byte {self.at}")
        self._push(self.resolve(module, name))

    def _called(self, how: str) -> None:
        arguments, target = self._pop(), self._pop()
        action = getattr(target, how) if isinstance(target, Known) else None
        if action is None or not isinstance(arguments, tuple):
            raise Rejected(f"it calls what is not to be called, before byte {self.at}")
        self._push(action(arguments))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, Buildable):
            raise Rejected(f"it gives state to what takes none, before byte {self.at}")
        target.build(state)
        self._push(target)

    def _tuple(self, count: int) -> None:
        self._push(tuple(reversed([self._pop() for _ in range(count)])))

    def _into(self, kind: type, items: list[Any]) -> None:
        """Puts items into the list, set or dictionary on top of the stack."""
        target = self._pop()
        self._push(target)
        fits = type(target) is kind or (kind is dict and isinstance(target, Inert))
        if not fits:
            raise Rejected(f"it adds items to what takes none, before byte {self.at}")
        if kind is list:
            target.extend(items)
            return
        keys = items if kind is set else items[::2]
        if not all(type(key) in (str, int) for key in keys) or (kind is dict and len(items) % 2):
            raise Rejected(f"keys must be texts or integers, before byte {self.at}")
        if not isinstance(target, Inert):
            target.update(keys if kind is set else zip(keys, items[1::2], strict=True))

    def _pair(self) -> list[Any]:
        value, key = self._pop(), self._pop()
        return [key, value]

    def _put(self, index: int) -> None:
        value = self._pop()
        self._push(value)
        self.memo[index] = value

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise Rejected(f"it recalls number {index}, which it never stored")
        self._push(self.memo[index])


STOP = ord(".")
OPCODES: dict[int, Callable[[Machine], None]] = {
    0x80: Machine._protocol,
    0x95: Machine._frame,
    ord("("): Machine._mark,
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("J"): lambda m: m._push(m._number(4, signed=True)),
    ord("K"): lambda m: m._push(m._number(1)),
    ord("M"): lambda m: m._push(m._number(2)),
    0x8A: Machine._long,
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    ord("X"): lambda m: m._text(4),
    0x8C: lambda m: m._text(1),
    0x8D: lambda m: m._text(8),
    ord("U"): lambda m: m._text(1, "latin-1"),
    ord("T"): lambda m: m._text(4, "latin-1"),
    ord("B"): lambda m: m._push(m._take(m._number(4))),
    ord("C"): lambda m: m._push(m._take(m._number(1))),
    0x8E: lambda m: m._push(m._take(m._number(8))),
    ord("}"): lambda m: m._push({}),
    ord("]"): lambda m: m._push([]),
    ord(")"): lambda m: m._push(()),
    0x8F: lambda m: m._push(set()),
    ord("t"): lambda m: m._push(tuple(m._since_mark())),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("a"): lambda m: m._into(list, [m._pop()]),
    ord("e"): lambda m: m._into(list, m._since_mark()),
    ord("s"): lambda m: m._into(dict, m._pair()),
    ord("u"): lambda m: m._into(dict, m._since_mark()),
    0x90: lambda m: m._into(set, m._since_mark()),
    ord("c"): Machine._global,
    0x93: Machine._stack_global,
    ord("R"): lambda m: m._called("call"),
    0x81: lambda m: m._called("new"),
    ord("b"): Machine._build,
    ord("Q"): lambda m: m._push(m.persistent(m._pop())),
    ord("q"): lambda m: m._put(m._number(1)),
    ord("r"): lambda m: m._put(m._number(4)),
    0x94: lambda m: m._put(len(m.memo)),
    ord("h"): lambda m: m._get(m._number(1)),
    ord("j"): lambda m: m._get(m._number(4)),
}
"""Every opcode that is known, in the order of Python's pickletools by topic."""
