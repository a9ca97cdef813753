"""Two public-domain photographs that ship inside other packages: an example pair without copying any picture here.

matplotlib's Grace Hopper (US Navy) and scikit-image's astronaut, Eileen Collins (NASA). Their glasses, ages and light
differ, which makes them an honest test.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mattface.errors import MattfaceError

PACKAGE_FILES = {
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
}
"""name -> (package, file inside it)."""


def example_pair() -> dict[str, Path]:
    """name -> path of the two photographs; the packages are looked up, not imported.

    Raises:
        MattfaceError: a package is not installed, or has no such file.
    """
    return {name: _inside(package, file) for name, (package, file) in PACKAGE_FILES.items()}


def _inside(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / file).is_file():
            return Path(place) / file
    raise MattfaceError(f"expected the picture {file} in {package}; not here. Type: pip install 'mattface[demo]'")
