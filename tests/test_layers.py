"""Who may import whom: the table in CONTRIBUTING.md, enforced by reading every import in the tree.

Text that names a module counts as an import of it: registries and `import_module` reach modules that way.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT, folders

FOLDERS = {"cuda_ops": 0, "weights": 0, "realtime": 6, "training": 6, "benchmarks": 7}
"""Layers of the top-level folders that install below `mattface` (pyproject.toml names them)."""

MODULES = {
    "errors": 1,
    "vocabulary": 1,
    "checks": 1,
    "data": 1,
    "devices": 1,
    "examples": 1,
    "gaussian": 1,
    "geometry": 1,
    "layers": 1,
    "provenance": 1,
    "light": 1,
    "insight": 1,
    "matte": 3,
    "perception": 3,
    "methods": 4,
    "pipeline": 5,
    "inversion": 5,
    "sampling": 5,
    "verification": 5,
    "measure": 5,
    "cli": 8,
    "ui": 8,
    "serve": 8,
}
"""Parts of mattface/ with a layer of their own; every other part is an arrow."""

COMPANIONS = {("realtime", "methods"): "methods"}
"""Packages that belong to another part than the folder they lie in: the small networks are methods like any other."""
MODULE_NAME = re.compile(r"mattface(\.\w+)+(\.|:\w+)?")

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
ROOMS = ("studio", "drawn")
"""Parts of training/ that make data, may be used by all the others, and use nothing of training/ but themselves."""

ARROWS = 2
BASE = 1
FRONT_DOOR = 9
PURE_EXCEPTIONS = ("weights", "errors")


def parts() -> Iterator[tuple[str, Path]]:
    """Every file with the part it belongs to: ("detect", mattface/detect.py), ("weights", weights/registry.py)."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield part_of((folder, *path.relative_to(ROOT / folder).with_suffix("").parts)), path
    for path in sorted((ROOT / "mattface").rglob("*.py")):
        yield path.relative_to(ROOT / "mattface").parts[0].removesuffix(".py"), path


def part_of(names: tuple[str, ...] | list[str]) -> str:
    """The part that a module belongs to, by the names after "mattface"."""
    return COMPANIONS.get(tuple(names[:2]), names[0])


def layer(part: str) -> int:
    """The layer of a part; arrows are what nothing else is."""
    if part in ("__init__", "__main__"):
        return FRONT_DOOR
    return FOLDERS.get(part, MODULES.get(part, ARROWS))


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import from this package, those inside functions too, without the first "mattface.".

    What a module is asked for counts as a module: "methods.contract.Method". A "." in front stands for an import
    that is relative, or that takes the name of a folder for that of a package.
    """
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if MODULE_NAME.fullmatch(node.value) and exists(node.value):
                yield node.lineno, node.value.partition(":")[0].removeprefix("mattface.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mattface."):
                    yield node.lineno, alias.name.removeprefix("mattface.")
                elif alias.name in FOLDERS:
                    yield node.lineno, "." + alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name) for name in _from_modules(node))


def exists(name: str) -> bool:
    """Whether a text such as "mattface.methods.mesh:build" names a part of this tree, and not an op or a file."""
    top = name.partition(":")[0].split(".")[1]
    return top in FOLDERS or (ROOT / "mattface" / top).is_dir() or (ROOT / "mattface" / f"{top}.py").is_file()


def _from_modules(node: ast.ImportFrom) -> list[str]:
    module = node.module or ""
    if node.level or module.split(".")[0] in FOLDERS:
        return ["." + module]
    if module != "mattface" and not module.startswith("mattface."):
        return []
    names = [f"{module}.{alias.name}".removeprefix("mattface.") for alias in node.names]
    return [name for name in names if name != "__version__"]


def faults(part: str, source: str) -> list[str]:
    """Sentences about the imports of one file that break the table."""
    found = []
    for line, module in imported_modules(source):
        other = part_of(module.split("."))
        if module.startswith("."):
            found.append(f"line {line}: imports must be absolute and begin with mattface; got {module}")
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
        ("methods", "from mattface.realtime.loop import Loop"),
        ("methods", 'TABLE = {"live": "mattface.realtime.loop:Loop"}'),
        ("pipeline", 'import_module("mattface.cli.swap")'),
        ("pipeline", 'import_module(f"mattface.training.tasks.{name}")'),
        ("training", "from mattface.benchmarks import common"),
        ("training", "from training.losses import identity"),
        ("methods", "from . import contract"),
        ("training", "NETWORK = 'mattface.realtime.engine'"),
        ("methods", "from mattface.realtime import loop"),
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
        ("methods", 'TABLE = {"alphaface": "mattface.realtime.methods.alphaface"}'),
        ("training", "from mattface.realtime.methods import alphaface"),
        ("align", '"""mattface.pipeline"""\nNAME = "mattface.safetensors"'),
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
    assert {"mattface", *FOLDERS} == set(folders().values())
    assert set(FOLDERS) <= seen
    assert {"vocabulary", "errors", "methods", "__init__"} <= seen


def training_row(name: str) -> int:
    """The row of a part of training/ in the table."""
    return next(row for row, names in enumerate(TRAINING) if name in names)


def training_faults(part: str, source: str) -> list[str]:
    """Sentences about the imports of one file of training/ from other parts of it that break the table."""
    found = []
    for line, module in imported_modules(source):
        names = module.split(".")
        if names[0] != "training" or len(names) < 2 or names[1] in (part, *ROOMS):
            continue
        if part in ROOMS or training_row(names[1]) >= training_row(part):
            found.append(f"line {line}: {part} must not import {names[1]}")
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
def test_training_imports_downwards_and_what_makes_data_imports_nothing_of_it(part: str, path: Path) -> None:
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
