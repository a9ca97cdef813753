"""Building native kernels: cache, ninja, lock, architectures, missing and failing compilers, at install time."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT, folders
from torch._subclasses.fake_tensor import FakeTensorMode

from mattface import cuda_ops
from mattface.cli import main
from mattface.cuda_ops import _build, _implementations

CPU = _build.Target("cpu")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, no libraries from install time."""
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setattr(_build, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.delenv("MATTFACE_OPS_BUILD", raising=False)
    return tmp_path


@pytest.fixture
def fresh() -> Iterator[None]:
    """What the process has learnt about kernels is forgotten before and after."""

    def forget() -> None:
        _implementations.missing.cache_clear()
        _implementations._architecture.cache_clear()
        _implementations._tried.clear()

    forget()
    yield
    forget()


def fake_compiler(folder: Path, script: str, name: str = "fake-c++") -> Path:
    """A program that answers questions about itself and else notes its call and does what the script says."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = '[ "$1" = --version ] && echo fake 1 && exit 0\n[ "$1" = --list-gpu-code ] && echo sm_80 sm_90 && exit 0'
    path.write_text(f'#!/bin/sh\n{answers}\necho "$@" >> {path}.calls\n{script}\n')
    path.chmod(0o755)
    return path


def calls(program: Path) -> list[str]:
    """What was compiled or linked since the last question."""
    notes = Path(f"{program}.calls")
    lines = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return [line.split(" -o ")[1].split()[0] for line in lines]


WRITES = 'while [ "$1" != -o ]; do shift; done; echo library > "$2"'


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the sources that a test may change."""
    shutil.copytree(_build.SOURCES, tmp_path / "native")
    monkeypatch.setattr(_build, "SOURCES", tmp_path / "native")
    return tmp_path / "native"


def test_built_once_and_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    assert CPU.found() is None
    library, compiled = _build.build(CPU)
    assert compiled
    assert library.read_text() == "library\n"
    assert CPU.found() == library
    assert _build.build(CPU) == (library, False)
    assert _build.build(CPU, force=True) == (library, True)
    assert [path.name for path in library.parent.iterdir()] == [library.name]


def test_ninja_compiles_only_what_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sources: Path) -> None:
    program = fake_compiler(tmp_path, WRITES)
    monkeypatch.setenv("CXX", str(program))
    (sources / "second.cpp").write_text("int two() { return 2; }")
    first, _ = _build.build(CPU)
    assert {"cpu.cpp.o", "second.cpp.o", "library.so"} <= set(calls(program))
    (sources / "second.cpp").write_text("int two() { return 3; }")
    second, compiled = _build.build(CPU)
    assert compiled
    assert second.parent != first.parent
    assert calls(program) == ["second.cpp.o", "library.so"]
    assert first.exists()
    everything = {"cpu.cpp.o", "second.cpp.o", "library.so"}
    _build.build(CPU, force=True)
    assert everything <= set(calls(program))
    monkeypatch.setattr(_build.torch, "__version__", "0.0.0")  # its headers may differ
    _build.build(CPU)
    assert everything <= set(calls(program))


def test_key_follows_sources_torch_and_architecture(monkeypatch: pytest.MonkeyPatch, sources: Path) -> None:
    before, gpus = CPU.key(), {name: _build.Target(name).key() for name in _build.ARCHS}
    assert len({before, *gpus.values()}) == 1 + len(_build.ARCHS)
    (sources / "cpu.cpp").write_text("// changed")
    changed = CPU.key()
    assert _build.Target("sm_90").key() == gpus["sm_90"]
    (sources / "filter.cuh").write_text("// changed")
    assert _build.Target("sm_90").key() != gpus["sm_90"]
    assert CPU.key() == changed
    monkeypatch.setattr(_build.torch, "__version__", "0.0.0")
    assert len({before, changed, CPU.key()}) == 3


def test_failure_leaves_the_library_that_was_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = fake_compiler(tmp_path, WRITES)
    monkeypatch.setenv("CXX", str(program))
    library, _ = _build.build(CPU)
    fake_compiler(tmp_path, "echo half > library.so; echo 'x.cpp:1: error: bad' >&2; exit 1")
    with pytest.raises(_build.BuildError, match="error: bad"):
        _build.build(CPU, force=True)
    assert library.read_text() == "library\n"
    assert CPU.found() == library


def test_rejected_source_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, "echo 'x.cpp:1: error: bad' >&2; exit 1")))
    with pytest.raises(_build.BuildError, match=r"rejected the kernels for cpu: x.cpp:1: error: bad$"):
        _build.build(CPU)
    assert CPU.found() is None


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(_build.BuildError, match="expected no-such-compiler"):
        _build.build(CPU)
    assert main(["ops", "build"]) == 1
    assert main(["ops", "build", "--if-possible"]) == 0
    assert "left out" in capsys.readouterr().out


def test_unknown_architecture_lists_the_known(capsys: pytest.CaptureFixture) -> None:
    assert main(["ops", "build", "--arch", "sm_1"]) == 2
    said = capsys.readouterr().err
    assert "got sm_1" in said
    assert all(name in said for name in ("cpu", "native", "all", *_build.ARCHS))


def test_no_ninja(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    monkeypatch.setitem(sys.modules, "ninja", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(_build.BuildError, match="no ninja"):
        _build.build(CPU)


def test_no_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(_build.BuildError, match="Install the CUDA toolkit or set CUDA_HOME"):
        _build.build(_build.Target("sm_90"))
    assert main(["ops", "build", "--arch", "sm_90"]) == 1
    assert main(["ops", "build", "--arch", "all"]) == 1
    assert main(["ops", "build", "--arch", "sm_90", "--if-possible"]) == 0
    assert "sm_90: left out" in capsys.readouterr().out


def test_architectures_of_an_nvcc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    nvcc = fake_compiler(tmp_path, WRITES, "toolkit/bin/nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    assert main(["ops", "build", "--arch", "all"]) == 0
    assert [name for name in _build.TARGETS if _build.Target(name).found()] == ["cpu", "sm_80", "sm_90"]
    assert main(["ops", "build", "--arch", "sm_75"]) == 1
    assert f"{nvcc} does not compile for sm_75, only for sm_80, sm_90" in capsys.readouterr().err
    assert main(["ops", "build", "--arch", "sm_75", "--if-possible"]) == 0
    fake_compiler(tmp_path, "echo 'host_config.h: error: unsupported GNU version' >&2; exit 1", "toolkit/bin/nvcc")
    assert main(["ops", "build", "--arch", "sm_90", "--force"]) == 1
    assert main(["ops", "build", "--arch", "sm_90", "--force", "--if-possible"]) == 0
    assert "unsupported GNU version Everything runs without it" in capsys.readouterr().out


class Gpu:
    """A torch that says it has one GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)


@pytest.mark.parametrize(
    ("capability", "served"),
    [((9, 0), "sm_90"), ((7, 5), "sm_75"), ((8, 5), "sm_80"), ((12, 1), "sm_121"), ((12, 4), "sm_121")],
)
def test_without_arch_this_machine_is_served(
    capability: tuple[int, int], served: str, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    assert _implementations.targets() == ["cpu"] or torch.cuda.is_available()
    Gpu(monkeypatch, capability)
    assert _implementations.targets() == ["cpu", served]


def test_old_gpu_is_not_served(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    Gpu(monkeypatch, (6, 1))
    assert _implementations.targets() == ["cpu"]
    assert str(_implementations.missing("cuda")).startswith("no kernels for sm_61: expected sm_75")


CUDA_DEVICE = torch.device("cuda", 0)


def test_first_use_builds_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture, fresh: None
) -> None:
    nvcc = fake_compiler(tmp_path, WRITES, "toolkit/bin/nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    Gpu(monkeypatch, (9, 0))
    assert str(_implementations.missing("cuda")).startswith("not built: the first use on a GPU does")
    assert calls(nvcc) == []
    reason = _implementations._missing_for(CUDA_DEVICE)
    assert len(calls(nvcc)) == 1 + len(_build.Target("sm_90").sources())
    assert "compiling kernels for sm_90" in capsys.readouterr().err
    assert str(reason).startswith("cannot be loaded")  # it holds the word "library" only
    assert _implementations._missing_for(CUDA_DEVICE) == reason
    assert calls(nvcc) == []


def test_first_use_fails_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture, fresh: None
) -> None:
    nvcc = fake_compiler(tmp_path, "echo 'cuda.cu(1): error: bad' >&2; exit 1", "toolkit/bin/nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    Gpu(monkeypatch, (9, 0))
    for _ in range(3):
        assert "building failed: nvcc rejected" in str(_implementations._missing_for(CUDA_DEVICE))
    assert len(calls(nvcc)) == len(_build.Target("sm_90").sources())
    assert capsys.readouterr().err.count("GPUs run the slower reference") == 1
    assert "error: bad" in cuda_ops.available()["upfirdn2d"]["missing"]["cuda"]


def test_first_use_may_be_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    nvcc = fake_compiler(tmp_path, WRITES, "toolkit/bin/nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.setenv("MATTFACE_OPS_BUILD", "0")
    Gpu(monkeypatch, (9, 0))
    assert "MATTFACE_OPS_BUILD=0 forbids" in str(_implementations._missing_for(CUDA_DEVICE))
    assert calls(nvcc) == []


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("message", [None, "CUDA driver version is insufficient\nmore"])
def test_a_driver_too_old_is_a_reason(message: str | None, traced: bool) -> None:
    library = torch.library.Library("mattface_sm_75", "DEF")
    kinds = "Tensor(a!) y, Tensor x, Tensor? s, Tensor? n, Tensor? t, Tensor? b, int i, int j, int k, bool l, int a"

    def launch(y: torch.Tensor, *_: object) -> None:
        y.data_ptr()
        if message is not None:
            raise RuntimeError(message)

    try:
        library.define(f"epilogue_({kinds}, float u, float v, float w) -> ()")
        library.impl("epilogue_", launch, "CPU")
        with FakeTensorMode() if traced else nullcontext():
            reason = _implementations._obstacle(_build.Target("sm_75"), torch.device("cpu"))
    finally:
        library._destroy()
    assert reason is message or str(reason).startswith("cannot run: CUDA driver version is insufficient. Compile")


def test_why_cuda_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert str(_implementations.missing("cuda")).startswith("this torch is built without CUDA")
    _implementations.missing.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(_implementations.missing("cuda")).startswith("torch finds no GPU")
    _implementations.missing.cache_clear()
    Gpu(monkeypatch, (9, 0))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert str(_implementations.missing("cuda")).startswith("not built, no compiler for sm_90")


def test_lock_names_its_holder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, WRITES)))
    library, _ = _build.build(CPU)
    (work,) = _build.cache().glob("cpu-building-*")
    library.unlink()
    hold = f"""
import sys
from pathlib import Path
from mattface.cuda_ops import _build
folder = Path({str(work)!r})
folder.mkdir(parents=True, exist_ok=True)
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_build_that_is_ended_takes_its_compiler_with_it(tmp_path: Path) -> None:
    note = tmp_path / "compiler.pid"
    program = fake_compiler(tmp_path, f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 300")
    environment = os.environ | {"CXX": str(program)}
    building = subprocess.Popen([sys.executable, "-m", "mattface", "ops", "build", "--arch", "cpu"], env=environment)
    wait_until(note.exists)
    compiling = Path("/proc", note.read_text().strip())
    building.terminate()
    assert building.wait(60) == 143
    wait_until(lambda: not compiling.exists() or "Z" in (compiling / "stat").read_text().split()[2])


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Looks again and again; fails when the time is over."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py defines, in the checkout, with nobody installing."""
    if not (ROOT / "setup.py").is_file():
        pytest.skip("needs the checkout: no setup.py")
    pytest.importorskip("setuptools.command.bdist_wheel", reason="needs setuptools 77")
    for name in ("MATTFACE_BUILD_OPS", "PIP_BUILD_TRACKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py", run_name="install_script")


def test_install_compiles_where_it_can(
    install: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    program, root = fake_compiler(tmp_path, WRITES), str(tmp_path / "root")
    monkeypatch.setenv("CXX", str(program))
    assert install["kernels"](root) is None  # not pip: a wheel for others
    monkeypatch.setenv("PIP_BUILD_TRACKER", "there")
    monkeypatch.setenv("MATTFACE_BUILD_OPS", "0")
    assert install["kernels"](root) is None
    assert calls(program) == []
    monkeypatch.delenv("MATTFACE_BUILD_OPS")
    library = install["kernels"](root)
    shutil.copytree(library.parent, _build.PREBUILT / library.parent.name)
    assert CPU.found() == _build.PREBUILT / library.parent.name / library.name
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert install["kernels"](root) is None
    assert "CPU kernels are left out: no compiler for cpu" in capsys.readouterr().out
    monkeypatch.setenv("MATTFACE_BUILD_OPS", "1")
    with pytest.raises(SystemExit, match="cannot be compiled: no compiler for cpu"):
        install["kernels"](root)


def test_wheel_with_kernels_names_its_platform(
    install: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("build", reason="needs the package build: pip install build")
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.npz")
    for folder in folders().values():
        shutil.copytree(ROOT / folder, tmp_path / "tree" / folder, ignore=skip)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tmp_path / "tree" / file)
    environment = os.environ | {"MATTFACE_BUILD_OPS": "1", "CXX": str(fake_compiler(tmp_path, WRITES))}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(tmp_path / "tree")], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert "-none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert len([name for name in archive.namelist() if name.startswith("mattface/cuda_ops/prebuilt/cpu-")]) == 1
