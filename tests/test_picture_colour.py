"""Colour models of pictures that are read: every one becomes RGB, through its profile where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import noise
from PIL import Image

from mattface import picture_io
from mattface.picture_io import colour


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(noise(np.uint16)[..., 0])
    else:
        image = Image.fromarray(noise(np.uint8, 3 if mode == "P" else 4)).convert(mode)
    image.save(tmp_path / "a.png")
    picture = picture_io.read(tmp_path / "a.png")
    assert picture.pixels.shape == (9, 13, 3)
    assert picture.pixels.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert bool(picture.notes) == (mode not in ("RGB", "RGBA"))
    if mode == "I;16":
        assert np.array_equal(picture.pixels[..., 1], noise(np.uint16)[..., 0])
    else:
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


def test_palette_transparency_becomes_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=1)
    picture = picture_io.read(tmp_path / "a.png")
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert picture.alpha.tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb_without_its_profile(tmp_path: Path, name: str) -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :8, 0] = 255
    image = Image.fromarray(ink, "CMYK")
    image.save(tmp_path / name, quality=100)
    picture = picture_io.read(tmp_path / name)
    assert np.abs(picture.pixels[4, 3].astype(int) - [0, 255, 255]).max() <= 4
    assert np.abs(picture.pixels[4, 12].astype(int) - 255).max() <= 4
    assert any("CMYK" in note for note in picture.notes)
    assert "icc" not in picture.metadata
    picture_io.write(picture, tmp_path / "out.png")


def _description() -> bytes:
    return b"desc" + bytes(4) + (2).to_bytes(4, "big") + b"g\0" + bytes(82)


def _white_point() -> bytes:
    return b"XYZ " + bytes(4) + bytes.fromhex("0000f6d6000100000000d32d")


def _profile(kind: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    """An ICC profile, version 2.1, of 12 bytes class, colour space and connection space, and its tags."""
    offset, table = 128 + 4 + 12 * len(tags), b""
    for name, body in tags:
        table += name + offset.to_bytes(4, "big") + len(body).to_bytes(4, "big")
        offset += len(body)
    body = len(tags).to_bytes(4, "big") + table + b"".join(b for _, b in tags)
    head = bytearray(128)
    head[0:4] = (128 + len(body)).to_bytes(4, "big")
    head[8:12] = bytes.fromhex("02100000")
    head[12:24] = kind
    head[36:40] = b"acsp"
    head[68:80] = bytes.fromhex("0000f6d6000100000000d32d")
    return bytes(head) + body


def _grey_profile() -> bytes:
    """A grey profile whose tone curve is gamma 1 (linear light)."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + (256).to_bytes(2, "big") + bytes(2)
    return _profile(b"mntrGRAYXYZ ", [(b"desc", _description()), (b"wtpt", _white_point()), (b"kTRC", curve)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_goes_through_its_profile(dtype: Any) -> None:
    white = np.iinfo(dtype).max
    linear = np.full((4, 4), round(0.2140 * white), dtype)
    rgb, icc, notes = colour.to_rgb(linear, "grey", _grey_profile())
    assert rgb.shape == (4, 4, 3)
    np.testing.assert_allclose(rgb / white, 0.5, atol=0.01)
    assert icc[16:20] == b"RGB "
    assert "profile" in notes[0]


def _cmyk_profile() -> bytes:
    """A small printer profile: a 2x2x2x2 table to Lab in which 100 % magenta and yellow print as pure blue.

    No plain formula gives that colour, so a test sees whether the table was used.
    """
    from skimage.color import rgb2lab

    corners = np.indices((2, 2, 2, 2)).reshape(4, -1).T
    rgb = (1.0 - corners[:, :3]) * (1.0 - corners[:, 3:])
    rgb[(corners == [0, 1, 1, 0]).all(-1)] = 0, 0, 1
    lab = rgb2lab(rgb[None])[0] * [2.55, 1, 1] + [0, 128, 128]
    straight = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(v.to_bytes(4, "big") for v in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table += straight * 4 + np.rint(lab).astype(np.uint8).tobytes() + straight * 3
    return _profile(b"prtrCMYKLab ", [(b"desc", _description()), (b"wtpt", _white_point()), (b"A2B0", table)])


def test_cmyk_goes_through_its_profile() -> None:
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0] = 0, 255, 255, 0
    rgb, icc, notes = colour.to_rgb(ink, "cmyk", _cmyk_profile())
    assert icc[16:20] == b"RGB "
    assert rgb[1].min() > 250
    assert rgb[0, 0, 2] > 245 > 120 > rgb[0, 0, 0]
    assert "through its ICC profile" in notes[0]


def test_cmyk_file_is_written_with_a_profile_that_fits(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / "a.tif", icc_profile=_cmyk_profile())
    picture_io.write(picture_io.read(tmp_path / "a.tif"), tmp_path / "b.tif")
    back = picture_io.read(tmp_path / "b.tif")
    assert back.metadata["icc"][16:20] == b"RGB "
    assert back.pixels[3, 3, 2] > 245


def test_a_profile_of_another_colour_model_is_left_out_with_a_note() -> None:
    rgb, icc, notes = colour.to_rgb(noise(), "rgb", _grey_profile())
    assert icc is None
    assert "GRAY" in notes[0]
    assert np.array_equal(rgb, noise())


def test_broken_profile_is_left_out_with_a_note() -> None:
    broken = _grey_profile()[:100] + bytes(60)
    rgb, icc, notes = colour.to_rgb(np.full((2, 2), 9, np.uint8), "grey", broken)
    assert icc is None
    assert rgb.tolist() == [[[9] * 3] * 2] * 2
    assert any("left out" in note for note in notes)


def test_associated_alpha_is_divided_out(tmp_path: Path) -> None:
    straight = np.full((2, 2, 3), 40000, np.uint16)
    alpha = np.array([[65535, 32768], [16384, 0]], np.uint16)
    stored = np.dstack([np.rint(straight * (alpha / 65535)[..., None]).astype(np.uint16), alpha])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    picture = picture_io.read(tmp_path / "a.tif")
    assert np.abs(picture.pixels[alpha > 0].astype(int) - 40000).max() <= 2
    assert np.array_equal(picture.alpha, alpha)
