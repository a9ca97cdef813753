"""Alignment: golden quads and matrices, sub-pixel sampling, borders, dtypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mattface import align, geometry
from mattface.data.templates import ARCFACE_112, arcface_template
from mattface.errors import UsageError
from mattface.geometry import HALF, similarity
from mattface.vocabulary import Face

GOLDEN = np.load(Path(__file__).parent / "golden" / "ffhq_alignment.npz")


def five(landmarks: np.ndarray) -> np.ndarray:
    eyes = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def face_at(x: float, y: float, eye_distance: float, angle: float = 0.0) -> Face:
    """A face with its eyes' middle at (x, y)."""
    shape = np.array([[-0.5, 0], [0.5, 0], [0, 0.6], [-0.4, 1.0], [0.4, 1.0]]) * eye_distance
    cosine, sine = np.cos(angle), np.sin(angle)
    points = shape @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]
    return Face(np.array([*points.min(0), *points.max(0)]), 0.9, points)


def test_golden_quads() -> None:
    errors = [
        np.abs(align.ffhq_quad(landmarks) - quad).max() / np.abs(quad).max()
        for landmarks, quad in zip(GOLDEN["landmarks"], GOLDEN["quads"], strict=True)
    ]
    print(f"FFHQ quads: {max(errors):.1e}")
    assert max(errors) < 1e-4


def test_golden_arcface_matrices() -> None:
    errors = [
        np.abs(similarity(five(landmarks).astype(float), arcface_template(112))[:2] - matrix).max() / abs(matrix).max()
        for landmarks, matrix in zip(GOLDEN["landmarks"], GOLDEN["arcface_112_matrices"], strict=True)
    ]
    print(f"ArcFace 112 matrices: {max(errors):.1e}")
    assert max(errors) < 1e-4


def test_face_quad_is_the_quad_of_its_landmarks() -> None:
    landmarks = GOLDEN["landmarks"][3]
    face = Face(np.zeros(4), 1.0, five(landmarks))
    np.testing.assert_allclose(align.face_quad(face), GOLDEN["quads"][3], atol=1e-9)
    matrix = align.ffhq_matrix(face, 640)
    corners = geometry.apply(matrix, GOLDEN["quads"][3])
    np.testing.assert_allclose(corners, [[0, 0], [0, 640], [640, 640], [640, 0]], atol=1e-9)


def test_similarity_recovers_and_never_mirrors() -> None:
    truth = np.array([[1.2, -0.7, 30], [0.7, 1.2, -8], [0, 0, 1]])
    points = np.random.default_rng(0).normal(size=(9, 2)) * 20
    np.testing.assert_allclose(similarity(points, geometry.apply(truth, points)), truth, atol=1e-9)
    mirrored = similarity(points, points * [-1, 1])
    assert np.linalg.det(mirrored) > 0
    with pytest.raises(UsageError, match="two different points"):
        similarity(np.ones((5, 2)), points[:5])


@pytest.mark.parametrize("size", [112, 224, 448, 128, 256, 512, 896])
def test_template_sizes(size: int) -> None:
    factor = size / 112 if size % 112 == 0 else size / 128
    shift = 0 if size % 112 == 0 else 8 * factor
    np.testing.assert_allclose(arcface_template(size), ARCFACE_112 * factor + [shift, 0])


def test_template_of_no_size() -> None:
    with pytest.raises(UsageError, match="112 or 128"):
        arcface_template(200)


# sampling


def coordinates(width: int, height: int) -> np.ndarray:
    """(H, W, 3) float32: x and y of every pixel centre, scaled to [0, 1] by the width."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([x, y, 0 * x], -1).astype(np.float32) / width


@pytest.mark.parametrize("scale", [3.3, 1.7, 1.0, 0.7, 0.5, 0.31, 0.12])
def test_warp_samples_where_it_should(scale: float) -> None:
    """The crop of a picture of coordinates shows the coordinates that the matrix says."""
    width, size = 900, 128
    angle = 0.3
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1.0]])
    matrix[:2, 2] = size / 2 - matrix[:2, :2] @ [451.3, 448.9]
    shown = align.warp(coordinates(width, width), matrix, size)[..., :2] * width
    v, u = np.mgrid[0:size, 0:size] + 0.5
    truth = geometry.apply(np.linalg.inv(matrix), np.stack([u.ravel(), v.ravel()], -1)).reshape(size, size, 2)
    inside = ((truth > 20) & (truth < width - 20)).all(-1)
    error = (shown - truth)[inside]
    assert np.abs(error.mean(0)).max() < 0.01 / scale
    assert np.abs(error).max() < 0.06 * max(1.0, 1 / scale)


def test_centre_convention() -> None:
    """A white pixel lands where image_to_crop takes its centre, at +0.5."""
    picture = np.zeros((300, 300, 3), np.float32)
    picture[160, 130] = 1
    crop = align.cut(picture, face_at(140.2, 140.7, 40, 0.2), size=512)
    weight = (crop.pixels[0, 0].numpy() + 1) / 2
    v, u = np.mgrid[0:512, 0:512] + 0.5
    found = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
    expected = geometry.apply(crop.image_to_crop, np.array([[130.5, 160.5]]))[0]
    np.testing.assert_allclose(found, expected, atol=0.05 * 512 / 160)


def test_identity_crop_is_the_picture() -> None:
    """A crop of scale 1 at a whole-pixel position copies pixels exactly."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -50], [0, 1, -70], [0, 0, 1]])
    np.testing.assert_array_equal(align.warp(picture, matrix, 256), picture[70:326, 50:306].astype(np.float32))


@pytest.mark.parametrize("period", [2, 3, 4])
def test_shrinking_does_not_alias(period: int) -> None:
    """Stripes too fine for the crop become grey, not other stripes."""
    picture = np.zeros((1200, 1200, 3), np.float32)
    picture[:, (np.arange(1200) // (period / 2)).astype(int) % 2 == 0] = 1
    mean = picture.mean()
    crop = align.cut(picture, face_at(600, 560, 240), size=128)  # about 7.5 pixels become one
    grey = (crop.pixels[0, 0].numpy()[8:-8, 8:-8] + 1) / 2
    assert np.abs(grey - mean).max() < 0.12


def test_formats_agree() -> None:
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    face = face_at(100, 90, 30)
    crops = [
        align.cut(p, face, size=256).pixels
        for p in (small, small.astype(np.uint16) * 257, small.astype(np.float32) / 255)
    ]
    assert crops[0].shape == (1, 3, 256, 256)
    assert crops[0].abs().max() <= 1
    for other in crops[1:]:
        assert (crops[0] - other).abs().max() < 1e-5


# borders


def test_beyond_the_border() -> None:
    """Pixels inside the picture are its own; outside there is no jump at the border and no black."""
    y, x = np.mgrid[0:240, 0:240]
    picture = np.stack([120 + 60 * np.sin(x / 20), 120 + 60 * np.cos(y / 17), 90 + 0 * x], -1).astype(np.uint8)
    face = face_at(40, 60, 48)
    matrix = align.ffhq_matrix(face, 192)
    assert geometry.apply(np.linalg.inv(matrix), np.zeros((1, 2))).min() < -40, "the crop must leave the picture"
    crop = (align.cut(picture, face, size=192).pixels[0].permute(1, 2, 0).numpy() + 1) * 127.5
    v, u = np.mgrid[0:192, 0:192] + 0.5
    where = geometry.apply(np.linalg.inv(matrix), np.stack([u.ravel(), v.ravel()], -1)).reshape(192, 192, 2)
    inside = (where > 2).all(-1)
    wide = np.pad(picture, ((300, 300), (300, 300), (0, 0)), mode="edge")
    shift = np.array([[1.0, 0, -300], [0, 1, -300], [0, 0, 1]])
    plain = align.warp(wide, matrix @ shift, 192)
    assert np.abs(crop - plain)[inside].max() < 1.0
    assert crop[~inside].min() > 30
    assert np.abs(np.diff(crop, axis=0)).max() < 15 and np.abs(np.diff(crop, axis=1)).max() < 15


@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (30, 30)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 200, np.uint8)
    crop = align.cut(picture, face_at(shape[1] / 2, shape[0] / 2, 20), size=256)
    np.testing.assert_allclose(crop.pixels.numpy(), 200 / 127.5 - 1, atol=1e-4)


# sizes, templates, errors


def test_native_size() -> None:
    face = face_at(0, 0, 200)  # half side 1.8 * eye-to-mouth 200 or 2 * 200: side 800
    assert align.native_size(face, "ffhq") == 800
    assert align.native_size(face_at(0, 0, 3), "ffhq") == 256
    assert align.native_size(face_at(0, 0, 3000), "ffhq") == 4096
    sizes = {align.native_size(face_at(0, 0, d), "ffhq") for d in np.linspace(100, 700, 37)}
    assert all(size % 32 == 0 for size in sizes)
    assert align.cut(np.zeros((900, 900, 3), np.uint8), face_at(450, 400, 200)).size == 800


@pytest.mark.parametrize("size", [112, 256])
def test_arcface_crop_puts_points_on_the_template(size: int) -> None:
    inverse = np.linalg.inv(np.array([[0.8, 0.3, -20], [-0.3, 0.8, 35], [0, 0, 1.0]]))
    points = geometry.apply(inverse, arcface_template(size) + 0.5)
    face = Face(np.zeros(4), 1.0, points, mesh=np.concatenate([points.repeat(94, 0)[:468], np.ones((468, 1))], 1))
    crop = align.cut(np.zeros((300, 300, 3), np.uint8), face, "arcface", size)
    np.testing.assert_allclose(crop.points, arcface_template(size) + 0.5, atol=1e-9)
    published = similarity(points - 0.5, arcface_template(size))  # centres at whole numbers on both sides
    np.testing.assert_allclose(crop.image_to_crop, HALF @ published @ np.linalg.inv(HALF), atol=1e-9)
    assert crop.mesh is not None
    np.testing.assert_allclose(crop.mesh[0, 2], np.hypot(0.8, 0.3))


@pytest.mark.parametrize("bad", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_wrong_pictures_are_rejected(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="HxWx3"):
        align.cut(bad, face_at(5, 5, 3))


def test_unknown_template() -> None:
    with pytest.raises(UsageError, match="ffhq or arcface"):
        align.cut(np.zeros((9, 9, 3), np.uint8), face_at(5, 5, 3), "square", 256)


def test_wrong_landmarks() -> None:
    with pytest.raises(UsageError, match=r"\(5, 2\)"):
        align.ffhq_quad(np.zeros((5, 2)))
