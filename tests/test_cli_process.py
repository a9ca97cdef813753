"""The command as a process of its own: how it is started, how fast, and what signals and closed pipes leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in import write_pair


def environment() -> dict[str, str]:
    """Of child processes; asked for in tests, when the folder of provenance is that of the tests."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def test_the_module_and_the_script_are_the_command(tmp_path: Path) -> None:
    for command in ([sys.executable, "-m", "mattface"], [str(Path(sys.executable).parent / "mattface")]):
        done = subprocess.run(
            [*command, "swap", "-s", "a.png", "-t", "b.png", "-o", "c.png"],
            capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120,
        )  # fmt: skip
        assert done.returncode == 3
        assert done.stderr.startswith("mattface: error: a.png: expected a picture file")


def test_help_is_quick_because_it_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys\nfrom mattface import cli\ncli.parser().format_help()\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_half_written(tmp_path: Path, number: int, code: int) -> None:
    """The process is stopped while its temporary file lies in the folder."""
    pair = write_pair(tmp_path)
    waiting = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job starts with it ignored
        "sys.path.insert(0, sys.argv.pop(1))\n"
        "import mattface, stand_in\n"
        "from mattface.cli import main\n"
        "mattface.load = stand_in.StandIn().load\n"
        "os.fsync = lambda _: time.sleep(60)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    files = ["-s", str(pair / "source.png"), "-t", str(pair / "target.png"), "-o", str(pair / "out.png")]
    process = subprocess.Popen(
        [sys.executable, "-c", waiting, str(Path(__file__).parent), "swap", *files],
        env=environment(),
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
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1)
