"""Install script: the customer's top-level folders live below one package name."""

from setuptools import find_packages, setup

FOLDERS = ("cuda_ops", "weights", "realtime", "training", "benchmarks")


def packages() -> tuple[list[str], dict[str, str]]:
    """Package names and the folders they come from."""
    names = ["mattface"] + [f"mattface.{p}" for p in find_packages("mattface")]
    where = {"mattface": "mattface"}
    for folder in FOLDERS:
        names.append(f"mattface.{folder}")
        names += [f"mattface.{folder}.{p}" for p in find_packages(folder)]
        where[f"mattface.{folder}"] = folder
    return names, where


NAMES, WHERE = packages()

setup(packages=NAMES, package_dir=WHERE)
