"""What several tests share: reference data where it is at hand, photographs, perception parts, weights to fetch."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from weight_server import Server, serving

from mattface import weights
from mattface.vocabulary import Face
from mattface.weights import https, registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """After each file: compiled graphs, kept weights and idle memory go; what is left is what one file needs."""
    yield
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
    if ops := sys.modules.get("mattface.cuda_ops"):
        ops.release_memory()
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the reference data: $MATTFACE_SHARED, or ../shared beside the checkout."""
    folder = Path(os.environ.get("MATTFACE_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip("no reference data: set MATTFACE_SHARED to its folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_provenance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Certificate and log of provenance in a folder of the tests, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("provenance")
        patch.setenv("MATTFACE_PROVENANCE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """need("centerface", ...) skips the test when one of these weights is not on this machine."""

    def check(*names: str) -> None:
        for name in names:
            if not weights.present(name):
                pytest.skip(f"no weights {name}: {weights.card(name).how}")

    return check


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8 photograph out of scikit-image: one frontal face."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="session")
def hopper() -> np.ndarray:
    """(600, 512, 3) uint8 photograph out of matplotlib: one frontal face with glasses."""
    cbook = pytest.importorskip("matplotlib.cbook", reason="matplotlib is not installed")
    image = pytest.importorskip("PIL.Image")
    with cbook.get_sample_data("grace_hopper.jpg") as stream:
        return np.array(image.open(stream).convert("RGB"))


@pytest.fixture(scope="session")
def faces(need: Callable[..., None], astronaut: np.ndarray, hopper: np.ndarray) -> dict[str, tuple[np.ndarray, Face]]:
    """Both photographs with their face: "astronaut" and "hopper" -> (picture, face with mesh)."""
    from mattface import perception

    need("centerface", "face-mesh")
    find, measure = perception.load("detector", "centerface"), perception.load("landmarks", "face-mesh")
    pictures = {"astronaut": astronaut, "hopper": hopper}
    return {name: (rgb, measure(rgb, find(rgb)[0])) for name, rgb in pictures.items()}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    """written(data): the path of a file with this content."""

    def write(data: bytes, name: str = "file") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights in an empty home; it does not exist yet."""
    for name in ("MATTFACE_WEIGHTS_PATH", "MATTFACE_OFFLINE", "MATTFACE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


@pytest.fixture
def own_cards(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of cards in place of the real one."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(registry, "CARDS", folder)
    registry.cards.cache_clear()
    yield folder
    registry.cards.cache_clear()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching tries again at once, and asks no proxy."""
    monkeypatch.setattr(https, "PAUSES", (0.0,) * 4)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on this machine that serves a weight file, and misbehaves when told so."""
    with serving() as made:
        yield made
