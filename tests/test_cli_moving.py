"""The commands video and live, with told perception: what they make, say and report, also when they are ended."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from cameras import Plug
from clips import FACE, Told, clip, frames, still, swapper
from PIL import Image

from mattface import cli
from mattface.cli import moving
from mattface.errors import NoFaceError
from mattface.realtime import loop as loop_module
from mattface.realtime.faces import Cast

pytest.importorskip("av", reason="av is not installed")


@pytest.fixture
def told_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """The command line with told perception; alice.png is a source."""
    told = Told(FACE)

    def build(args: Any, options: dict[str, Any], dtype: str | None = None) -> Any:
        ours = swapper(told)
        return ours, Cast(ours, args.source or None, args.map)

    monkeypatch.setattr(moving, "build", build)
    Image.fromarray(still(7)).save(tmp_path / "alice.png")
    return told


@pytest.fixture
def alice(told_cli: Told, tmp_path: Path) -> str:
    """The source picture, where only its name is wanted."""
    return str(tmp_path / "alice.png")


def test_the_command_converts_and_reports(told_cli: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = clip(tmp_path / "in.mp4", 6)
    given = ["video", "-s", str(tmp_path / "alice.png"), "-t", str(source), "-o", str(tmp_path / "out.mp4"),
             "--preset", "ultrafast"]  # fmt: skip
    assert cli.main([*given, "--report", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr()
    assert "6 frames, 6 of 6 with faces swapped" in said.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["whole"] and report["method"] == "mesh" and report["parts"]["landmarks"] == "told"
    assert report["latency_ms"]["p95"] is not None and report["dropped"] == {"track": 0, "swap": 0, "show": 0}
    assert cli.main(given) == 3 and "the file exists" in capsys.readouterr().err
    told_cli.faces = []
    assert cli.main([*given, "--overwrite"]) == NoFaceError.exit_code


def test_ctrl_c_leaves_a_playable_file_and_says_how_to_go_on(
    told_cli: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, show = clip(tmp_path / "in.mp4", 16), loop_module.Loop._show_one

    def interrupted(self: Any, shot: Any) -> None:
        show(self, shot)
        if shot.index == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # impatience must not hurt

    monkeypatch.setattr(loop_module.Loop, "_show_one", interrupted)
    given = ["video", "-s", str(tmp_path / "alice.png"), "-t", str(source), "-o", str(tmp_path / "out.mp4"),
             "--preset", "ultrafast"]  # fmt: skip
    assert cli.main(given) == 130
    assert "--resume" in capsys.readouterr().err and len(frames(tmp_path / "out.mp4")) == 8
    monkeypatch.setattr(loop_module.Loop, "_show_one", show)
    assert cli.main([*given, "--resume"]) == 0 and len(frames(tmp_path / "out.mp4")) == 16


def test_the_command_plays_records_and_reports(alice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = clip(tmp_path / "in.mp4", 12), tmp_path / "out.mp4"
    given = ["live", "-s", alice, "--input", str(source), "--output", str(target)]
    assert cli.main([*given, "--report", str(tmp_path / "r.json")]) == 0
    assert "fps, latency p50" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames"]["captured"] == 12 and set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert report["frames"]["shown"] + sum(report["dropped"].values()) == 12
    assert len(frames(target)) == report["frames"]["shown"] > 0
    assert cli.main(given) == 3 and "the file exists" in capsys.readouterr().err
    assert cli.main(["live", "-s", alice, "--loop", "--output", str(tmp_path / "o.mp4")]) == 2


def test_ctrl_c_ends_a_live_run_with_a_finished_file(
    alice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = clip(tmp_path / "in.mp4", 25), tmp_path / "out.mp4"
    given = ["live", "-s", alice, "--input", str(source), "--loop", "--output", str(target), "--watch"]
    press = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    press.start()
    try:
        assert cli.main(given) == 0
    finally:
        press.cancel()  # or it would end the whole run of tests
    assert "stopping" in capsys.readouterr().err and len(frames(target)) > 5
    assert cli.main([*given, "--overwrite", "--seconds", "0.8", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_missing_camera_is_said_and_leaves_nothing(
    alice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug = Plug()
    plug.here = False
    monkeypatch.setattr("mattface.realtime.capture.open_camera", lambda *_: plug)
    assert cli.main(["live", "-s", alice, "--camera", "3", "--output", str(tmp_path / "out.mp4")]) == 3
    assert "camera 3: expected a camera" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alice.png"]


def test_pairs_are_read_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["live", "--map", "bob.jpg"])
    assert "REFERENCE=SOURCE" in capsys.readouterr().err
    assert cli.main(["live", "--input", __file__, "--output", "x.mp4"]) in (2, 3)
