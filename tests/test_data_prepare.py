"""mattface data prepare: what is kept, what is dropped and why, captions, and going on after an interruption."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mattface.cli import main
from mattface.errors import InputError, UsageError
from mattface.training.data import prepare as module
from mattface.training.data.captions import Service, accept, from_file
from mattface.training.data.catalogue import catalogue
from mattface.training.data.fingerprints import Fingerprints, fingerprint
from mattface.training.data.photo import Preparer, Settings
from mattface.training.data.prepare import prepare
from mattface.training.data.records import read_caption, read_mask, read_mesh
from mattface.training.data.report import describe_work


class Model(HTTPServer):
    """A vision model as far as captions go: notes requests and gives prepared replies, the last for ever."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers, self.asked = answers, []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Answering(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(200 if isinstance(answer, str) else answer)
        self.end_headers()
        if isinstance(answer, str):
            self.wfile.write(json.dumps({"choices": [{"message": {"content": answer}}]}).encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model(["A frontal face in front of a grey wall, without glasses."])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def photos(tmp_path: Path, need: Any, astronaut: np.ndarray, hopper: np.ndarray) -> Path:
    need("centerface", "face-mesh")
    root = tmp_path / "photos"
    (root / "eileen").mkdir(parents=True)
    Image.fromarray(astronaut).save(root / "eileen" / "one.png")
    Image.fromarray(astronaut).resize((480, 480)).save(root / "eileen" / "two.jpg", quality=70)
    Image.fromarray(hopper).save(root / "grace.jpg", quality=95)
    Image.fromarray(hopper).resize((64, 75)).save(root / "tiny.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(root / "wall.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (root / "readme.txt").write_text("hello")
    return root


SETTINGS = Settings(size=128)


def test_photos_become_training_data_and_the_rest_is_explained(photos, tmp_path):
    report = prepare(catalogue(photos), tmp_path / "out", SETTINGS)
    assert (report["photos"], report["kept"], report["identities"]) == (6, 2, 2)
    dropped = {reason: [n.split(":")[0] for n in names] for reason, names in report["dropped"].items()}
    assert dropped["duplicate"] == ["eileen/two.jpg"]
    assert dropped["cannot be read"] == ["broken.jpg"]
    assert dropped["no face"] == ["wall.png"]
    assert sum(len(n) for n in dropped.values()) == 4  # and the tiny one: too small, or no face in it
    found = catalogue(tmp_path / "out")
    assert [(r.name, r.identity) for r in found.records] == [("eileen_one", "eileen"), ("grace", "grace")]
    mask, mesh = read_mask(found.records[1], 128), read_mesh(found.records[1], 128)
    centre = mesh[:, :2].mean(0).astype(int)
    assert mask[centre[1], centre[0]] == 1 and mask[0, 0] == 0
    assert "2 of 6 photos kept, 2 identities" in describe_work(report, tmp_path)


def test_an_interrupted_preparation_goes_on(photos, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    original = Preparer.__call__

    def fails_at_the_third(self, record, source):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(record.name)
        return original(self, record, source)

    monkeypatch.setattr(Preparer, "__call__", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(catalogue(photos), out, SETTINGS)
    with pytest.raises(InputError, match=r"was interrupted. Type the same mattface data prepare again"):
        catalogue(out)
    with (out / "prepared.jsonl").open("a") as journal:
        journal.write('{"name": "half a li')
    seen = []

    def watched(self, record, source):
        seen.append(record.name)
        return original(self, record, source)

    monkeypatch.setattr(Preparer, "__call__", watched)
    report = prepare(catalogue(photos), out, SETTINGS)
    assert len(seen) == 4 and not set(seen) & set(done)
    assert report == prepare(catalogue(photos), tmp_path / "at-once", SETTINGS)
    with pytest.raises(InputError, match="begun with"):
        prepare(catalogue(photos), out, Settings(size=64))


def test_captions_are_asked_for_and_long_ones_are_rejected(photos, tmp_path, model, monkeypatch):
    monkeypatch.setenv("MATTFACE_CAPTION_KEY", "secret")
    long = "It is a face. " + "very " * 80 + "long."
    model.answers = [long, long, "A short one."]
    report = prepare(catalogue(photos), tmp_path / "out", SETTINGS, Service(model.url, "looker", words=70))
    assert report["captions"] == {"written": 1, "missing": ["eileen_one"]}
    captions = {r.name: read_caption(r) for r in catalogue(tmp_path / "out").records}
    assert captions == {"eileen_one": "", "grace": "A short one."}
    path, key, body = model.asked[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "looker")
    text, image = body["messages"][0]["content"]
    assert "Only 70 words are allowed." in text["text"]
    assert base64.b64decode(image["image_url"]["url"].split(",")[1]).startswith(b"\x89PNG")
    assert "not be longer than 70 words" in model.asked[1][2]["messages"][0]["content"][0]["text"]
    assert len(model.asked) == 3
    prepare(catalogue(photos), tmp_path / "out", SETTINGS, Service(model.url, "looker", prompt="facechanger"))
    assert len(model.asked) == 4, "only the picture without a caption is asked for again"
    question = model.asked[3][2]["messages"][0]["content"][0]["text"]
    assert "pose, expression, facial attribute, and background" in question
    with pytest.raises(UsageError, match="caption prompt must be one of alphaface, facechanger"):
        Service(model.url, "looker", prompt="simswap")


def test_a_failing_caption_leaves_the_picture_and_a_dead_service_stops(photos, tmp_path, model, monkeypatch):
    model.answers = [500, "A face."]
    report = prepare(catalogue(photos), tmp_path / "out", SETTINGS, Service(model.url, "looker"))
    assert report["captions"] == {"written": 1, "missing": ["eileen_one"]}
    monkeypatch.setattr(module, "FAILURES", 1)
    model.answers = [503]
    with pytest.raises(InputError, match=r"HTTPError.*503.*--captions FILE.*the same command goes on"):
        prepare(catalogue(photos), tmp_path / "out", SETTINGS, Service(model.url, "looker"))
    with pytest.raises(InputError, match="must be an http"):
        Service("file:///etc", "x")("a", b"")


def test_captions_from_a_file(tmp_path):
    lines, table = tmp_path / "c.tsv", tmp_path / "c.json"
    lines.write_text("a\tone two three\nb\tfour\n")
    table.write_text(json.dumps({"a": "one two three"}))
    for path in (lines, table):
        captioner = from_file(path, words=2)
        assert captioner("a", b"") == "" and from_file(path, words=3)("a", b"") == "one two three"
        assert captioner("z", b"") == ""
    lines.write_text("no tab here")
    with pytest.raises(InputError, match="NAME<tab>TEXT"):
        from_file(lines)


def test_a_caption_of_more_than_seventy_words_is_rejected_whole():
    assert accept("one  two three", 3) == "one two three"
    assert accept("word " * 70) != "" and accept("word " * 71) == ""


def test_copies_have_near_fingerprints_and_strangers_have_not(astronaut, hopper):
    seen = Fingerprints()
    seen.add("first", fingerprint(astronaut[:256, 128:384]))
    copy = Image.fromarray(astronaut[:256, 128:384]).resize((90, 90)).resize((200, 200))
    assert seen.near(fingerprint(np.asarray(copy))) == "first"
    assert seen.near(fingerprint(hopper[50:300, 100:350])) is None


def test_nothing_to_prepare_is_rejected(tmp_path, need):
    need("centerface", "face-mesh")
    with pytest.raises(InputError, match="must hold pictures"):
        prepare(catalogue(tmp_path), tmp_path / "out", SETTINGS)
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(InputError, match=r"none of 1 photos.*no face 1"):
        prepare(catalogue(tmp_path), tmp_path.parent / "out", SETTINGS)


def test_the_command_prepares_and_shows(photos, tmp_path, capsys):
    captions = tmp_path / "c.json"
    captions.write_text(json.dumps({"grace": "An officer with glasses."}))
    out = str(tmp_path / "out")
    assert (
        main(["data", "prepare", str(photos), out, "--size", "64", "--smallest", "64", "--captions", str(captions)])
        == 0
    )
    assert "captions: 1 written, 1 missing (eileen_one)" in capsys.readouterr().out
    assert main(["data", "show", out]) == 0
    assert "triplets (img, mask, text): 2 pictures, every picture its own identity, masks" in capsys.readouterr().out
    assert main(["data", "prepare", str(photos), out, "--captions", "x", "--caption-url", "y"]) == 2
