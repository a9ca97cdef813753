"""Plane geometry: pixel centres stay where they are, boxes hold what they should, fits recover what made them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mattface import geometry


def ramp(height: int, width: int) -> np.ndarray:
    """(H, W, 2) float32: x and y of every pixel's centre."""
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    return np.dstack([x, y])


def test_a_warp_puts_pixel_centres_where_the_matrix_says() -> None:
    matrix = np.array([[1.25, 0.25, -8.0], [-0.25, 1.25, 6.0], [0, 0, 1]])
    shown = geometry.warp(ramp(60, 80), matrix, (40, 30))
    inside = shown.min(2) > 1
    truth = geometry.apply(np.linalg.inv(matrix), ramp(30, 40).reshape(-1, 2)).reshape(30, 40, 2)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(shown[inside], truth[inside], atol=0.05)  # OpenCV knows 32nds of a pixel
    back = geometry.warp(shown, matrix, (80, 60), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    ones = cv2.erode(inside.astype(np.float32), np.ones((3, 3)))
    held = geometry.warp(ones, matrix, (80, 60), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.999
    assert held.sum() > 200
    np.testing.assert_allclose(back[held], ramp(60, 80)[held], atol=0.1)


@pytest.mark.parametrize(("make", "factor"), [(geometry.block_means, 3), (geometry.area_means, 1 / 3)])
def test_a_smaller_picture_keeps_the_place_of_everything(make, factor) -> None:
    picture = ramp(31, 45)
    small, matrix = make(picture, np.eye(3), factor)
    assert small.shape[0] == 10 and small.shape[1] == 15
    where = geometry.apply(matrix, ramp(10, 15).reshape(-1, 2)).reshape(10, 15, 2)
    np.testing.assert_allclose(small, where, atol=0.06)
    same, own = make(picture, matrix, 1)
    assert same is picture and own is matrix


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((20, 30))
    assert geometry.box(mask) is None
    mask[4, 7] = mask[9, 12] = 0.1
    assert geometry.box(mask) == (7, 4, 13, 10)
    assert geometry.widened((7, 4, 13, 10), 5, (15, 20)) == (2, 0, 15, 15)


def test_procrustes_recovers_a_rotation_and_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    found, scale = geometry.procrustes(points, 2.5 * points @ turn.T + [3, 4, 5])
    np.testing.assert_allclose(found, turn, atol=1e-9)
    assert scale == pytest.approx(2.5)
    mirrored, _ = geometry.procrustes(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored) == pytest.approx(1)
