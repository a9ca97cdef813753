"""Commercial use: who asks for it, what is left out and named, what is refused, at every entry point."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import StandIn, write_pair
from test_mattface_method import TINY

import mattface
from mattface import cli, edit, inversion, perception, pipeline, sampling, weights
from mattface.benchmarks.runner import read_candidate
from mattface.cli import doctor, moving, video
from mattface.errors import LicenceError, UsageError
from mattface.generate.named import load_generator
from mattface.methods import METHODS, fixed_chain, require_commercial
from mattface.methods import mattface as method
from mattface.parse import Parser
from mattface.weights import registry
from mattface.weights.licences import commercial_only, require, restriction
from mattface.weights.parts import Status, choose_permitted

CPU = torch.device("cpu")
FOUND = [
    Status("best", True, "", "for research"),
    Status("better", False, "not here"),
    Status("good", True),
]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATTFACE_COMMERCIAL", raising=False)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """mattface-ffhq has a card that makes it a default; gives the weights that are here, to be changed."""
    demo = weights.card("mattface-demo")
    made = replace(demo, name=method.TAUGHT, licence="for research", commercial_use=False,
                   groups=("default",), needs=("mobile-ffhq", "identity-resnet"))  # fmt: skip
    here = {method.TAUGHT, *made.needs}
    known = {**weights.cards(), method.TAUGHT: made}
    monkeypatch.setattr(registry, "cards", lambda: known)
    monkeypatch.setattr(weights, "cards", registry.cards)
    monkeypatch.setattr(weights, "present", lambda name: name in here)
    yield here


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that runs here and forbids commercial use stands before the outline of the mesh."""
    parts = [Status("bisenet", True, "", "for research"), Status("mesh", True)]
    load = lambda name, device, dtype: Parser(parts[0].part if name == "auto" else name)  # noqa: E731
    fakes = {
        kind: perception.Kind(kind, lambda: [Status("fake", True)],
                              lambda name, device, dtype: SimpleNamespace(name="fake", device=CPU))
        for kind in ("detector", "landmarks", "identity")
    }  # fmt: skip
    kinds = {**fakes, "parser": perception.Kind("parser", lambda: parts, load)}
    monkeypatch.setattr(perception, "KINDS", kinds)


# Asking


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("0", False), ("", False)])
def test_the_variable_asks_where_nobody_else_does(value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_COMMERCIAL", value)
    assert commercial_only() is wanted
    assert commercial_only(True) is True and commercial_only(False) is False


@pytest.mark.parametrize("value", ["yes", "2", "true", " 1"])
def test_another_value_of_the_variable_is_rejected(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MATTFACE_COMMERCIAL", value)
    with pytest.raises(UsageError, match=r"MATTFACE_COMMERCIAL must be 1 .* or 0; got"):
        mattface.load("mesh")
    assert cli.main(["doctor"]) == 2
    assert "MATTFACE_COMMERCIAL must be 1" in capsys.readouterr().err


# Cards


def test_a_restriction_is_the_licence_of_a_weight_or_of_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert restriction("centerface") == ""
    assert restriction("bisenet") == weights.card("bisenet").licence
    needy = replace(weights.card("mattface-demo"), needs=("centerface", "mobile-ffhq"))
    known = {**weights.cards(), "mattface-demo": needy}
    monkeypatch.setattr(registry, "cards", lambda: known)
    assert restriction("mattface-demo").startswith("it needs mobile-ffhq: Apache-2.0 by its author; but")


def test_a_file_is_known_by_its_hash_or_place_and_otherwise_noted(
    tmp_path: Path, own_cards: Path, cache: Path
) -> None:
    import hashlib

    data, card = b"tensors", 'purpose = "x"\nfile = "x.safetensors"\nlicence = "for research"\n'
    rest = 'commercial_use = false\norigin = "o"\nhow = "Ask."\n'
    digest = hashlib.sha256(data).hexdigest()
    (own_cards / "hashed.toml").write_text(f'name = "hashed"\n{card}{rest}sha256 = "{digest}"\n')
    (own_cards / "placed.toml").write_text(f'name = "placed"\n{card.replace("x.s", "y.s")}{rest}')
    for path in (tmp_path / "renamed.safetensors", tmp_path / "folder" / "any.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    cache.mkdir(parents=True)
    (cache / "y.safetensors").write_bytes(b"other")
    for given in ("hashed", tmp_path / "renamed.safetensors", tmp_path / "folder"):
        with pytest.raises(LicenceError, match=r"the weights hashed does not \(for research\)\. Take mine\."):
            require(str(given), "Take mine.")
    with pytest.raises(LicenceError, match="the weights placed"):
        require(str(cache / "y.safetensors"), "Take mine.")
    (tmp_path / "own.safetensors").write_bytes(b"mine")
    (note,) = require(str(tmp_path / "own.safetensors"), "Take mine.")
    assert "no card says" in note and "own.safetensors" in note


# Parts


def test_the_strongest_permitted_part_is_picked_and_a_named_one_never_replaced() -> None:
    assert choose_permitted("parser", FOUND) == "good"
    assert choose_permitted("parser", FOUND, "better") == "better"
    with pytest.raises(LicenceError, match=r"best \(parser\) does not \(for research\)\. Take better or good\."):
        choose_permitted("parser", FOUND, "best")
    with pytest.raises(LicenceError, match=r"best \(parser\) does not .* There is no other\."):
        choose_permitted("parser", FOUND[:1])


def test_perception_obeys_the_argument_and_the_variable(strict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert perception.load("parser").name == "bisenet"
    assert perception.load("parser", commercial=True).name == "mesh"
    monkeypatch.setenv("MATTFACE_COMMERCIAL", "1")
    assert perception.load("parser").name == "mesh"
    assert perception.load("parser", commercial=False).name == "bisenet"
    with pytest.raises(LicenceError, match=r"bisenet \(parser\)"):
        perception.load("parser", "bisenet")


def test_real_parts_say_what_restricts_them() -> None:
    said = {(kind, one.part): bool(one.restriction) for kind in perception.KINDS for one in perception.status(kind)}
    free = {part for part, restricted in said.items() if not restricted}
    assert free == {("detector", "centerface"), ("landmarks", "face-mesh"), ("identity", "resnet"),
                    ("parser", "visible"), ("parser", "mesh")}  # fmt: skip


# Methods


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if not one.commercial])
def test_a_method_that_forbids_it_is_refused(name: str) -> None:
    wanted = rf"the method {name} does not \(non-commercial research\)\. Take one of the methods .*mattface, mesh\."
    with pytest.raises(LicenceError, match=wanted):
        mattface.load(name, commercial=True)


def test_named_weights_that_forbid_it_are_refused() -> None:
    with pytest.raises(LicenceError, match=r"the weights psp-ffhq does not .*Leave them out\."):
        mattface.load("mattface", weights="psp-ffhq", commercial=True)
    with pytest.raises(LicenceError, match=r"the weights inswapper-128 .* Take one of the methods"):
        require_commercial("inswapper", "inswapper-128")
    assert require_commercial("mattface", "mattface-demo") == ()


def test_what_is_left_out_is_named_in_the_notes(strict: None) -> None:
    ours = pipeline.load("mesh", device="cpu", commercial=True)
    assert ours.describe()["parts"]["parser"] == "mesh"
    assert ours.notes == ("commercial use only: left out bisenet (parser)",)
    free = pipeline.load("mesh", device="cpu")
    assert free.describe()["parts"]["parser"] == "bisenet" and free.notes == ()


def test_nothing_left_out_is_said_too(strict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = perception.Kind("parser", lambda: FOUND[1:], lambda name, device, dtype: Parser(name))
    monkeypatch.setitem(perception.KINDS, "parser", parser)
    monkeypatch.setenv("MATTFACE_COMMERCIAL", "1")
    (note,) = mattface.load("mesh", device="cpu").notes
    assert note == "commercial use only: left out no part, all that are here allow it"


# The default of mattface


def test_as_long_as_its_card_is_no_default_the_demo_is() -> None:
    assert method.default_weights(False) == method.default_weights(True) == ("mattface-demo", ())


def test_the_taught_weights_are_the_default_where_all_is_here(taught: set[str]) -> None:
    name, (note,) = method.default_weights(False)
    assert name == "mattface-ffhq"
    assert note == ("weights mattface-ffhq: all that it needs is here; it forbids commercial use, for which "
                    "--commercial takes mattface-demo")  # fmt: skip


def test_for_commercial_use_the_demo_is_the_default_and_says_so(taught: set[str]) -> None:
    name, (note,) = method.default_weights(True)
    assert name == "mattface-demo"
    assert note == "weights mattface-demo: mattface-ffhq is left out, it forbids commercial use (for research)"


def test_what_the_taught_weights_lack_is_named(taught: set[str]) -> None:
    taught.discard("mobile-ffhq")
    name, (note,) = method.default_weights(False)
    assert name == "mattface-demo"
    assert "mobile-ffhq is not here. Type: mattface weights pull mobile-ffhq" in note


def test_the_builder_takes_the_default_and_notes_it(
    taught: set[str], strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    tiny = method.build_network(TINY)

    def network_of(tensors: Any, metadata: Any, name: str) -> Any:
        asked.append(name)
        return tiny

    monkeypatch.setattr(method, "network_of", network_of)
    monkeypatch.setattr(weights, "load_tensors", lambda name: ({}, {}))
    assert "all that it needs is here" in pipeline.load(device="cpu").notes[0]
    notes = pipeline.load(device="cpu", commercial=True).notes
    assert asked == ["mattface-ffhq", "mattface-demo"]
    assert notes[0].startswith("commercial use only") and "mattface-ffhq is left out" in notes[1]
    assert pipeline.load(device="cpu", weights="mattface-demo").notes == ()


# Generators


@pytest.mark.parametrize("name", ["mobile-ffhq", "stylegan2-ffhq"])
def test_fixed_generators_are_refused(name: str) -> None:
    with pytest.raises(LicenceError, match=rf"the weights {name} .* mattface-demo has one of its own"):
        load_generator(name, commercial=True)
    with pytest.raises(LicenceError, match=rf"the weights {name} .* mattface-demo draws then"):
        sampling.load(name, "cpu", commercial=True)


def test_a_sampler_falls_to_the_demo_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampling.load(None, "cpu", commercial=True)
    (note,) = sampler.notes
    assert sampler.weights == "mattface-demo"
    assert note.startswith("commercial use only: left out mobile-ffhq (Apache-2.0 by")
    assert note.endswith("; mattface-demo draws instead")
    monkeypatch.setattr(sampling, "_load", lambda name, where: sampler)
    monkeypatch.setattr(sampling.Sampler, "__call__", lambda self, seed, truncation: np.zeros((4, 4, 3), np.uint8))
    with pytest.warns(UserWarning, match="left out mobile-ffhq"):
        assert mattface.sample(3, commercial=True)[0].shape == (4, 4, 3)


def test_pictures_cannot_be_inverted_nor_codes_edited() -> None:
    with pytest.raises(LicenceError, match=r"the weights ffhq-encoder .*cannot be inverted for commercial use"):
        inversion.invert(np.zeros((8, 8, 3), np.uint8), commercial=True)
    with pytest.raises(LicenceError, match=r"the weights ffhq-directions .* leave the edit out"):
        edit.load_directions(commercial=True)
    with pytest.raises(LicenceError, match="the weights mobile-ffhq"):
        fixed_chain.build_fixed({}, {}, "mine", "off", CPU, torch.float32, Parser("mesh"), commercial=True)


# The command line


def refused(order: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says, on one line."""
    assert cli.main(order) == LicenceError.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("mattface: error: expected a part that allows commercial use") and said.count("\n") == 1
    return said


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_commands_refuse_in_one_line(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = ["--commercial"] if how == "flag" else []
    if how == "variable":
        monkeypatch.setenv("MATTFACE_COMMERCIAL", "1")
    pair = write_pair(tmp_path)
    files = ["-s", str(pair / "source.png"), "-t", str(pair / "target.png"), "-o", str(pair / "out.png")]
    assert "the method inswapper" in refused(["swap", *files, "--method", "inswapper", *flag], capsys)
    export = ["export", "--method", "alphaface", "-o", str(tmp_path / "a.onnx"), *flag]
    assert "the method alphaface " in refused(export, capsys)
    invert = ["invert", str(pair / "source.png"), "-o", str(tmp_path / "a.safetensors"), *flag]
    assert "the weights ffhq-encoder" in refused(invert, capsys)
    sample = ["sample", "--out", str(tmp_path), *flag]
    assert "the weights ffhq-directions" in refused([*sample, "--edit", "yaw=5"], capsys)
    assert "the weights stylegan2-ffhq" in refused([*sample, "--weights", "stylegan2-ffhq"], capsys)
    bench = ["bench", "quality", "--triplets", "nowhere", "--methods", "inswapper", *flag]
    assert "the method inswapper" in refused(bench, capsys)


def test_swap_hands_the_switch_on_and_prints_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Noted(StandIn):
        def swap(self, *args: Any, **options: Any) -> Any:
            result = super().swap(*args, **options)
            result.report["notes"].append("commercial use only: left out bisenet (parser)")
            return result

    made, pair = Noted(), write_pair(tmp_path)
    monkeypatch.setattr(mattface, "load", made.load)
    order = ["swap", "-s", str(pair / "source.png"), "-t", str(pair / "target.png"), "-o", str(pair / "out.png")]
    assert cli.main([*order, "--report", str(pair / "r.json"), "--commercial"]) == 0
    assert made.asked["commercial"] is True
    assert capsys.readouterr().err.count("left out bisenet (parser)") == 1
    assert "left out bisenet" in json.loads((pair / "r.json").read_text())["notes"][0]


@pytest.mark.parametrize("command", ["video", "live"])
def test_moving_pictures_hand_the_switch_on(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(name: str, **options: Any) -> Any:
        asked.update(options)
        raise LicenceError("far enough")

    monkeypatch.setattr(moving.loading, "load", load)
    given = ["-s", "a.png", *(["-t", "b.mp4", "-o", "c.mp4"] if command == "video" else [])]
    args = cli.parser().parse_args([command, *given, "--commercial"])
    with pytest.raises(LicenceError, match="far enough"):
        moving.build(args, {})
    assert asked["commercial"] is True
    if command == "video":
        assert video._work(args)["commercial"] is True


def test_notes_of_a_swapper_are_said_and_reported(strict: None, capsys: pytest.CaptureFixture[str]) -> None:
    ours = pipeline.load("mesh", device="cpu", commercial=True)
    moving.say_notes(moving.Status(quiet=False), ours)
    assert capsys.readouterr().err == "mattface: note: commercial use only: left out bisenet (parser)\n"
    assert moving.parts_of(ours)["notes"] == list(ours.notes)


def test_sample_says_what_draws_instead(
    tmp_path: Path, need: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    need("mattface-demo")
    assert cli.main(["sample", "--out", str(tmp_path), "--device", "cpu", "--commercial"]) == 0
    said = capsys.readouterr()
    assert "left out mobile-ffhq" in said.err and said.err.count("\n") == 1 and "0.png" in said.out


def test_a_benchmark_hands_the_switch_on() -> None:
    assert read_candidate("mesh:coarse=2", True).options == (("commercial", True), ("coarse", 2))
    assert read_candidate("mesh").options == ()


def test_doctor_has_the_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.examine()
    assert found["methods"]["mesh"]["commercial"] and not found["methods"]["inswapper"]["commercial"]
    lines = doctor.lines(found)
    assert any(line.split()[:3] == ["parsing", "bisenet", "no"] for line in lines)
    assert any(line.split()[:2] == ["inswapper", "no"] for line in lines)
    assert sum("commercial" in line.split() for line in lines) == 2
    for part in found["parts"]["detection"]:
        part |= {"usable": part["part"] == "scrfd", "note": ""}
    assert not any("detection" in sentence for sentence in doctor.obstacles(found))
    assert any("detection" in sentence for sentence in doctor.obstacles(found | {"commercial_only": True}))
