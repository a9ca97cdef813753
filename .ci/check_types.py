"""mypy over every package under the name that it installs by, which is not where it lies (see pyproject.toml)."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mypy import build, main
from mypy.modulefinder import BuildSource


def sources() -> Iterator[BuildSource]:
    """Every module with its file."""
    folders = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for package, folder in folders.items():
        for path in sorted(Path(folder).rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            yield BuildSource(str(path), ".".join((package, *(part for part in inside if part != "__init__"))))


_, options = main.process_options(["--config-file", "pyproject.toml", "--fast-module-lookup", "-p", "mattface"])
found = list(sources())
try:
    errors = build.build(found, options).errors
except build.CompileError as error:
    errors = error.messages
print("\n".join(errors) or f"Success: no issues found in {len(found)} source files")
sys.exit(bool(errors))
