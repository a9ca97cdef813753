"""Perception by kind: one load for every part, and insightface's FaceAnalysis behind a stub of its interface."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mattface import insight, perception
from mattface.data.templates import arcface_template
from mattface.errors import UsageError, WeightsError
from mattface.vocabulary import Face

POINTS = np.array([[90.0, 100], [150, 100], [120, 130], [98, 160], [142, 160]])


@pytest.mark.parametrize("kind", list(perception.KINDS))
def test_every_kind_lists_its_parts_and_rejects_others(kind: str) -> None:
    found = perception.status(kind)
    assert found and all(one.usable != bool(one.note) for one in found)
    with pytest.raises(UsageError, match=found[-1].part):
        perception.load(kind, "nobody")  # type: ignore[call-overload]


def test_an_unknown_kind_is_rejected() -> None:
    for ask in (perception.load, perception.status):
        with pytest.raises(UsageError, match="one of detector, landmarks, identity, parser, estimator; got 'nose'"):
            ask("nose")  # type: ignore[call-overload]


def test_a_part_is_loaded_by_kind_and_name() -> None:
    assert perception.load("parser", "mesh").name == "mesh"


class Detection:
    """Like insightface's SCRFD: boxes with the score last, and five points."""

    asked: ClassVar[list[np.ndarray]] = []

    def detect(self, bgr: np.ndarray, max_num: int = 0, metric: str = "default") -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(bgr)
        return np.array([[70, 70, 170, 190, 0.9]], np.float32), POINTS[None].astype(np.float32)


class Recognition:
    """An identity of the mean colour, blue first."""

    def get_feat(self, images: list[np.ndarray]) -> np.ndarray:
        assert all(one.shape == (112, 112, 3) and one.dtype == np.uint8 for one in images)
        return np.stack([np.repeat(one.reshape(-1, 3).mean(0), [1, 1, 510]) for one in images])


class FaceAnalysis:
    """The parts of the package's class that are used."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, name: str, root: str, allowed_modules: list[str], providers: list[str]) -> None:
        assert "detection" in allowed_modules
        self.made.append({"name": name, "root": root, "modules": allowed_modules, "providers": providers})
        self.det_model = Detection()
        self.models = {"detection": self.det_model, "recognition": Recognition()}

    def prepare(self, ctx_id: int, det_thresh: float = 0.5, det_size: tuple[int, int] = (640, 640)) -> None:
        self.made[-1] |= {"ctx_id": ctx_id, "det_size": det_size}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stub of insightface, and an empty folder for its model packs."""
    top, app = ModuleType("insightface"), ModuleType("insightface.app")
    top.__spec__ = SimpleNamespace(name="insightface")  # type: ignore[assignment]
    app.FaceAnalysis = FaceAnalysis  # type: ignore[attr-defined]
    top.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", top)
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    monkeypatch.setattr(insight, "FOLDER", str(tmp_path))
    FaceAnalysis.made.clear()
    Detection.asked.clear()
    return tmp_path


def pack(folder: Path) -> None:
    path = folder / "models" / insight.PACK
    path.mkdir(parents=True)
    (path / "det_10g.onnx").write_bytes(b"")


def test_without_package_or_pack_it_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    with pytest.raises(WeightsError, match=r"model pack buffalo_l in .*unpack it there"):
        perception.load("detector", insight.NAME)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"insightface is not installed. Type: pip install 'mattface\[perception\]'"):
        perception.load("identity", insight.NAME)
    assert FaceAnalysis.made == [], "nothing may be opened, which would fetch it"


def test_with_both_it_is_the_strongest_and_finds_faces(package: Path) -> None:
    pack(package)
    detector = perception.load("detector")
    assert detector.name == insight.NAME
    rgb = np.zeros((320, 640, 3), np.uint8)
    rgb[..., 0] = 200
    face = detector(rgb)[0]
    np.testing.assert_allclose(face.box, [70, 70, 170, 190], atol=1e-4)
    np.testing.assert_allclose(face.points, POINTS, atol=1e-4)
    assert face.score == pytest.approx(0.9)
    assert Detection.asked[0][0, 0].tolist() == [0, 0, 200], "the package wants blue first"
    made = FaceAnalysis.made[0]
    assert made["modules"] == ["detection"] and made["providers"] == ["CPUExecutionProvider"] and made["ctx_id"] == -1


def test_it_tells_people_apart_by_aligned_chips(package: Path) -> None:
    pack(package)
    embedder = perception.load("identity")
    assert (embedder.name, embedder.dim, embedder.size) == (insight.NAME, 512, 112)
    rgb = np.zeros((112, 112, 3), np.uint8)
    rgb[..., 2] = 100
    vector = embedder(rgb, Face(np.zeros(4), 1.0, arcface_template(112) + 0.5))
    assert vector[0] == pytest.approx(1, abs=1e-5) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match="without gradient"):
        embedder.network(torch.zeros(1, 3, 112, 112, requires_grad=True))
