"""Install script: the customer's top-level folders live below one package name."""

from setuptools import find_packages, setup

FOLDERS = ("cuda_ops", "weights", "realtime", "training", "benchmarks")


def packages() -> dict[str, str]:
    """Package name -> the folder it comes from."""
    where = {"mattface": "mattface"}
    where |= {f"mattface.{name}": f"mattface/{name.replace('.', '/')}" for name in find_packages("mattface")}
    for folder in FOLDERS:
        where[f"mattface.{folder}"] = folder
        where |= {f"mattface.{folder}.{n}": f"{folder}/{n.replace('.', '/')}" for n in find_packages(folder)}
    return where


setup(packages=list(packages()), package_dir=packages())
