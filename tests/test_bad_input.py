"""Bad input and bad output paths: a clear error, and nothing lost or left behind."""

from __future__ import annotations

import errno
import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mattface import picture_io
from mattface.errors import InputError
from mattface.picture_io import files
from mattface.vocabulary import Picture

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, name)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, this is text", "expected PNG, JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\x76\x2f\x31\x01\x02\0\0\0", "OpenEXR"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"II*\0", "truncated"),
        (b"GIF89a", "truncated"),
        (b"BM", "truncated"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "truncated"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        picture_io.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_files_are_rejected(tmp_path: Path, name: str, share: float) -> None:
    data = encoded(name)
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match="truncated"):
        picture_io.read(tmp_path / "a")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["PNG", "JPEG", "WebP", "TIFF", "GIF"]),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_are_read_or_rejected(tmp_path: Path, name: str, places: list[tuple[float, int]]) -> None:
    """Whatever bytes change, reading ends in a picture or in an InputError, never in anything else."""
    data = bytearray(encoded(name))
    for share, value in places:
        data[int(share * len(data))] = value
    (tmp_path / "a").write_bytes(data)
    try:
        picture = picture_io.read(tmp_path / "a")
    except InputError:
        return
    assert picture.pixels.shape[2] == 3


def test_missing_folder_and_pipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of that name"):
        picture_io.read(tmp_path / "none.png")
    with pytest.raises(InputError, match="folder"):
        picture_io.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        picture_io.read(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot be opened"):
        picture_io.read("a\0b.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match="permissions"):
        picture_io.read(tmp_path / "a.png")


def test_image_bombs_are_rejected_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(40_000, 20_000))
    with pytest.raises(InputError, match=r"400 megapixels; got 40000x20000 \(800 megapixels\)"):
        picture_io.read(tmp_path / "a.png")


def test_deep_tiff_bombs_are_rejected_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(30_000)
    with pytest.raises(InputError, match="400 megapixels"):
        picture_io.read(path)


def test_huge_pictures_are_read_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr("mattface.checks.MAX_PIXELS", 700)
    with pytest.raises(InputError, match="allow-huge"):
        picture_io.read(tmp_path / "a.png")
    assert picture_io.read(tmp_path / "a.png", allow_huge=True).size == (32, 24)


def test_pillow_limits_neither_stop_nor_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture between Pillow's limit and ours is read, and Pillow's setting stays as the caller has it."""
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")
    assert picture_io.read(tmp_path / "a.png").size == (32, 24)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((9, 9), np.uint8), r"Image.convert\('RGB'\)"),
        (np.zeros((9, 9, 1), np.uint8), r"Image.convert\('RGB'\)"),
        (np.zeros((3, 9, 9), np.uint8), "transpose"),
        (np.zeros((2, 9, 9, 3), np.uint8), "one picture at a time"),
        (np.zeros((9, 9, 5), np.uint8), "HxWx3"),
        (np.zeros((0, 9, 3), np.uint8), "at least one pixel"),
        (np.zeros((9, 9, 3), np.float64), "astype"),
        (np.zeros((9, 9, 3), bool), r"\* 255"),
        (np.zeros((9, 9, 3), np.int32), "np.uint8"),
        (np.full((9, 9, 3), np.nan, np.float32), "243 NaN"),
        (np.full((9, 9, 3), np.inf, np.float32), "infinite"),
        (np.full((9, 9, 3), 1.5, np.float32), "1.5"),
        (np.full((9, 9, 3), -0.1, np.float32), r"\[0, 1\]"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        picture_io.read(array)


@pytest.mark.parametrize("source", [None, 3, b"bytes", [PIXELS]])
def test_other_things_are_no_pictures(source: Any) -> None:
    with pytest.raises(InputError, match="expected a path, a PIL image or a numpy array"):
        picture_io.read(source)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), 7.5, np.float32), "7.5"),
        (np.zeros((4, 4, 3), np.float64), "float64"),
        (np.zeros((4, 4, 3), np.uint32), "uint32"),
    ],
)
def test_tiff_numbers_that_are_no_picture(tmp_path: Path, values: np.ndarray, words: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(InputError, match=words):
        picture_io.read(tmp_path / "a.tif")


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        picture_io.write(Picture(np.full((1, 1, 3), 128, np.uint8)), tmp_path / name)
        assert picture_io.read(tmp_path / name).pixels.shape == (1, 1, 3)


def write(path: Path, **options: Any) -> None:
    picture_io.write(Picture(PIXELS), path, **options)


def test_output_places_are_checked(tmp_path: Path) -> None:
    for name, words in (("a.xyz", "'.xyz'"), ("a", "no ending"), ("a.bmp", "ending in .png")):
        with pytest.raises(InputError, match=words):
            write(tmp_path / name)
    with pytest.raises(InputError, match="existing folder"):
        write(tmp_path / "missing" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="folder or device"):
        write(tmp_path / "folder.png")
    with pytest.raises(InputError, match="16383"):
        picture_io.write(Picture(np.zeros((1, 16_400, 3), np.uint8)), tmp_path / "a.webp")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_existing_files_and_inputs_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"exists.*--overwrite"):
        write(path)
    with pytest.raises(InputError, match="one of the inputs"):
        picture_io.check_output(path, inputs=[str(path)])
    (tmp_path / "link.png").symlink_to(path)
    with pytest.raises(InputError, match="one of the inputs"):
        picture_io.check_output(tmp_path / "link.png", inputs=[path])
    assert path.read_bytes() == b"precious"
    write(tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert np.array_equal(picture_io.read(path).pixels, PIXELS)


def test_unwritable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="writable folder"):
        write(tmp_path / "a.png")


def failing(code: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("fsync", errno.ENOSPC, "disk is full"),
        ("replace", errno.EACCES, "permissions"),
        ("fsync", errno.EDQUOT, "quota"),
    ],
)
def test_failing_disk_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int, words: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    monkeypatch.setattr(files.os, place, failing(code))
    with pytest.raises(InputError, match=words):
        write(path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_for_real(tmp_path: Path) -> None:
    """The system itself stops the file at 1000 bytes."""
    code = (
        "import numpy as np, sys; from mattface import picture_io; from mattface.vocabulary import Picture\n"
        "noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)\n"
        "picture_io.write(Picture(noise), sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "InputError" in done.stderr
    assert "could not be written: the file may not grow" in done.stderr
    assert list(tmp_path.iterdir()) == []
