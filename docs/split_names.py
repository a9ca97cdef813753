"""For the API reference: an entry for several arguments, "a, b: text", becomes one entry for each of them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+):(.*(?:\n\1 +\S.*)*)$", re.MULTILINE)
"""Indentation, names, and the text with the lines that continue it."""


def split(docstring: str) -> str:
    """The docstring with every shared entry repeated for each of its names."""
    return ENTRY.sub(lambda m: "\n".join(f"{m[1]}{name}:{m[3]}" for name in m[2].split(", ")), docstring)


class SplitNames(Extension):
    """Splits shared entries of every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = split(obj.docstring.value)
