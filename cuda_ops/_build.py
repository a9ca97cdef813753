"""Compiling the native kernels, ahead of use and never on import. Needs ninja and a C++ compiler, for GPUs nvcc.

A library is kept in FOLDER/NAME-KEY/COMPILER.so: KEY stands for the sources, torch and the machine it is for, COMPILER
for the compiler and its options. FOLDER is the user's cache, or that of the installed package when the library was made
at install time. A finished library appears at once, by renaming. Objects stay in FOLDER/NAME-building-..., where ninja
compiles again only what has changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "native"
PREBUILT = Path(__file__).parent / "prebuilt"
"""Libraries made at install time."""
STABLE_SINCE = "0x020a000000000000"
"""torch 2.10, the oldest version whose stable interface has what the kernels use."""
COMMON = ("-O3", "-std=c++17", f"-DTORCH_TARGET_VERSION={STABLE_SINCE}")
WHOLE_REGISTERS = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
"""Halves of registers that are read whole later stall the processor."""
HOST = ("-fPIC", "-Wall", "-march=native", *WHOLE_REGISTERS, "-fno-math-errno", "-fno-trapping-math")
CUDA = ("-DUSE_CUDA", "-Xcompiler", "-fPIC", "-diag-suppress", "1675")
LOCK_SECONDS = 300.0
ARCHS = (
    "sm_75", "sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121",
)  # fmt: skip
TARGETS = ("cpu", *ARCHS)


class BuildError(RuntimeError):
    """The kernels could not be compiled; says why and what to do."""


class NoToolsError(BuildError):
    """A compiler or ninja is missing."""


@dataclass(frozen=True)
class Target:
    """What to build.

    Attributes:
        name: one of `TARGETS`: "cpu", or a GPU's architecture.
    """

    name: str

    @property
    def cuda(self) -> bool:
        """Whether it is for GPUs."""
        return self.name != "cpu"

    @property
    def namespace(self) -> str:
        """Where torch.ops has its kernels: libraries for several GPUs may be loaded at once."""
        return f"mattface_{self.name}" if self.cuda else "mattface_native"

    def sources(self) -> list[Path]:
        """The files to compile."""
        return sorted(SOURCES.glob("*.cu" if self.cuda else "*.cpp"))

    def files(self) -> list[Path]:
        """The sources and what they include."""
        headers = [*SOURCES.glob("*.cuh"), SOURCES / "activations.h"] if self.cuda else SOURCES.glob("*.h")
        return [*self.sources(), *sorted(headers)]

    def folder(self, root: Path | None = None) -> Path:
        """Where its libraries are kept below `root`, the cache by default; may not exist."""
        return (root or cache()) / f"{self.name}-{self.key()}"

    def key(self) -> str:
        """Hash of sources, torch and machine."""
        parts = [part for path in self.files() for part in (path.name.encode(), path.read_bytes())]
        return _hash(*parts, *self.surroundings())

    def surroundings(self) -> list[bytes]:
        """What the objects depend on beside sources, compiler and options."""
        machine = platform.machine() + ("" if self.cuda else _cpu_features())
        return [torch.__version__.encode(), machine.encode(), self.name.encode()]

    def found(self) -> Path | None:
        """The library built last, here or at install time, or None."""
        libraries = [path for root in (PREBUILT, cache()) for path in self.folder(root).glob("*.so")]
        return max(libraries, key=lambda path: path.stat().st_mtime, default=None)


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
        NoToolsError: there is none.
    """
    if target.cuda:
        return _nvcc(target)
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise NoToolsError(
        f"no compiler for {target.name}: expected {' or '.join(names)}. Install one, then: {how(target)}."
    )


def _nvcc(target: Target) -> str:
    """nvcc of $CUDA_HOME, of the PATH, or of the usual folder."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    programs = [str(Path(home) / "bin" / "nvcc")] if home else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    path = next((path for program in programs if (path := shutil.which(program))), None)
    if path is None:
        tried = " or ".join(programs)
        raise NoToolsError(
            f"no compiler for {target.name}: expected {tried}. Install the CUDA toolkit or set CUDA_HOME to its "
            f"folder, then: {how(target)}."
        )
    return path


def compiled_archs(program: str) -> tuple[str, ...]:
    """GPU architectures that an nvcc compiles for, of those in `ARCHS`."""
    known = _said(program, "--list-gpu-code").split()
    return tuple(arch for arch in ARCHS if arch in known)


def how(target: Target) -> str:
    """The command that builds a target."""
    return "mattface ops build" + ("" if target.name == TARGETS[0] else f" --arch {target.name}")


def build(
    target: Target, force: bool = False, lock_seconds: float = LOCK_SECONDS, root: Path | None = None
) -> tuple[Path, bool]:
    """Compiles a target unless that was done before.

    Args:
        target: what to build.
        force: compile everything again.
        lock_seconds: how long to wait for another process that builds the same.
        root: where to keep the library; None takes the cache.

    Returns:
        The library, and whether it was compiled now.

    Raises:
        NoToolsError: no compiler that knows the target, or no ninja.
        BuildError: a compiler's error, no room in the cache, or another process holds the lock too long.
    """
    program, ninja, root = compiler(target), _ninja(target), root or cache()
    _check_arch(target, program)
    made_by = _hash(_said(program, "--version").encode(), " ".join([program, *_options(target)]).encode())
    library = target.folder(root) / f"{made_by}.so"
    work = root / f"{target.name}-building-{_hash(made_by.encode(), *target.surroundings())}"
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        with _locked(work, lock_seconds):
            if library.exists() and not force:
                return library, False
            _compile(target, program, ninja, work, force)
            _publish(work / "library.so", library)
    except OSError as error:
        raise BuildError(f"cannot write {root}: {error}. Point MATTFACE_HOME to a folder that can.") from None
    return library, True


def _check_arch(target: Target, program: str) -> None:
    """Rejects a GPU that nvcc does not know."""
    known = compiled_archs(program) if target.cuda else TARGETS
    if target.name not in known:
        raise NoToolsError(
            f"{program} does not compile for {target.name}, only for {', '.join(known)}. Try another CUDA toolkit."
        )


def _compile(target: Target, program: str, ninja: str, work: Path, force: bool) -> None:
    """Lets ninja make work/library.so. The sources are copied: a copy is newer than its object only when it differs."""
    for path in target.files():
        copy = work / path.name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            copy.write_bytes(path.read_bytes())
    (work / "build.ninja").write_text(_plan(target, program))
    if force:
        subprocess.run([ninja, "-t", "clean"], cwd=work, capture_output=True)
    code, printed = _run_ninja(ninja, work)
    if code:
        said = printed.strip().splitlines()
        first = next((line for line in said if "error" in line), said[-1] if said else "no message")
        raise BuildError(f"{Path(program).name} rejected the kernels for {target.name}: {first.strip()}")


def _run_ninja(ninja: str, folder: Path) -> tuple[int, str]:
    """Exit code and output. Whatever ends the wait (Ctrl-C, SIGTERM) asks ninja to end, which ends its compilers."""
    with subprocess.Popen(
        [ninja], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        try:
            printed, _ = running.communicate()
        except BaseException:
            running.terminate()
            raise
    return running.returncode, printed


def _plan(target: Target, program: str) -> str:
    """The build.ninja of a target."""
    call, objects = [program, *_options(target)], [f"{path.name}.o" for path in target.sources()]
    lines = [
        "rule compile",
        f"  command = {_quoted(*call)} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {_quoted(*call)} -shared $in -o $out {_quoted(*_linked(target))}",
        *(f"build {path.name}.o: compile {path.name}" for path in target.sources()),
        f"build library.so: link {' '.join(objects)}",
    ]
    return "\n".join([*lines, ""])


def _quoted(*words: str) -> str:
    """Words of a command for the shell, as ninja writes them."""
    return shlex.join(words).replace("$", "$$")


def _publish(made: Path, library: Path) -> None:
    """Lets a finished library appear under its name at once."""
    unfinished = library.with_suffix(f".{os.getpid()}")
    try:
        shutil.copyfile(made, unfinished)
        os.replace(unfinished, library)
    finally:
        unfinished.unlink(missing_ok=True)


def _options(target: Target) -> list[str]:
    """Options of the compiler."""
    torch_headers = ["-isystem", str(Path(torch.__file__).parent / "include")]
    if not target.cuda:
        return [*COMMON, *HOST, *torch_headers]
    number = target.name.removeprefix("sm_")
    arch = ["-gencode", f"arch=compute_{number},code=sm_{number}", f"-DMATTFACE_NAMESPACE={target.namespace}"]
    host = ["-ccbin", os.environ["CXX"]] if os.environ.get("CXX") else []
    return [*COMMON, *CUDA, *arch, *host, *torch_headers]


def _linked(target: Target) -> list[str]:
    """Libraries of torch. For GPUs libtorch has to stay although nothing calls it: it brings torch's CUDA part."""
    folder = Path(torch.__file__).parent / "lib"
    names = ["torch_cpu", "torch", "c10"]
    keep = ["-Xlinker", "--no-as-needed"] if target.cuda and sys.platform == "linux" else []
    if target.cuda:
        names += [name for name in ("torch_cuda", "c10_cuda") if (folder / f"lib{name}.so").exists()]
    return [f"-L{folder}", *keep, *(f"-l{name}" for name in names)]


def _ninja(target: Target) -> str:
    """Path of ninja: its package's, else that of the PATH."""
    try:
        import ninja
    except ImportError:
        path = shutil.which("ninja")
    else:
        path = shutil.which("ninja", path=ninja.BIN_DIR) or shutil.which("ninja")
    if path is None:
        raise NoToolsError(f"no ninja. Type: pip install ninja, then: {how(target)}.")
    return path


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


@once
def _said(program: str, option: str) -> str:
    """What a compiler tells about itself."""
    return subprocess.run([program, option], capture_output=True, text=True, timeout=60).stdout


@once
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


if __name__ == "__main__":  # for setup.py, which may run where torch is out of sight
    try:
        print(build(Target("cpu"), root=Path(sys.argv[1]) if sys.argv[1:] else None)[0])
    except BuildError as failure:
        raise SystemExit(str(failure)) from None
