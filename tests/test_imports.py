"""Importing is free: a fresh interpreter loads little, writes nothing, opens no connection and compiles nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mattface

HEAVY = (
    "ai_edge_litert",
    "av",
    "c2pa",
    "cryptography",
    "cv2",
    "face_alignment",
    "imagecodecs",
    "insightface",
    "kornia",
    "onnx",
    "onnxscript",
    "openvino",
    "lpips",
    "matplotlib",
    "onnxruntime",
    "skimage",
    "tifffile",
    "torchvision",
)

WATCHED_IMPORT = """
import json, sys, time
import torch
events = []
watched = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove")
def hook(event, args):
    if event in watched:
        events.append([event, repr(args)])
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append([event, repr(args)])
sys.addaudithook(hook)
before = set(sys.modules)
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
loaded = sorted({{name.split(".")[0] for name in set(sys.modules) - before}})
print(json.dumps({{"seconds": seconds, "events": events, "loaded": loaded}}))
"""


def watch(statement: str, cwd: Path) -> dict:
    """Runs a statement in a fresh interpreter after `import torch`, and tells what it did."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT.format(statement=statement)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("statement", ["import mattface", "import mattface.cli", "import mattface.vocabulary"])
def test_import_touches_nothing(statement: str, tmp_path: Path) -> None:
    seen = watch(statement, tmp_path)
    assert seen["events"] == []
    assert not set(seen["loaded"]) & set(HEAVY)
    assert list(tmp_path.iterdir()) == []


def test_import_takes_less_than_a_third_of_a_second_beyond_torch(tmp_path: Path) -> None:
    """The best of three, since other work on the machine only ever adds."""
    assert min(watch("import mattface", tmp_path)["seconds"] for _ in range(3)) < 0.3


def test_the_watch_sees_what_it_is_there_for(tmp_path: Path) -> None:
    seen = watch("open('made', 'w').close(); import tifffile", tmp_path)
    assert [event for event, _ in seen["events"]] == ["open"]
    assert "tifffile" in seen["loaded"]


def test_import_works_without_torch_loaded_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import mattface; print(mattface.__version__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip()


def test_no_module_hides_a_function_of_the_front_door() -> None:
    """Importing mattface.NAME anywhere would put the module in the place of the function mattface.NAME."""
    assert [name for name in mattface.__all__ if importlib.util.find_spec(f"mattface.{name}")] == []
