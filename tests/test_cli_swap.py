"""`mattface swap`: what it writes, says and returns. Most tests put a small stand-in where the swapper would be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import StandIn, write_pair

import mattface
from mattface import cli, picture_io
from mattface.cli.loading import load
from mattface.cli.swap import plain
from mattface.errors import DeviceError, InputError, MattfaceError, NoFaceError, UsageError, WeightsError
from mattface.examples import example_pair
from mattface.vocabulary import Picture


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in that `mattface.load` returns."""
    made = StandIn()
    monkeypatch.setattr(mattface, "load", made.load)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with source.png and target.png."""
    return write_pair(tmp_path)


def swap(folder: Path, *more: str, output: str = "out.png") -> int:
    files = ["-s", str(folder / "source.png"), "-t", str(folder / "target.png"), "-o", str(folder / output)]
    return cli.main(["swap", *files, *more])


def test_swap_writes_result_matte_and_report(stand_in: StandIn, pair: Path, capsys: pytest.CaptureFixture) -> None:
    code = swap(pair, "--matte", str(pair / "m.png"), "--report", str(pair / "r.json"))
    assert code == 0
    target, out = picture_io.read(pair / "target.png").pixels, picture_io.read(pair / "out.png").pixels
    assert np.array_equal(out[:, 6:], target[:, 6:])
    assert np.array_equal(out[:, :6], 255 - target[:, :6])
    assert picture_io.read(pair / "m.png").pixels[0, :, 0].tolist() == [65535] * 6 + [0] * 6
    report = json.loads((pair / "r.json").read_text())
    assert report["device"] == "cpu"
    assert report["mattface"] == mattface.__version__
    assert report["files"]["target"].endswith("target.png")
    assert report["faces"][0]["box"] == [1, 2, 3, 4]
    assert report["faces"][0]["cosine"] is None
    said = capsys.readouterr()
    assert "12x10, 1 face swapped" in said.out
    assert said.err == ""
    assert picture_io.read_mark(pair / "out.png").tool == "mattface"


def test_swap_hands_its_options_on(stand_in: StandIn, pair: Path) -> None:
    more = ["-s", str(pair / "target.png"), "--method", "mesh", "--weights", "w", "--face", "2", "--device", "cuda:1"]
    assert swap(pair, *more, "--dtype", "bf16") == 0
    expected = {"method": "mesh", "weights": "w", "device": "cuda:1", "dtype": "bf16", "face": 2}
    assert {key: stand_in.asked[key] for key in expected} == expected
    assert [picture.size for picture in stand_in.asked["sources"]] == [(12, 10)] * 2
    assert stand_in.asked["identity"] == "somebody"


def test_quiet_says_nothing(stand_in: StandIn, pair: Path, capsys: pytest.CaptureFixture) -> None:
    assert swap(pair, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_no_mark_leaves_the_mark_out(stand_in: StandIn, pair: Path) -> None:
    for name in ("source.png", "target.png"):
        picture_io.write(picture_io.read(np.zeros((10, 12, 3), np.uint8)), pair / name, overwrite=True, mark=False)
    assert swap(pair, "--no-mark", "--matte", str(pair / "m.tif")) == 0
    assert picture_io.read_mark(pair / "out.png") is None
    assert picture_io.read_mark(pair / "m.tif") is None


def test_notes_name_their_file_once(stand_in: StandIn, pair: Path, capsys: pytest.CaptureFixture) -> None:
    from PIL import Image

    Image.new("L", (12, 10), 90).save(pair / "target.png")
    assert swap(pair, output="out.jpg") == 0
    said = capsys.readouterr().err
    assert said.count("grey picture: converted to RGB") == 1
    assert f"{pair / 'target.png'}: grey" in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such method"), 2),
        (InputError("not a picture"), 3),
        (NoFaceError("no face"), 4),
        (WeightsError("weights missing"), 5),
        (DeviceError("no cuda"), 6),
        (MattfaceError("something"), 1),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_failure_has_its_exit_code_and_one_line(
    stand_in: StandIn,
    pair: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: BaseException,
    code: int,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(stand_in, "swap", fail)
    monkeypatch.delenv("MATTFACE_TRACEBACK", raising=False)
    before = sorted(pair.iterdir())
    assert swap(pair) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mattface: error: ")
    assert said.err.count("\n") == 1
    assert str(error) in said.err
    assert sorted(pair.iterdir()) == before


def test_traceback_on_request(stand_in: StandIn, pair: Path, monkeypatch: Any, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(stand_in, "prepare", lambda _: 1 / 0)
    monkeypatch.setenv("MATTFACE_TRACEBACK", "1")
    assert swap(pair) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--face", "second"], "largest, all or a number"),
        (["--face", "-1"], "--face"),
        (["--device", "tpu"], "auto, cpu, cuda"),
        (["--dtype", "int8"], "fp32"),
        (["--method", "nothing"], "mesh"),
        (["--bogus"], "--bogus"),
    ],
)
def test_wrong_usage_is_two(pair: Path, capsys: pytest.CaptureFixture, more: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as left:
        swap(pair, *more)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("mattface: error: ")
    assert words in said
    assert said.count("\n") == 1


def test_same_file_twice_is_wrong_usage(stand_in: StandIn, pair: Path) -> None:
    assert swap(pair, "--matte", str(pair / "out.png")) == 2


@pytest.mark.parametrize(
    ("more", "output", "words"),
    [
        ([], "target.png", "one of the inputs"),
        ([], "missing/out.png", "existing folder"),
        ([], "out.bmp", ".png"),
        (["--matte", "m.jpg"], "out.png", ".tif"),
        (["--report", "r.txt"], "out.png", ".json"),
        (["-s", "none.png"], "out.png", "none of that name"),
    ],
)
def test_places_are_checked_before_anything_is_loaded(
    stand_in: StandIn, pair: Path, capsys: pytest.CaptureFixture, more: list[str], output: str, words: str
) -> None:
    before = sorted(pair.iterdir())
    assert swap(pair, *more, output=output) == 3
    assert words in capsys.readouterr().err
    assert stand_in.asked == {}
    assert sorted(pair.iterdir()) == before


def test_overwrite_replaces_even_an_input(stand_in: StandIn, pair: Path) -> None:
    before = picture_io.read(pair / "target.png").pixels
    assert swap(pair, "--overwrite", output="target.png") == 0
    assert np.array_equal(picture_io.read(pair / "target.png").pixels[:, :6], 255 - before[:, :6])


def test_plain_makes_json_of_everything() -> None:
    value = {"a": np.arange(2), 3: (np.float32(0.5), float("inf")), "p": Path("x"), "n": None, "b": True}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": [0, 1], "3": [0.5, None], "p": "x", "n": None, "b": True,
    }  # fmt: skip


def test_native_chatter_is_held_back_and_the_rest_passed_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def noisy(**_: Any) -> str:
        os.write(2, b"INFO: I am here\nWARNING: look out\n")
        return "swapper"

    monkeypatch.setattr(mattface, "load", noisy)
    assert load() == "swapper"
    assert capfd.readouterr().err == "WARNING: look out\n"


def test_a_real_swap(need: Any, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    need("centerface", "face-mesh")
    pair = example_pair()
    files = ["-s", str(pair["astronaut"]), "-t", str(pair["hopper"]), "-o", str(tmp_path / "o.png")]
    more = ["--method", "mesh", "--matte", str(tmp_path / "m.tif"), "--report", str(tmp_path / "r.json")]
    assert cli.main(["swap", *files, *more]) == 0
    assert capfd.readouterr().err == ""
    before, after = picture_io.read(pair["hopper"]), picture_io.read(tmp_path / "o.png")
    matte = picture_io.read(tmp_path / "m.tif").pixels[..., 0]
    assert 0.02 < (matte > 0).mean() < 0.5
    assert np.array_equal(after.pixels[matte == 0], before.pixels[matte == 0])
    assert np.abs(after.pixels[matte > 0.9].astype(int) - before.pixels[matte > 0.9]).mean() > 10
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["parts"]["detector"] in ("centerface", "scrfd")
    assert np.shape(report["faces"][0]["image_to_crop"]) == (3, 3)


@pytest.mark.parametrize("size", [(1, 1), (64, 48)])
def test_no_face_is_four(need: Any, tmp_path: Path, capfd: pytest.CaptureFixture, size: tuple[int, int]) -> None:
    need("centerface", "face-mesh")
    picture_io.write(Picture(np.full((size[1], size[0], 3), 120, np.uint8)), tmp_path / "t.png")
    files = ["-s", str(example_pair()["hopper"]), "-t", str(tmp_path / "t.png"), "-o", str(tmp_path / "o.png")]
    assert cli.main(["swap", *files, "--method", "mesh"]) == 4
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o.png").exists()


def test_missing_parts_are_five(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path))
    pair = [str(path) for path in example_pair().values()]
    assert cli.main(["swap", "-s", pair[0], "-t", pair[1], "-o", str(tmp_path / "o.png"), "--method", "mesh"]) == 5
    assert "mattface weights pull" in capfd.readouterr().err


def test_absent_cuda_is_six(tmp_path: Path) -> None:
    pair = [str(path) for path in example_pair().values()]
    files = ["-s", pair[0], "-t", pair[1], "-o", str(tmp_path / "o.png")]
    assert cli.main(["swap", *files, "--method", "mesh", "--device", "cuda:99"]) == 6
