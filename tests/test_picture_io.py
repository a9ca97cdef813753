"""Pictures in and out: every format and depth, with what travels beside the pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import noise
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from mattface import picture_io
from mattface.vocabulary import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = [".png", ".webp", ".tif"]


def described(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    """A picture with everything that should survive writing."""
    exif = Image.Exif()
    exif[271], exif[315] = "Maker", "Somebody"
    exif[34665] = {36867: "2020:01:02 03:04:05", 37386: (50, 1)}
    exif[34853] = {1: "N"}
    kept = {"icc": SRGB, "exif": exif.tobytes(), "dpi": (300.0, 150.0)}
    return Picture(pixels, alpha, None, kept)


def assert_described(back: Picture) -> None:
    """Everything of `described` is still there."""
    assert back.metadata["icc"] == SRGB
    exif = Image.Exif()
    exif.load(back.metadata["exif"])
    assert (exif[271], exif[315]) == ("Maker", "Somebody")
    assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    assert exif.get_ifd(34853)[1] == "N"


@pytest.mark.parametrize(
    ("ending", "dtype", "alpha"),
    [(e, np.uint8, a) for e in LOSSLESS for a in (False, True)]
    + [(e, np.uint16, a) for e in (".png", ".tiff") for a in (False, True)]
    + [(".tif", np.float32, a) for a in (False, True)],
)
def test_lossless_formats_keep_every_bit_and_the_metadata(tmp_path: Path, ending: str, dtype: Any, alpha: bool) -> None:
    pixels = noise(dtype, 4)
    picture = described(pixels[..., :3].copy(), pixels[..., 3].copy() if alpha else None)
    path = tmp_path / f"out{ending}"
    assert picture_io.write(picture, path) == ()
    back = picture_io.read(path)
    assert back.pixels.dtype == dtype
    assert np.array_equal(back.pixels, picture.pixels)
    assert (back.alpha is None) == (not alpha)
    if alpha:
        assert np.array_equal(back.alpha, picture.alpha)
    assert_described(back)
    if ending != ".webp":
        assert back.metadata["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert picture_io.read_mark(path).tool == "mattface"
    assert back.notes == ()


def test_webp_keeps_the_resolution_in_its_exif(tmp_path: Path) -> None:
    picture_io.write(described(noise()), tmp_path / "a.webp")
    exif = Image.Exif()
    exif.load(picture_io.read(tmp_path / "a.webp").metadata["exif"])
    assert (float(exif[282]), float(exif[283]), exif[296]) == (300, 150, 2)


def test_jpeg_is_fine_unsubsampled_and_described(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3))
    gradient[..., 1] = 90
    path = tmp_path / "a.jpg"
    assert picture_io.write(described(gradient), path) == ()
    back = picture_io.read(path)
    assert np.abs(back.pixels.astype(int) - gradient).max() <= 6
    assert_described(back)
    assert back.metadata["dpi"] == (300, 150)
    with Image.open(path) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        assert max(image.quantization[0]) < 15


def test_jpeg_says_what_it_cannot_hold(tmp_path: Path) -> None:
    deep = Picture(noise(np.uint16), noise(np.uint16)[..., 0])
    notes = picture_io.write(deep, tmp_path / "a.jpg")
    assert any("uint8" in note for note in notes)
    assert any("transparency" in note for note in notes)
    assert picture_io.read(tmp_path / "a.jpg").alpha is None


def test_float_in_png_becomes_sixteen_bits_with_a_note(tmp_path: Path) -> None:
    pixels = noise(np.float32)
    assert len(picture_io.write(Picture(pixels), tmp_path / "a.png")) == 1
    back = picture_io.read(tmp_path / "a.png").pixels
    assert back.dtype == np.uint16
    np.testing.assert_allclose(back / 65535, pixels, atol=0.6 / 65535)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path: Path, ending: str, orientation: int) -> None:
    blocks = np.kron(np.array([[0, 80, 160], [255, 120, 40]], np.uint8), np.ones((16, 16), np.uint8))
    stored = Image.fromarray(np.stack([blocks] * 3, axis=-1))
    exif = Image.Exif()
    exif[274] = orientation
    exif[34665] = {40962: stored.width, 40963: stored.height}
    path = tmp_path / f"a{ending}"
    stored.save(path, exif=exif.tobytes(), **({"lossless": True} if ending == ".webp" else {"quality": 100}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    back = picture_io.read(path)
    assert np.array_equal(back.pixels, expected)
    picture_io.write(back, path, overwrite=True)
    again = picture_io.read(path)
    assert again.pixels.shape == expected.shape
    with Image.open(path) as image:
        assert image.getexif().get(274, 1) == 1
        directory = image.getexif().get_ifd(34665)
        assert (directory.get(40962), directory.get(40963)) in [(None, None), back.size]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_tiff(tmp_path: Path, orientation: int) -> None:
    pixels = noise(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    tag = Image.Exif()
    tag[274] = orientation
    small = Image.fromarray((pixels >> 8).astype(np.uint8))
    small.info["exif"] = tag.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(small))
    assert np.array_equal(picture_io.read(tmp_path / "a.tif").pixels >> 8, expected)


def test_the_old_thumbnail_does_not_survive(tmp_path: Path) -> None:
    """A camera's thumbnail would show the face as it was."""
    small = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(small, "JPEG")
    image = Image.new("RGB", (32, 32))
    exif = image.getexif()
    exif[271] = "Maker"
    raw = bytearray(exif.tobytes())
    path = tmp_path / "a.jpg"
    image.save(path, exif=_with_thumbnail(raw, small.getvalue()))
    assert small.getvalue() in path.read_bytes()
    picture_io.write(picture_io.read(path), path, overwrite=True)
    assert small.getvalue() not in path.read_bytes()


def _with_thumbnail(exif: bytearray, thumbnail: bytes) -> bytes:
    """EXIF bytes with a second directory that holds a JPEG thumbnail."""
    order = "little" if exif[6:8] == b"II" else "big"
    base = 6
    count = int.from_bytes(exif[base + 8 : base + 10], order)
    end = base + 10 + 12 * count
    place = len(exif) - base
    exif[end : end + 4] = place.to_bytes(4, order)
    start = place + 2 + 24 + 4
    entries = (2).to_bytes(2, order)
    for tag, value in ((513, start), (514, len(thumbnail))):
        entries += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    return bytes(exif) + entries + bytes(4) + thumbnail


def test_animation_gives_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "green", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        lossless = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
        picture = picture_io.read(tmp_path / name)
        assert picture.pixels[0, 0].tolist() == [255, 0, 0]
        assert any("3 frames" in note for note in picture.notes)


def test_bmp_is_read(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.bmp")
    assert np.array_equal(picture_io.read(tmp_path / "a.bmp").pixels, noise())


def test_deep_tiff_variants(tmp_path: Path) -> None:
    rgb = noise(np.uint16)
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(picture_io.read(tmp_path / "planar.tif").pixels, rgb)
    tifffile.imwrite(tmp_path / "grey.tif", rgb[..., 0], photometric="minisblack")
    assert np.array_equal(picture_io.read(tmp_path / "grey.tif").pixels[..., 2], rgb[..., 0])
    tifffile.imwrite(tmp_path / "white.tif", rgb[..., 0], photometric="miniswhite")
    assert np.array_equal(picture_io.read(tmp_path / "white.tif").pixels[..., 2], 65535 - rgb[..., 0])
    tifffile.imwrite(tmp_path / "float.tif", noise(np.float32)[..., 0], photometric="minisblack")
    assert picture_io.read(tmp_path / "float.tif").pixels.dtype == np.float32
    big = rgb.astype(">u2")
    tifffile.imwrite(tmp_path / "big.tif", big, photometric="rgb", byteorder=">", compression="lzw", predictor=True)
    assert np.array_equal(picture_io.read(tmp_path / "big.tif").pixels, rgb)


def test_png_colour_chunks_survive(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    info.add(b"cICP", bytes([9, 16, 0, 1]))
    Image.fromarray(noise()).save(tmp_path / "a.png", pnginfo=info)
    picture_io.write(picture_io.read(tmp_path / "a.png"), tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    assert b"gAMA" + (45455).to_bytes(4, "big") in data
    assert b"cICP" + bytes([9, 16, 0, 1]) in data


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_pil_images_are_read_and_left_alone(mode: str) -> None:
    image = Image.fromarray(noise(np.uint8, 4)).convert(mode)
    before = image.tobytes()
    picture = picture_io.read(image)
    assert picture.pixels.shape == (9, 13, 3)
    assert image.tobytes() == before
    assert (image.mode, image.size) == (mode, (13, 9))


def test_opened_pil_image_brings_its_metadata(tmp_path: Path) -> None:
    picture_io.write(described(noise()), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        picture = picture_io.read(image)
    assert_described(picture)
    assert picture.origin == "JPEG"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_arrays_come_back_as_they_went_in(dtype: Any, channels: int) -> None:
    array = noise(dtype, channels)
    picture = picture_io.read(array)
    assert picture.pixels.shape == (9, 13, 3)
    back = picture_io.to_caller(picture, array)
    assert back.dtype == dtype
    assert np.array_equal(back, array)


def test_handing_back_follows_the_source(tmp_path: Path) -> None:
    picture_io.write(described(noise()), tmp_path / "a.png")
    picture = picture_io.read(tmp_path / "a.png")
    image = picture_io.to_caller(picture, str(tmp_path / "a.png"))
    assert isinstance(image, Image.Image)
    assert np.array_equal(np.asarray(image), picture.pixels)
    assert image.info["icc_profile"] == SRGB
    assert picture_io.to_caller(picture, picture) is picture
    deep = picture_io.to_caller(Picture(noise(np.uint16)), "a.png")
    assert deep.dtype == np.uint16


def test_matte_is_written_at_sixteen_bits_or_as_float(tmp_path: Path) -> None:
    matte = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    picture_io.write_matte(matte, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "I;16"
        np.testing.assert_allclose(np.asarray(image) / 65535, matte, atol=0.51 / 65535)
    picture_io.write_matte(matte, tmp_path / "m.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), matte)
    assert picture_io.read_mark(tmp_path / "m.png").tool == "mattface"


def test_reading_a_picture_gives_it_back() -> None:
    picture = Picture(noise())
    assert picture_io.read(picture) is picture
