"""The imperceptible mark and its code: read after ordinary handling, only inside the matte, never out of nothing."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from mattface.provenance import code, watermark

PAYLOAD = 0xC0FFEE123456
SIDE = 480


def face() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture with skin-like texture, the matte of a face in it, and its mesh."""
    rng = np.random.default_rng(3)
    waves = sum(2**k * cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 2**k) for k in range(1, 5))
    light = 130 + 8 * waves / waves.std()
    pixels = np.clip(light[..., None] * [1.1, 0.9, 0.8], 0, 255).astype(np.uint8)
    place, oval = watermark._place()
    matrix = np.array([[1.7, 0.1, 70.0], [-0.1, 1.7, 80.0]])
    mesh = np.c_[place @ matrix[:, :2].T + matrix[:, 2], np.zeros(len(place))]
    matte = np.clip(cv2.warpAffine(oval, matrix, (SIDE, SIDE)), 0, 1)
    matte[matte < 0.01] = 0
    return pixels, matte, mesh


def marked() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    pixels, matte, mesh = face()
    return watermark.embed(pixels, matte, [mesh], PAYLOAD), pixels, matte, mesh


@pytest.mark.parametrize("payload", [0, 1, PAYLOAD, (1 << 48) - 1])
def test_words_come_back_from_noise(payload: int) -> None:
    rng = np.random.default_rng(1)
    word = code.decode(np.ones((1, code.LENGTH), np.float32), payload)[0]
    soft = code.encode(word) + rng.normal(0, 1, code.LENGTH)
    assert code.payload_of(code.decode(soft[None])[0]) == payload


def test_free_bits_follow_what_is_there() -> None:
    rng = np.random.default_rng(2)
    soft = rng.normal(size=(20, code.LENGTH)).astype(np.float32)
    words = np.concatenate([code.decode(one[None], PAYLOAD) for one in soft])
    assert {code.payload_of(word) for word in words} == {PAYLOAD}
    fixed = np.repeat(code.decode(np.ones((1, code.LENGTH), np.float32), PAYLOAD), 20, 0)
    assert code.correlation(soft, words).mean() > 0.2 > 0.1 > abs(code.correlation(soft, fixed).mean())


def test_a_payload_of_more_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="48 bits"):
        code.decode(np.ones((1, code.LENGTH), np.float32), 1 << 48)


def test_noise_never_reaches_the_threshold() -> None:
    soft = np.random.default_rng(4).normal(size=(2000, code.LENGTH)).astype(np.float32)
    reached = code.correlation(soft, code.decode(soft))
    assert reached.max() < code.threshold(2000, 1e-3)
    least = code.threshold(watermark.TRIALS, watermark.FALSE_POSITIVES)
    assert code.chance(least, watermark.TRIALS) == pytest.approx(watermark.FALSE_POSITIVES, rel=0.01)


def test_only_pixels_inside_the_matte_change_and_hardly() -> None:
    after, before, matte, _ = marked()
    assert np.array_equal(after[matte == 0], before[matte == 0])
    error = ((after.astype(float) - before)[matte > 0] ** 2).mean()
    assert 0.05 < error < 255**2 / 10**4.2, "at least 42 dB"


ATTACKS = {
    "none": lambda p, m: (p, m),
    "half": lambda p, m: (cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), m * 0.5),
    "crop": lambda p, m: (np.ascontiguousarray(p[60:, 50:]), m - [50, 60, 0]),
    "jpeg": lambda p, m: (cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1), m),
    "darker": lambda p, m: ((p * 0.8).astype(np.uint8), m),
    "landmarks a little off": lambda p, m: (p, (m - m.mean(0)) * 1.008 + m.mean(0)),
}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_the_mark_survives(name: str) -> None:
    after, _, _, mesh = marked()
    found = watermark.search(*ATTACKS[name](after, mesh))
    assert found.payload == PAYLOAD
    assert found.chance < 1e-5


def test_an_unmarked_face_says_so() -> None:
    pixels, _, mesh = face()
    found = watermark.search(pixels, mesh)
    assert found.payload is None
    assert found.correlation < 0.58


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_pictures_carry_it(kind: type) -> None:
    pixels, matte, mesh = face()
    deep = (pixels.astype(np.float64) * (257 if kind is np.uint16 else 1 / 255)).astype(kind)
    after = watermark.embed(deep, matte, [mesh], PAYLOAD)
    assert after.dtype == kind
    assert np.array_equal(after[matte == 0], deep[matte == 0])
    assert watermark.search(after, mesh).payload == PAYLOAD


def test_nothing_to_mark_changes_nothing() -> None:
    pixels, matte, mesh = face()
    assert watermark.embed(pixels, np.zeros_like(matte), [mesh], PAYLOAD) is pixels
    assert watermark.embed(pixels, matte, [], PAYLOAD) is pixels


def test_marks_of_earlier_versions_stay_readable() -> None:
    """Place, key and code are a published format: whatever changes them must take another name."""
    index, weight = watermark._layout()
    word = code.decode(np.ones((1, code.LENGTH), np.float32), PAYLOAD)[0]
    place = np.round(watermark._place()[0], 3)
    stated = index.astype("<i8"), np.round(weight, 4).astype("<f4"), place, code.encode(word)
    assert hashlib.sha256(b"".join(one.tobytes() for one in stated)).hexdigest()[:16] == "7c49246ddb48ed14"
