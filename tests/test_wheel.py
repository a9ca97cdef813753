"""What a wheel holds: everything below one name, weights and cards inside, nothing that belongs to the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import PurePosixPath

import pytest
from checkout import ROOT, folders

import mattface

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the tree, so that no old build leaks into it."""
    pytest.importorskip("build", reason="needs the package build: pip install build")
    work = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for folder in folders().values():
        shutil.copytree(ROOT / folder, work / "tree" / folder, ignore=skip)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, work / "tree" / file)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(work / "tree")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = work.glob("mattface-*.whl")
    assert wheel.name == f"mattface-{mattface.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_nothing_generic_lands_in_site_packages(members: set[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in members}
    assert tops == {"mattface", f"mattface-{mattface.__version__}.dist-info"}


def test_every_module_is_inside(members: set[str]) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}"
        for package, folder in folders().items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert expected - members == set()


def test_weights_cards_and_data_are_inside(members: set[str]) -> None:
    expected = {f"mattface/{p.relative_to(ROOT)}" for p in (ROOT / "weights").rglob("*.safetensors")}
    expected |= {f"mattface/{p.relative_to(ROOT)}" for p in (ROOT / "weights" / "cards").iterdir() if p.is_file()}
    expected |= {
        str(p.relative_to(ROOT))
        for p in (ROOT / "mattface" / "data").iterdir()
        if p.suffix in (".npz", ".npy", ".json")
    }
    assert "mattface/weights/cards/centerface.toml" in expected
    assert "mattface/data/face_mesh.npz" in expected
    assert expected - members == set()


def test_nothing_of_the_checkout_is_inside(members: set[str]) -> None:
    assert not [n for n in members if n.endswith((".pyc", ".so", ".o", ".jpg")) or "/tests/" in n]


def test_licence_and_script_are_inside(members: set[str]) -> None:
    info = f"mattface-{mattface.__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= members
