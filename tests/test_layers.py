"""Who may import whom: the table in CONTRIBUTING.md, enforced by reading every import in the tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"cuda_ops": 0, "weights": 0, "realtime": 5, "training": 5, "benchmarks": 6}
"""Top-level folders that install below `mattface`, and their layers."""

MODULES = {
    "errors": 1,
    "vocabulary": 1,
    "checks": 1,
    "data": 1,
    "devices": 1,
    "examples": 1,
    "gaussian": 1,
    "layers": 1,
    "provenance": 1,
    "relight": 1,
    "methods": 3,
    "pipeline": 4,
    "sampling": 4,
    "measure": 4,
    "cli": 7,
    "ui": 7,
    "serve": 7,
}
"""Parts of mattface/ with a layer of their own; every other part is an arrow."""

SUBPARTS = {"realtime.methods": 4}
"""Folders inside a part with a layer of their own: networks like any other, which import nothing else of their part."""

TRAINING = (
    ("config", "randomness"),
    ("checkpoint", "task"),
    ("data",),
    ("losses", "modes"),
    ("models",),
    ("distributed", "journal"),
    ("loop", "recipes", "tasks"),
    ("plan",),
    ("launch",),
    ("__main__", "tools"),
)
"""Parts of training/, each importing only from earlier rows and from itself."""
ROOM = "studio"
"""Part of training/ that makes data, may be used by all the others, and uses none of them."""

ARROWS = 2
BASE = 1
FRONT_DOOR = 8
PURE_EXCEPTIONS = ("weights", "errors")
NAMED = re.compile(r"mattface(\.\w+)+")
"""A string that names a module for a lazy import. With ":build" behind it, in the registry of methods, it is none."""


def parts() -> Iterator[tuple[str, Path]]:
    """Every file with the part it belongs to: ("detect", mattface/detect.py), ("weights", weights/registry.py)."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            part = ".".join(path.relative_to(ROOT).parts[:2])
            yield part if part in SUBPARTS else folder, path
    for path in sorted((ROOT / "mattface").rglob("*.py")):
        yield path.relative_to(ROOT / "mattface").parts[0].removesuffix(".py"), path


def layer(part: str) -> int:
    """The layer of a part; arrows are what nothing else is."""
    if part in ("__init__", "__main__"):
        return FRONT_DOOR
    return SUBPARTS.get(part, FOLDERS.get(part, MODULES.get(part, ARROWS)))


def part_of(module: str) -> str:
    """The part that a module of this package belongs to: "mattface.realtime.methods.blocks" -> "realtime.methods"."""
    names = module.split(".")[1:]
    two = ".".join(names[:2])
    return two if two in SUBPARTS else names[0]


def imported_parts(source: str) -> Iterator[tuple[int, str]]:
    """(line, part) of every import from this package, those inside functions too. "." stands for a relative import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mattface."):
                    yield node.lineno, part_of(alias.name)
                elif alias.name in FOLDERS:
                    yield node.lineno, "." + alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, part) for part in _from_parts(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            yield node.lineno, part_of(node.value)


def _from_parts(node: ast.ImportFrom) -> list[str]:
    module = node.module or ""
    if node.level or module.split(".")[0] in FOLDERS:
        return ["." + module]
    if module == "mattface":
        return [alias.name for alias in node.names if alias.name != "__version__"]
    if module.startswith("mattface.") and ".".join([module.split(".")[1], node.names[0].name]) in SUBPARTS:
        return [part_of(f"{module}.{alias.name}") for alias in node.names]
    return [part_of(module)] if module.startswith("mattface.") else []


def faults(part: str, source: str) -> list[str]:
    """Sentences about the imports of one file that break the table."""
    found = []
    for line, other in imported_parts(source):
        if other.startswith("."):
            found.append(f"line {line}: imports must be absolute and begin with mattface; got {other}")
        elif other == part or (part, other) == PURE_EXCEPTIONS:
            continue
        elif layer(other) > layer(part):
            found.append(f"line {line}: {part} (layer {layer(part)}) imports {other} (layer {layer(other)}) above it")
        elif layer(other) == layer(part) != BASE:
            found.append(f"line {line}: {part} and {other} are both layer {layer(part)} and must not meet there")
    return found


@pytest.mark.parametrize(("part", "path"), [pytest.param(p, f, id=str(f.relative_to(ROOT))) for p, f in parts()])
def test_imports_follow_the_table(part: str, path: Path) -> None:
    assert faults(part, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("detect", "from mattface.align import crop"),
        ("detect", "def f():\n    from mattface.paste import paste"),
        ("detect", "from mattface import pipeline"),
        ("generate", "import mattface.methods.mesh"),
        ("vocabulary", "from mattface.pixels import to_tensor"),
        ("cuda_ops", "from mattface.errors import MattfaceError"),
        ("weights", "from mattface.cuda_ops import upfirdn2d"),
        ("weights", "from mattface.vocabulary import Face"),
        ("pipeline", "from mattface.measure import cosine"),
        ("pipeline", "from mattface.cli import main"),
        ("training", "from mattface.realtime import engine"),
        ("training", "from mattface.benchmarks import common"),
        ("training", "from training.losses import identity"),
        ("methods", "from . import contract"),
        ("training", "NETWORK = 'mattface.realtime.engine'"),
        ("realtime.methods", "from mattface.realtime import loop"),
        ("detect", "from mattface.realtime import methods"),
    ],
)
def test_breaking_the_table_is_seen(part: str, source: str) -> None:
    assert len(faults(part, source)) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("detect", "from mattface.vocabulary import Face\nfrom mattface.weights import find\nimport numpy"),
        ("weights", "from mattface.errors import WeightsError"),
        ("embed", "from mattface.embed.resnet import ResNet"),
        ("methods", "from mattface.align import ffhq\nfrom mattface.methods.contract import CropSpec"),
        ("cli", "import mattface\nfrom mattface import __version__\nfrom mattface.pipeline import load"),
        ("training", "from mattface.realtime.methods.geometry import geometry_maps"),
        ("realtime", "from mattface.realtime.methods import alphaface"),
        ("benchmarks", "from mattface.training import data\nfrom mattface.measure import cosine"),
    ],
)
def test_keeping_the_table_is_allowed(part: str, source: str) -> None:
    assert faults(part, source) == []


def test_every_named_part_that_exists_is_read() -> None:
    """A renamed folder must not slip out of the table."""
    seen = {part for part, _ in parts()}
    assert set(FOLDERS) <= seen
    assert {"vocabulary", "errors", "methods", "__init__"} <= seen


def training_row(name: str) -> int:
    """The row of a part of training/ in the table."""
    return next(row for row, names in enumerate(TRAINING) if name in names)


def training_faults(part: str, source: str) -> list[str]:
    """Sentences about the imports of one file of training/ from other parts of it that break the table."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            names = [node.value]
        for name in names:
            pieces = name.split(".")
            if pieces[:2] != ["mattface", "training"] or len(pieces) < 3 or pieces[2] in (part, ROOM):
                continue
            if part == ROOM or training_row(pieces[2]) >= training_row(part):
                found.append(f"line {node.lineno}: {part} must not import {pieces[2]}")  # type: ignore[attr-defined]
    return found


def training_files() -> Iterator[tuple[str, Path]]:
    """(part, file) of training/ but for its empty front."""
    for path in sorted((ROOT / "training").rglob("*.py")):
        part = path.relative_to(ROOT / "training").parts[0].removesuffix(".py")
        if part != "__init__":
            yield part, path


@pytest.mark.parametrize(
    ("part", "path"), [pytest.param(p, f, id=str(f.relative_to(ROOT))) for p, f in training_files()]
)
def test_training_imports_downwards_and_its_studio_imports_nothing_of_it(part: str, path: Path) -> None:
    assert training_faults(part, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("data", "from mattface.training.tasks.swap import SwapTask"),
        ("tasks", "from mattface.training.recipes import mattface_demo"),
        ("recipes", "TASK = 'mattface.training.tasks.swap'"),
        ("config", "def f():\n    import mattface.training.task"),
        ("studio", "from mattface.training.data.shards import read_bytes"),
        ("losses", "from mattface.training import loop"),
    ],
)
def test_breaking_the_table_of_training_is_seen(part: str, source: str) -> None:
    assert len(training_faults(part, source)) == 1
