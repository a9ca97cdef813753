"""Who may import whom: the table in CONTRIBUTING.md, enforced by reading every import in the tree."""

from __future__ import annotations

import ast
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
    "verification": 4,
    "measure": 4,
    "cli": 7,
    "ui": 7,
    "serve": 7,
}
"""Parts of mattface/ with a layer of their own; every other part is an arrow."""

ARROWS = 2
BASE = 1
FRONT_DOOR = 8
PURE_EXCEPTIONS = ("weights", "errors")


def parts() -> Iterator[tuple[str, Path]]:
    """Every file with the part it belongs to: ("detect", mattface/detect.py), ("weights", weights/registry.py)."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path
    for path in sorted((ROOT / "mattface").rglob("*.py")):
        yield path.relative_to(ROOT / "mattface").parts[0].removesuffix(".py"), path


def layer(part: str) -> int:
    """The layer of a part; arrows are what nothing else is."""
    if part in ("__init__", "__main__"):
        return FRONT_DOOR
    return FOLDERS.get(part, MODULES.get(part, ARROWS))


def imported_parts(source: str) -> Iterator[tuple[int, str]]:
    """(line, part) of every import from this package, those inside functions too. "." stands for a relative import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mattface."):
                    yield node.lineno, alias.name.split(".")[1]
                elif alias.name in FOLDERS:
                    yield node.lineno, "." + alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, part) for part in _from_parts(node))


def _from_parts(node: ast.ImportFrom) -> list[str]:
    module = node.module or ""
    if node.level or module.split(".")[0] in FOLDERS:
        return ["." + module]
    if module == "mattface":
        return [alias.name for alias in node.names if alias.name != "__version__"]
    return [module.split(".")[1]] if module.startswith("mattface.") else []


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
