"""The checkout that the tests run in, and the folders of it that are installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = ROOT / "pyproject.toml"


def folders() -> dict[str, str]:
    """Package -> the top-level folder that it is installed from, mattface included; empty without a checkout."""
    if not PACKAGING.is_file():
        return {}
    return tomllib.loads(PACKAGING.read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
