"""Compiling the native kernels, ahead of use and never on import. Needs a C++ compiler and nothing else.

A library is kept in CACHE/NAME-KEY/COMPILER.so: KEY stands for the sources, torch and the machine it is for, COMPILER
for the compiler and its options. A finished library appears at once, by renaming.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "native"
STABLE_SINCE = "0x020a000000000000"
"""torch 2.10, the oldest version whose stable interface has what the kernels use."""
COMMON = ("-O3", "-std=c++17", f"-DTORCH_TARGET_VERSION={STABLE_SINCE}")
HOST = ("-fPIC", "-Wall", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math")
LOCK_SECONDS = 300.0
TARGETS = ("cpu",)


class BuildError(RuntimeError):
    """The kernels could not be compiled; says why and what to do."""


@dataclass(frozen=True)
class Target:
    """What to build.

    Attributes:
        name: one of `TARGETS`.
    """

    name: str

    @property
    def source(self) -> Path:
        """The file to compile."""
        return SOURCES / f"{self.name}.cpp"

    def folder(self) -> Path:
        """Where its libraries are kept; may not exist."""
        return cache() / f"{self.name}-{self.key()}"

    def key(self) -> str:
        """Hash of sources, torch and machine."""
        machine = platform.machine() + _cpu_features()
        parts = [path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file()]
        return _hash(*parts, torch.__version__.encode(), machine.encode())

    def found(self) -> Path | None:
        """The library built last, or None."""
        libraries = sorted(self.folder().glob("*.so"), key=lambda path: path.stat().st_mtime)
        return libraries[-1] if libraries else None


def cache() -> Path:
    """$MATTFACE_HOME/ops, else the user's cache folder."""
    root = os.environ.get("MATTFACE_HOME")
    if root:
        return Path(root) / "ops"
    from platformdirs import user_cache_path

    return user_cache_path("mattface") / "ops"


def compiler(target: Target) -> str:
    """Path of the compiler.

    Raises:
        BuildError: there is none.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise BuildError(f"no compiler for {target.name}: expected {' or '.join(names)}. Install one, then: {how(target)}.")


def how(target: Target) -> str:
    """The command that builds a target."""
    return "mattface ops build" + ("" if target.name == TARGETS[0] else f" --arch {target.name}")


def build(target: Target, force: bool = False, lock_seconds: float = LOCK_SECONDS) -> tuple[Path, bool]:
    """Compiles a target unless that was done before.

    Args:
        target: what to build.
        force: compile again.
        lock_seconds: how long to wait for another process that builds the same.

    Returns:
        The library, and whether it was compiled now.

    Raises:
        BuildError: no compiler, a compiler's error, no room in the cache, or another process holds the lock too long.
    """
    program = compiler(target)
    library = target.folder() / f"{_hash(_version(program).encode(), ' '.join(_options()).encode())}.so"
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.parent, lock_seconds):
            if library.exists() and not force:
                return library, False
            _compile(target, program, library)
    except OSError as error:
        raise BuildError(f"cannot write {library.parent}: {error}. Point MATTFACE_HOME to a folder that can.") from None
    return library, True


def _compile(target: Target, program: str, library: Path) -> None:
    """Compiles beside `library` and renames."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as work:
        made = Path(work) / library.name
        command = [program, *_options(), "-shared", str(target.source), "-o", str(made), *_linked()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=work)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            first = next((line for line in said if "error" in line), said[-1] if said else "no message")
            raise BuildError(f"{Path(program).name} refused {target.source.name}: {first}")
        os.replace(made, library)


def _options() -> list[str]:
    """Options of the compiler."""
    return [*COMMON, *HOST, f"-I{Path(torch.__file__).parent / 'include'}"]


def _linked() -> list[str]:
    """Libraries of torch."""
    names = ["torch_cpu", "torch", "c10"]
    return [f"-L{Path(torch.__file__).parent / 'lib'}", *(f"-l{name}" for name in names)]


@contextmanager
def _locked(folder: Path, seconds: float) -> Iterator[None]:
    """Holds the folder's lock, which falls with the process; the process id stands beside it."""
    from filelock import FileLock, Timeout

    holder = folder / "lock.pid"
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        message = f"process {pid} has been building for more than {seconds:g} s and holds {folder / 'lock'}"
        raise BuildError(f"{message}. Wait for it or end it.") from None
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _version(program: str) -> str:
    """First words of a compiler about itself."""
    return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout


def _cpu_features() -> str:
    """Instruction sets of this processor, which -march=native compiles for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _hash(*parts: bytes) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
