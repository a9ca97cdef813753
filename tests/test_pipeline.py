"""The walk from two pictures to a result: with parts of our own, and with the real ones where they are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mattface
from mattface import choose, cuda_ops, detect, devices, landmarks, pipeline, weights
from mattface.errors import DeviceError, NoFaceError, UsageError, WeightsError
from mattface.examples import example_pair
from mattface.matte import MatteConfig
from mattface.mesh import topology
from mattface.methods import mesh as mesh_method
from mattface.methods.contract import CropSpec, filtered
from mattface.parse import Parser, _inner
from mattface.parse.visible import Visibility, VisibleFace
from mattface.vocabulary import Crop, Face, MatteFilter, Picture, Swap

CPU = torch.device("cpu")


def face_at(x: float, y: float, scale: float) -> Face:
    """A frontal face: the mean mesh at a place."""
    mesh = topology().mean * scale
    mesh[:, :2] += [x, y]
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    return Face(np.concatenate([low, high]), 0.9, landmarks.five_points(mesh), mesh)


class FakeDetector:
    """Finds what it was told."""

    name = "fake"

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def __call__(self, rgb: np.ndarray) -> list[Face]:
        assert rgb.dtype == np.uint8
        return self.faces


class FakeLandmarker:
    """Believes the detector."""

    name = "fake"

    def __call__(self, rgb: np.ndarray, face: Face, passes: int = 2) -> Face:
        mesh = face_at(*(face.box[:2] + face.box[2:]) / 2, 40.0).mesh if face.mesh is None else face.mesh
        return replace(face, mesh=mesh, presence=0.99)


class FakeEmbedder:
    """Mean colour as identity."""

    name = "fake"

    def __call__(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        colour = rgb.reshape(-1, 3).mean(0) + 1e-3
        return (colour / np.linalg.norm(colour)).astype(np.float32)


def swapper(*faces: Face, embedder: bool = True) -> pipeline.Swapper:
    method = mesh_method.MeshMethod(mesh_method.Config(), Parser("mesh"), CPU)
    return pipeline.Swapper(method, FakeDetector(*faces), FakeLandmarker(), FakeEmbedder() if embedder else None, CPU)


def picture(seed: int, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.uniform(0.3, 0.7, (8, 8, 3)).astype(np.float32)
    image = np.asarray(torch.nn.functional.interpolate(torch.from_numpy(small).permute(2, 0, 1)[None], (240, 260))[0])
    image = np.ascontiguousarray(image.transpose(1, 2, 0))
    return image if dtype == np.float32 else np.rint(image * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_an_array_comes_back_as_it_was_outside_the_matte(dtype: type, channels: int) -> None:
    target = picture(1, dtype)
    if channels == 4:
        target = np.dstack([target, picture(2, dtype)[..., 0]])
    result = swapper(face_at(120, 120, 60)).swap(picture(0), target)
    assert result.image.dtype == dtype and result.image.shape == target.shape
    assert result.matte.shape == target.shape[:2] and result.matte.dtype == np.float32
    outside = result.matte == 0
    np.testing.assert_array_equal(result.image[outside], target[outside])
    assert (result.image[..., :3][result.matte > 0.9] != target[..., :3][result.matte > 0.9]).any()
    if channels == 4:
        np.testing.assert_array_equal(result.image[..., 3], target[..., 3])


def test_paths_and_pil_pictures_give_pil_pictures(tmp_path: Path) -> None:
    path = tmp_path / "target.png"
    Image.fromarray(picture(1)).save(path)
    ours = swapper(face_at(120, 120, 60))
    from_path, from_pil = ours.swap(picture(0), path), ours.swap(picture(0), Image.fromarray(picture(1)))
    assert isinstance(from_path.image, Image.Image) and isinstance(from_pil.image, Image.Image)
    np.testing.assert_array_equal(np.asarray(from_path.image), np.asarray(from_pil.image))
    np.testing.assert_array_equal(from_path.picture.pixels, np.asarray(from_path.image))


def test_faces_are_chosen_by_name_and_number() -> None:
    big, small = face_at(80, 100, 45), face_at(190, 150, 30)
    ours = swapper(big, small)
    identity = ours.prepare(picture(0))
    target = picture(1)
    largest, second, both = (ours.swap(identity, target, face=f) for f in ("largest", 1, "all"))
    assert [f.index for f in both.faces] == [0, 1] and [f.index for f in second.faces] == [1]
    assert both.matte.min() >= 0 and both.matte.max() <= 1
    assert largest.matte[100, 80] > 0.9 and largest.matte[150, 190] == 0
    assert second.matte[100, 80] == 0 and second.matte[150, 190] > 0.9
    np.testing.assert_array_equal(both.matte, np.maximum(largest.matte, second.matte))
    assert both.faces[0].crop.dtype == np.uint8 and both.faces[0].crop.shape[2] == 3


def test_what_is_not_there_is_rejected_with_what_is() -> None:
    ours = swapper(face_at(80, 100, 45))
    with pytest.raises(NoFaceError, match=r"face 3 in the target; it has 1 \(0: \d+ px wide\)"):
        ours.swap(picture(0), picture(1), face=3)
    for wrong in ("left", True, 1.5):
        with pytest.raises(UsageError, match="face must be"):
            ours.swap(picture(0), picture(1), face=wrong)  # type: ignore[arg-type]
    with pytest.raises(NoFaceError, match="in the source; fake found none in 260x240"):
        swapper().prepare(picture(0))
    with pytest.raises(UsageError, match="at least one source"):
        ours.prepare([])


def test_several_sources_need_an_identity_network_and_average_to_a_unit_vector() -> None:
    face = face_at(120, 120, 60)
    sources = [picture(k) for k in (0, 0, 5)]
    identity = swapper(face).prepare(sources)
    assert np.linalg.norm(identity.embedding) == pytest.approx(1, abs=1e-6)
    assert identity.primary in (0, 1) and len(identity.crops) == len(identity.encoded) == 3
    with pytest.raises(WeightsError, match="mattface weights pull identity-resnet"):
        swapper(face, embedder=False).prepare(sources)
    alone = swapper(face, embedder=False)
    result = alone.swap(alone.prepare(sources[:1]), picture(1))
    assert result.report["parts"]["identity"] is None and "identity_cosine" not in result.faces[0].report


def test_an_identity_of_another_method_is_rejected() -> None:
    ours = swapper(face_at(120, 120, 60))
    with pytest.raises(UsageError, match="prepared by other"):
        ours.swap(replace(ours.prepare(picture(0)), method="other"), picture(1))


def test_the_report_tells_what_ran_and_how_long() -> None:
    result = swapper(face_at(20, 120, 60)).swap(picture(0), picture(1))
    report = result.report
    assert report["method"] == "mesh" and report["device"] == "cpu" and report["dtype"] == "fp32"
    assert report["parts"] == {"detector": "fake", "landmarks": "fake", "identity": "fake", "parser": "mesh"}
    assert set(report["ops"]) == set(cuda_ops.available())
    stages = {"prepare", "read", "detect", "landmarks", "align", "swap", "paste", "measure", "origin"}
    assert set(report["seconds"]) == stages and min(report["seconds"].values()) >= 0
    assert -1 <= report["faces"][0]["identity_cosine"] <= 1.0001
    assert any("cut by the frame" in note for note in report["notes"])


def test_video_s_seam_filters_the_matte_before_the_paste() -> None:
    """Whatever the filter makes of the matte is what is pasted, also for methods that filter it at the end."""

    class Plain:
        name, crop = "plain", CropSpec("ffhq", None, 256)

        def swap(self, encoded: None, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
            return filtered(Swap(-target.pixels, torch.full((1, 1, target.size, target.size), 0.5)), matte_filter)

    class Quarter:
        def __call__(self, matte: np.ndarray) -> np.ndarray:
            return 0.25 * matte

        def visible(self, every: int, look: Callable[[], np.ndarray]) -> np.ndarray:
            return look()

    ours, face, watch = swapper(face_at(120, 120, 60)), face_at(120, 120, 60), devices.Stopwatch(CPU)
    identity = ours.prepare(picture(0))
    for method in (Plain(), ours.method):
        ours.method = method  # type: ignore[assignment]
        crop, swap, pasted = ours.swap_face(Picture(picture(1)), face, identity, watch, 256, Quarter())
        assert crop.size == 256 and float(swap.matte.max()) <= 0.25
        assert pasted.matte is not None and pasted.matte.max() <= 0.2501 and pasted.whole_matte().shape == (240, 260)
    left, top, right, bottom = pasted.box or (0, 0, 0, 0)
    assert pasted.whole_matte()[top:bottom, left:right].max() == pasted.matte.max()
    assert CropSpec("ffhq", None, 256).side(face) == 256
    assert CropSpec("ffhq", None, 320).side(face_at(120, 120, 200)) == 320
    assert CropSpec("ffhq", None).side(face) is None


def test_perception_follows_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def loaded(kind: str, name: str = "auto", device: Any = "cpu", **_: Any) -> Any:
        asked[kind] = device
        return SimpleNamespace(name=kind, device=CPU)  # as a detector does whose runtime has no CUDA

    monkeypatch.setattr(pipeline, "resolve_device", lambda device: torch.device(device, 1))
    monkeypatch.setattr(pipeline.perception, "load", loaded)
    ours = pipeline.load("mesh", device="cuda", dtype="fp32")
    wanted = {"detector", "landmarks", "parser"} | ({"identity"} if ours.embedder else set())
    assert asked == dict.fromkeys(wanted, torch.device("cuda", 1))
    assert ours.notes == (
        "faces are detected on the CPU: for CUDA, install onnxruntime-gpu in place of onnxruntime",
    )


def test_any_thread_gets_the_same_bits() -> None:
    """One swapper with every part that could remember something, asked by eight threads at once."""
    network = VisibleFace((8, 8, 8, 8)).eval()
    parser = Parser("visible", _inner(Visibility(network)), _inner(Visibility(network)))
    ours = swapper(face_at(120, 120, 60))
    ours.method = mesh_method.MeshMethod(mesh_method.Config(coarse=2.0, matte=MatteConfig(look_every=3)), parser, CPU)
    pairs = [(picture(k), picture(k + 1)) for k in range(8)]

    def one(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        image: np.ndarray = ours.swap(*pair).image
        return image

    alone = [one(pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, pairs * 2))
    for first, second in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(first, second)


def test_insightface_habit() -> None:
    ours = swapper(face_at(120, 120, 60))
    identity = ours.prepare(picture(0))
    bgr = np.ascontiguousarray(picture(1)[..., ::-1])
    face = face_at(120, 120, 60)
    theirs = SimpleNamespace(bbox=face.box, kps=face.points.astype(np.float32), det_score=0.8)
    pasted = ours.get(bgr, face, identity)
    np.testing.assert_array_equal(pasted, ours.swap(identity, picture(1)).image[..., ::-1])
    crop, matrix = ours.get(bgr, theirs, identity, paste_back=False)
    assert crop.dtype == np.uint8 and crop.shape[0] == crop.shape[1] and matrix.shape == (2, 3)
    with pytest.raises(UsageError, match=r"Call prepare\(picture\)"):
        ours.get(bgr, face, theirs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bbox"):
        ours.get(bgr, object(), identity)
    with pytest.raises(UsageError, match="uint8"):
        ours.get(bgr.astype(np.float32), face, identity)


def test_devices_and_dtypes() -> None:
    assert devices.resolve_device("cpu") == CPU
    assert devices.resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match="CUDA device 99"):
        devices.resolve_device("cuda:99")
    for wrong in ("gpu", "meta", "cuda:x"):
        with pytest.raises(UsageError, match="expected device"):
            devices.resolve_device(wrong)
    assert devices.resolve_dtype(None, CPU) == torch.float32
    assert devices.resolve_dtype("bf16", CPU) == torch.bfloat16
    with pytest.raises(DeviceError, match="fp16"):
        devices.resolve_dtype("fp16", CPU)
    with pytest.raises(UsageError, match="expected dtype"):
        devices.resolve_dtype("int8", CPU)
    with pytest.raises(UsageError, match="expected a method"):
        mattface.load("nonsense", device="cpu")


def test_the_mesh_method_rejects_weights_and_unknown_options() -> None:
    with pytest.raises(UsageError, match="no weights"):
        mesh_method.build("something", CPU, torch.float32)
    with pytest.raises(UsageError, match="options are"):
        mesh_method.build(None, CPU, torch.float32, sharpness=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_swapping_a_face_onto_itself_changes_almost_nothing(dtype: type) -> None:
    target = picture(1, dtype)
    result = swapper(face_at(120, 120, 60)).swap(target, target)
    white = 255 if dtype == np.uint8 else 1
    assert np.abs(result.image.astype(float) - target).mean() < 0.006 * white


def test_a_real_swap_moves_identity_and_leaves_the_rest() -> None:
    missing = [n for n in ("centerface", "face-mesh", "identity-resnet") if not weights.present(n)]
    if missing:
        pytest.skip(f"weights {', '.join(missing)} are not here: mattface weights pull embedded")
    source, target = (np.asarray(Image.open(path).convert("RGB")) for path in example_pair().values())
    ours = mattface.load("mesh", device="cpu")
    assert isinstance(ours.detector, detect.Detector)
    result = ours.swap(source, target)
    report = result.faces[0].report
    assert report["identity_cosine"] > report["identity_cosine_before"] + 0.2
    np.testing.assert_array_equal(result.image[result.matte == 0], target[result.matte == 0])
    assert 0.005 < (result.matte > 0).mean() < 0.2


def test_doubtful_faces_are_left_out_of_all_but_never_everything():
    faces = [Face(np.array([0, 0, 9, 9.0]), 0.9, np.zeros((5, 2)), None, p) for p in (0.99, 0.004, 0.8)]
    kept, notes = choose.without_doubtful(list(enumerate(faces)))
    assert [index for index, _ in kept] == [0, 2] and len(notes) == 1 and "face 1" in notes[0]
    assert choose.without_doubtful([(1, faces[1])]) == ([(1, faces[1])], [])
