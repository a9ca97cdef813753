"""The command line: what it writes, says and returns. Most tests put a small stand-in where the swapper would be."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mattface
from mattface import cli, picture_io, weights
from mattface.cli.demo import contact_sheet, directions
from mattface.cli.loading import load
from mattface.cli.swap import plain
from mattface.errors import DeviceError, InputError, MattfaceError, NoFaceError, UsageError, WeightsError
from mattface.examples import example_pair
from mattface.vocabulary import Face, Picture, SwappedFace, SwapResult

ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


class StandIn:
    """Takes the swapper's place: inverts the left half of the target and tells what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def load(self, method: str = "mesh", **options: Any) -> StandIn:
        self.asked |= {"method": method, **options}
        return self

    def prepare(self, sources: Any) -> Any:
        self.asked["sources"] = sources
        return "somebody"

    def swap(self, identity: Any, target: Picture, face: Any = "largest") -> SwapResult:
        self.asked |= {"identity": identity, "face": face}
        matte = np.zeros(target.pixels.shape[:2], np.float32)
        matte[:, : matte.shape[1] // 2] = 1
        pixels = np.where(matte[..., None] > 0, 255 - target.pixels, target.pixels).astype(target.pixels.dtype)
        box = np.array([1.0, 2, 3, 4])
        swapped = SwappedFace(
            0, Face(box, 0.9, np.zeros((5, 2))), np.eye(3), np.zeros((4, 4, 3), np.uint8), {"cosine": np.float32("nan")}
        )
        picture = Picture(pixels, target.alpha, target.origin, target.metadata, target.notes)
        report = {"device": "cpu", "seconds": {"detect": 0.1}, "notes": list(target.notes)}
        return SwapResult(pixels, matte, (swapped,), report, picture)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in that `mattface.load` returns."""
    made = StandIn()
    monkeypatch.setattr(mattface, "load", made.load)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with source.png and target.png."""
    pixels = np.random.default_rng(5).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture_io.write(Picture(pixels), tmp_path / "source.png")
    picture_io.write(Picture(pixels[::-1].copy()), tmp_path / "target.png")
    return tmp_path


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


@pytest.mark.parametrize("command", [[], ["swap"], ["doctor"], ["weights"], ["weights", "pull"], ["demo"]])
def test_help_and_version(command: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: mattface")


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mattface {mattface.__version__}\n"


def test_the_module_and_the_script_are_the_command(tmp_path: Path) -> None:
    for command in ([sys.executable, "-m", "mattface"], [str(Path(sys.executable).parent / "mattface")]):
        done = subprocess.run(
            [*command, "swap", "-s", "a.png", "-t", "b.png", "-o", "c.png"],
            capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=120,
        )  # fmt: skip
        assert done.returncode == 3
        assert done.stderr.startswith("mattface: error: a.png: expected a picture file")


def test_help_is_quick_because_it_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys\nfrom mattface import cli\ncli.parser().format_help()\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=120
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_half_written(pair: Path, number: int, code: int) -> None:
    """The process is stopped while its temporary file lies in the folder."""
    waiting = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job starts with it ignored
        "sys.path.insert(0, sys.argv.pop(1))\n"
        "import mattface, test_cli\n"
        "from mattface.cli import main\n"
        "mattface.load = test_cli.StandIn().load\n"
        "os.fsync = lambda _: time.sleep(60)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    files = ["-s", str(pair / "source.png"), "-t", str(pair / "target.png"), "-o", str(pair / "out.png")]
    process = subprocess.Popen(
        [sys.executable, "-c", waiting, str(Path(__file__).parent), "swap", *files],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list(pair.glob(".mattface-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(pair.glob(".mattface-*"))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert sorted(p.name for p in pair.iterdir()) == ["source.png", "target.png"]


def test_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m mattface weights show centerface | head -0; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_doctor_says_what_is_here_and_what_to_type(
    capsys: pytest.CaptureFixture, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"mattface {mattface.__version__}" in said
    assert "mattface weights pull centerface" in said
    assert "upfirdn2d" in said
    assert not (tmp_path / "empty").exists()


def test_doctor_json(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"][0]["device"] == "cpu"
    assert found["packages"]["torch"]
    assert {"chosen", "missing"} <= set(found["ops"]["bias_act"])
    assert {state["name"] for state in found["weights"]} >= {"centerface", "face-mesh"}
    assert set(found["parts"]) >= {"detection", "landmarks", "identity", "estimation"}
    assert {part["part"] for part in found["parts"]["estimation"]} == {"hopenet", "deep3d"}


def test_pull_of_a_group_goes_on_past_what_cannot_be_had(
    capsys: pytest.CaptureFixture, monkeypatch: Any, tmp_path: Path
) -> None:
    """byhand has no source, broken fails, good comes: only what could be fetched and was not is an error."""
    chosen, broken = ["byhand", "broken", "good"], ["broken"]

    def pull(names: list[str], *_: Any) -> dict[str, Path]:
        if names[0] in ("byhand", *broken):
            raise WeightsError(f"weights {names[0]!r}: no.")
        return {names[0]: tmp_path / names[0]}

    monkeypatch.setattr(weights, "expand", lambda names: chosen if names == ["all"] else list(names))
    monkeypatch.setattr(weights, "pull", pull)
    monkeypatch.setattr(weights, "fetchable", lambda name: name != "byhand")
    assert cli.main(["weights", "pull", "all"]) == 5
    said = capsys.readouterr()
    assert f"good: {tmp_path / 'good'}" in said.out and "To be supplied by you: byhand." in said.out
    assert "weights 'broken': no." in said.err and "expected 3 weights; 1 could not be had: broken." in said.err
    broken.clear()
    assert cli.main(["weights", "pull", "all"]) == 0
    assert "byhand" in capsys.readouterr().out
    assert cli.main(["weights", "pull", "byhand"]) == 5, "named by itself it is wanted"
    assert capsys.readouterr().err == "mattface: error: weights 'byhand': no.\n"


def test_an_unknown_weight_is_answered_with_near_names(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["weights", "show", "hoppenet"]) == 2
    assert "got 'hoppenet'. Near: hopenet" in capsys.readouterr().err
    assert not weights.fetchable("arcface-r50") and weights.fetchable("hopenet")


def test_weights_commands(capsys: pytest.CaptureFixture, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    assert cli.main(["weights", "list"]) == 0
    assert any(line.split()[:2] == ["centerface", "missing"] for line in capsys.readouterr().out.splitlines())
    assert cli.main(["weights", "show", "centerface"]) == 0
    assert "MIT" in capsys.readouterr().out
    assert cli.main(["weights", "show", "nothing"]) == 2
    assert cli.main(["weights", "verify", "centerface"]) == 5
    assert "mattface weights pull centerface" in capsys.readouterr().err
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "centerface.onnx").write_bytes(b"too short")
    assert cli.main(["weights", "list"]) == 0
    assert any(line.split()[:2] == ["centerface", "damaged"] for line in capsys.readouterr().out.splitlines())


def test_plain_makes_json_of_everything() -> None:
    value = {"a": np.arange(2), 3: (np.float32(0.5), float("inf")), "p": Path("x"), "n": None, "b": True}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": [0, 1], "3": [0.5, None], "p": "x", "n": None, "b": True,
    }  # fmt: skip


def test_contact_sheet_shows_every_picture(tmp_path: Path) -> None:
    red, blue = (Picture(np.full((600, 300, 3), c, np.uint8)) for c in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(contact_sheet([{"source": red, "target": blue}, {"source": blue, "target": red}]))
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (sheet == colour).all(-1).sum() == 2 * 256 * 512
    assert directions({"a": red, "b": blue}) == [("b", "a"), ("a", "b")]


def test_every_command_is_documented() -> None:
    actions = cli.parser()._subparsers._group_actions
    choices = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    expected = {
        "swap",
        "video",
        "live",
        "export",
        "sample",
        "studio",
        "data",
        "train",
        "bench",
        "doctor",
        "weights",
        "ops",
        "demo",
    }
    assert set(choices) == expected
    assert all(command.description for command in choices.values())


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


def test_demo_writes_a_sheet_and_says_how_it_went(need: Any, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    need(*weights.expand(["embedded"]))
    assert cli.main(["demo", "--out", str(tmp_path / "new" / "demo")]) == 0
    said = capfd.readouterr().out
    sheet = tmp_path / "new" / "demo" / "contact-sheet.png"
    for words in (
        str(sheet),
        "mesh-hopper-onto-astronaut.png",
        "device: cpu" if not cuda() else "cuda",
        "upfirdn2d",
        "seconds",
    ):
        assert words in said
    assert picture_io.read(sheet).pixels.shape[0] > 1000


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()
