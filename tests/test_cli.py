"""The command line: its help, and the commands doctor, weights and demo."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mattface
from mattface import cli, picture_io, weights
from mattface.cli import doctor
from mattface.cli.demo import contact_sheet, directions
from mattface.cuda_ops import precision
from mattface.errors import WeightsError
from mattface.methods import METHODS
from mattface.vocabulary import Picture


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


def test_doctor_says_what_is_here_and_what_to_type(
    capsys: pytest.CaptureFixture, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path / "empty"))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Not ready: no weights for detection and landmarks. Type: mattface weights pull embedded\n")
    assert f"mattface {mattface.__version__}" in said
    assert "mattface weights pull centerface" in said
    assert "upfirdn2d" in said
    assert not (tmp_path / "empty").exists()


def test_doctor_begins_with_its_verdict(need: Any, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    need("centerface", "face-mesh")
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("Ready: ")
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    assert doctor.devices()[0]["bf16"].startswith("slower than fp32")
    found = doctor.examine()
    found["packages"]["numpy"] = None
    assert doctor.obstacles(found) == ["the package numpy is missing. Type: pip install mattface"]


def test_doctor_json(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"][0]["device"] == "cpu"
    assert found["packages"]["torch"]
    assert {"chosen", "missing"} <= set(found["ops"]["bias_act"])
    assert {state["name"] for state in found["weights"]} >= {"centerface", "face-mesh"}
    assert set(found["parts"]) >= {"detection", "landmarks", "identity", "estimation"}
    assert {part["part"] for part in found["parts"]["estimation"]} == {"deep3d"}


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
    assert cli.main(["weights", "show", "mobilffhq"]) == 2
    assert "got 'mobilffhq'. Near: mobile-ffhq" in capsys.readouterr().err
    assert not weights.fetchable("arcface-r50") and weights.fetchable("vgg16")


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


def test_contact_sheet_shows_every_picture(tmp_path: Path) -> None:
    red, blue = (Picture(np.full((600, 300, 3), c, np.uint8)) for c in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(contact_sheet([{"source": red, "target": blue}, {"source": blue, "target": red}]))
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (sheet == colour).all(-1).sum() == 2 * 256 * 512
    pictures = {"photo": red, "photo 2": blue, "drawn": red, "drawn 2": blue}
    assert directions(pictures) == [("drawn", "drawn 2"), ("drawn 2", "drawn"), ("photo", "photo 2")]


def test_every_command_is_documented() -> None:
    actions = cli.parser()._subparsers._group_actions
    choices = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    expected = {
        "swap",
        "video",
        "live",
        "verify",
        "export",
        "sample",
        "invert",
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


@pytest.mark.slow
def test_demo_writes_a_sheet_and_says_how_it_went(need: Any, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    need(*weights.expand(["embedded"]))
    assert cli.main(["demo", "--out", str(tmp_path / "new" / "demo")]) == 0
    said = capfd.readouterr().out
    folder = tmp_path / "new" / "demo"
    sheet = folder / "contact-sheet.png"
    assert str(sheet) in said and len(said.splitlines()) < 20 and max(map(len, said.splitlines())) < 200
    for method in METHODS:
        assert re.search(rf"^{method} +(3 pictures, [0-9.]+ s each|left out: )", said, re.MULTILINE)
    reports = json.loads((folder / "report.json").read_text())
    assert (folder / "mattface-person-24-onto-person-21.png").exists() and len(list(folder.glob("*.png"))) > 6
    for report in (reports["mattface"][0], reports["mesh"][2]):
        assert report["device"].startswith("cuda" if cuda() else "cpu") and report["seconds"]
        assert "upfirdn2d" in str(report["ops"])
    assert picture_io.read(sheet).pixels.shape[0] > 1500


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()
