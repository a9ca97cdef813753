"""Building native kernels: cache, lock, missing and failing compilers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mattface.cli import main
from mattface.cuda_ops import _build

CPU = _build.Target("cpu")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    return tmp_path


def fake_compiler(folder: Path, script: str) -> Path:
    """A program that answers --version and then does what the script says."""
    path = folder / "fake-c++"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo fake 1 && exit 0\n{script}\n')
    path.chmod(0o755)
    return path


WRITES = 'while [ "$1" != -o ]; do shift; done; echo library > "$2"'


def test_built_once_and_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    assert CPU.found() is None
    library, compiled = _build.build(CPU)
    assert compiled
    assert library.read_text() == "library\n"
    assert CPU.found() == library
    assert _build.build(CPU) == (library, False)
    assert _build.build(CPU, force=True) == (library, True)
    assert not list(library.parent.glob("building-*"))


def test_key_follows_sources_and_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = CPU.key()
    shutil.copytree(_build.SOURCES, tmp_path / "native")
    monkeypatch.setattr(_build, "SOURCES", tmp_path / "native")
    assert CPU.key() == before
    (tmp_path / "native" / "cpu.cpp").write_text("// changed")
    changed = CPU.key()
    monkeypatch.setattr(_build.torch, "__version__", "0.0.0")
    assert len({before, changed, CPU.key()}) == 3


def test_refused_source_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, "echo 'x.cpp:1: error: bad' >&2; exit 1")))
    with pytest.raises(_build.BuildError, match=r"refused cpu.cpp: x.cpp:1: error: bad$"):
        _build.build(CPU)
    assert CPU.found() is None


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(_build.BuildError, match="expected no-such-compiler"):
        _build.build(CPU)
    assert main(["ops", "build"]) == 1
    assert main(["ops", "build", "--if-possible"]) == 0
    assert "left out" in capsys.readouterr().out
    assert main(["ops", "build", "--arch", "sm_1"]) == 2


def test_lock_names_its_holder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    hold = f"""
import sys
from pathlib import Path
from mattface.cuda_ops import _build
folder = Path({str(CPU.folder())!r})
folder.mkdir(parents=True)
with _build._locked(folder, 5):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(_build.BuildError, match=f"process {holder.pid} has been building"):
            _build.build(CPU, lock_seconds=0.1)
    finally:
        holder.communicate("", timeout=30)
    assert _build.build(CPU)[1]


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_real_build_is_chosen_and_computes(home: Path) -> None:
    script = """
import torch
from mattface import cuda_ops
from mattface.cuda_ops import _build
assert cuda_ops.available()["bias_act"]["chosen"] == "reference"
_build.build(_build.Target("cpu"))
from mattface.cuda_ops import _implementations
_implementations.missing.cache_clear()
x = torch.randn(2, 3, 5, 7)
native, plain = (cuda_ops.bias_act(x, act="swish", impl=impl) for impl in ("cpu", "reference"))
assert torch.allclose(native, plain)
"""
    environment = {**os.environ, "MATTFACE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
