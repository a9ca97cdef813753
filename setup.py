"""Install script: the top-level folders live below one package name; CPU kernels are compiled at install time.

MATTFACE_BUILD_OPS=1 compiles them whoever builds, and fails where that fails; 0 leaves them out. Otherwise they are
compiled when pip installs into an environment that has torch and a compiler, and left out where that is not so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PREBUILT = Path("mattface", "cuda_ops", "prebuilt")


def packages() -> list[str]:
    """Every package, below the folders that pyproject.toml maps to names."""
    with open("pyproject.toml", "rb") as stream:
        folders = tomllib.load(stream)["tool"]["setuptools"]["package-dir"]
    return [*folders, *(f"{name}.{n}" for name, folder in folders.items() for n in find_packages(folder))]


def kernels(*root: str) -> Path | None:
    """The library of CPU kernels below `root`, the user's cache by default, or None when it is left out.

    pip hides the environment that it installs into, torch included, by PYTHONPATH; -E shows it again.
    """
    wanted = os.environ.get("MATTFACE_BUILD_OPS")
    if wanted == "0" or (wanted != "1" and "PIP_BUILD_TRACKER" not in os.environ):  # which pip sets
        return None
    command = [sys.executable, "-E", "-P", "cuda_ops/_build.py", *root]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return Path(done.stdout.strip().splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if wanted == "1":
        raise SystemExit(f"MATTFACE_BUILD_OPS=1, but the CPU kernels cannot be compiled: {reason}")
    print(f"CPU kernels are left out: {reason} Once installed, type: mattface ops build")
    return None


class BuildPython(build_py):
    """Adds the kernels to a package that is installed; an editable one gets them in the user's cache."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            kernels()
            return
        folder = Path(self.build_lib) / PREBUILT
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build
        with tempfile.TemporaryDirectory() as root:
            library = kernels(root)
            if library is not None:
                (folder / library.parent.name).mkdir(parents=True)
                shutil.copyfile(library, folder / library.parent.name / library.name)


class Wheel(bdist_wheel):
    """Names the platform when compiled kernels are inside."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        if any((Path(self.bdist_dir) / PREBUILT).glob("*/*")):
            platform = self.plat_name.replace("-", "_").replace(".", "_")
        return python, abi, platform


if __name__ == "__main__":  # PEP 517 runs it under this name too
    setup(packages=packages(), cmdclass={"build_py": BuildPython, "bdist_wheel": Wheel})
