"""The measuring contract, and the yardstick of quality: who is evaluated, what is asked, how swaps are compared."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mattface import cli, picture_io
from mattface.benchmarks import cases as made_cases
from mattface.benchmarks import common, portraits, quality, report, runner, sheets, triplets
from mattface.errors import InputError, NoFaceError, UsageError
from mattface.examples import example_pair


def test_warm_up_is_not_counted() -> None:
    waits = iter([0.2, 0.01, 0.05, 0.02])
    found = common.measure(lambda: time.sleep(next(waits)), warm_up=1, runs=3)
    assert 0.02 <= found["median"] < 0.05 <= found["slowest"] < 0.2
    assert found["fastest"] <= found["median"]
    assert found["runs"] == 3


def test_numbers_are_saved_with_where_they_come_from(tmp_path: Path) -> None:
    common.save({"a": 1}, tmp_path / "new" / "n.json")
    saved = json.loads((tmp_path / "new" / "n.json").read_text())
    assert saved["a"] == 1
    assert {"commit", "torch", "processor", "threads", "gpu"} <= set(saved["surroundings"])


def test_the_example_pair_ships_with_its_packages() -> None:
    pair = example_pair()
    assert set(pair) == {"hopper", "astronaut"}
    assert all(path.stat().st_size > 10_000 for path in pair.values())


def test_candidates_have_options_of_their_own() -> None:
    plain = runner.read_candidate("mesh")
    off = runner.read_candidate("mattface:detail=off:weights=1e3:levels=2:share=0.5:fast=true")
    assert (plain.name, plain.method, plain.options) == ("mesh", "mesh", ())
    wanted = {"detail": "off", "weights": "1e3", "levels": 2, "share": 0.5, "fast": True}
    assert off.method == "mattface" and dict(off.options) == wanted
    with pytest.raises(UsageError, match="mattface:detail=off"):
        runner.read_candidate("mattface:detail")


class Counting:
    """An evaluation whose results are the numbers of its cases."""

    def order(self) -> list[int]:
        return [3, 1, 0, 2]

    def outcomes(self, swapper: Any, cases: Sequence[int], shown: frozenset[int]) -> Iterator[runner.Outcome]:
        for q in cases:
            yield runner.Outcome({"q": q, "who": swapper}, np.zeros((1, 1, 3), np.uint8) if q in shown else None)

    def given(self, case: int) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True)
class Named(runner.Candidate):
    """A candidate that loads nothing."""

    def load(self, device: str) -> Any:
        return self.name


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_outcomes_come_back_in_order_whoever_worked(workers: int) -> None:
    found = runner.run_cases(Counting(), Named("a", "a"), "cpu", workers, [2])
    assert [one.row for one in found] == [{"q": q, "who": "a"} for q in range(4)]
    assert [one.picture is not None for one in found] == [False, False, True, False]


def test_pairs_are_different_people_and_everybody_takes_part() -> None:
    pairs = portraits.choose_pairs(36, 100, 1)
    assert len(pairs) == len(set(pairs)) == 100 and all(s != t for s, t in pairs)
    assert {t for _, t in pairs} == set(range(36)) and pairs == portraits.choose_pairs(36, 100, 1)
    assert len(portraits.choose_pairs(3, 100, 0)) == 6


def test_only_evaluation_people_are_examined(tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / f"p{k}.jpg").touch()
    chosen = made_cases.evaluation_portraits(tmp_path)
    assert chosen and all(zlib.crc32(path.stem.encode()) % 4 == 0 for path in chosen)
    with pytest.raises(InputError, match="at least two"):
        made_cases.evaluation_portraits(tmp_path / "..")


def test_questions_cover_every_combination_alike() -> None:
    asked = Counter(made_cases.case_of(n) for n in range(120))
    assert {(q.yaw, q.light, q.occluder) for q in asked} == set(
        product(made_cases.YAWS, set(made_cases.LIGHTS), set(made_cases.OCCLUDERS))
    )
    assert Counter(made_cases.case_of(n).yaw for n in range(120)) == dict.fromkeys(made_cases.YAWS, 40)
    assert made_cases.case_from_notes(("a", "b", *made_cases.case_of(38).notes)) == made_cases.case_of(38)
    with pytest.raises(InputError, match="bench triplets"):
        made_cases.case_from_notes(("a", "b"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases about three people who do not exist, none of them about light."""
    pytest.importorskip("numba", reason="numba is not installed: pip install mattface[train]")
    from studio_head import portrait, synthetic_model

    from mattface.training.studio.people import build
    from mattface.training.studio.stream import write_shards

    studio = build([(f"p{k}", *portrait(256, 6.0 * k, k)) for k in range(3)], synthetic_model(), size=192, side=64)
    make, folder = made_cases.CaseMaker(studio, 96), tmp_path_factory.mktemp("cases")
    chosen = [0, 1, 2, 12, 26, 36]
    write_shards(lambda seed: make(chosen[seed]), folder, len(chosen), 3)  # type: ignore[arg-type]
    return folder


class Oracle:
    """Gives the ground truth, gives the target, or finds no face."""

    notes = ("told once",)

    def __init__(self, cases: triplets.Triplets, answer: str) -> None:
        made = [cases.triplet(q) for q in cases.order()]
        self.known = {t.target.tobytes(): getattr(t, answer) for t in made} if answer else {}
        self.mattes = {t.target.tobytes(): t.matte for t in made}

    def prepare(self, source: np.ndarray) -> None:
        return None

    def swap(self, identity: None, target: np.ndarray, measure: bool) -> SimpleNamespace:
        key = target.tobytes()
        if key not in self.known:
            raise NoFaceError("expected a face in the target; found none.")
        return SimpleNamespace(image=self.known[key], matte=self.mattes[key], report={"seconds": {"swap": 0.5}})


def answers(folder: Path, answer: str) -> list[dict[str, Any]]:
    """Rows of an oracle."""
    cases = triplets.Triplets(folder)
    oracle: Any = Oracle(cases, answer)
    return [one.row for one in cases.outcomes(oracle, cases.order(), frozenset())]


def test_the_truth_gets_full_marks_and_the_target_does_not(shards: Path, need: Callable[..., None]) -> None:
    need("centerface")
    pytest.importorskip("onnx", reason="onnx is not installed")
    best, untouched, blind = (answers(shards, answer) for answer in ("swap", "target", ""))
    assert sorted(row["yaw"] for row in best) == [0, 0, 0, 30, 60, 60]
    assert {row["occluder"] for row in best} == {"glasses", "hand", "microphone", "fringe"}
    for row, low, none in zip(best, untouched, blind, strict=True):
        assert (row["psnr"], row["features"], row["light"], row["clipped more"]) == (99, 0, 0, 0)
        assert row["structure"] == pytest.approx(0, abs=1e-6) and row["kept"] > 98 and row["found"] == 1
        assert low["psnr"] == low["target psnr"] < 45 and low["features"] == low["target features"] > 0
        assert none["found"] == 0 and none["psnr"] == low["psnr"] and np.isnan(none["seconds"])


def test_things_before_the_face_are_told_apart_from_it(shards: Path) -> None:
    cases = triplets.Triplets(shards)
    for q in cases.order():
        made = cases.triplet(q)
        before = triplets.before_face(made)
        assert before.max() > 0.7 and (before <= made.occluder).all()
        assert (made.matte[made.occluder > 0.99] < 0.02).all()


def test_shards_of_another_kind_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bench triplets"):
        triplets.Triplets(tmp_path)


def test_the_table_compares_with_the_baseline_on_the_same_questions() -> None:
    numbers = [report.Number("a", "height"), report.Number("r", "ratio", ratio=True)]
    rows = {"mesh": [{"a": k, "r": 2.0} for k in range(8)], "mine": [{"a": k + 0.5, "r": 1.0} for k in range(8)]}
    made = {n: report.summarise(own, None if n == "mesh" else rows["mesh"], numbers) for n, own in rows.items()}
    assert made["mine"]["a"]["against"]["low"] == made["mine"]["a"]["against"]["high"] == 0.5
    assert made["mine"]["r"]["against"]["mean"] == pytest.approx(0.5) and "against" not in made["mesh"]["a"]
    text = report.table("portraits", {"all": made}, numbers, "mesh")
    assert "minus mesh: +0.5 [0.5, 0.5]" in text and "times mesh: 0.5 [0.5, 0.5]" in text
    assert report.plain([{"a": float("nan"), "b": "x"}]) == [{"a": None, "b": "x"}]


def test_earlier_rows_count_only_for_the_same_questions() -> None:
    earlier = {"triplets": {"questions": ["s/1", "s/2"], "methods": {"mesh": {"rows": [{"a": 1}, {"a": 2}]}}}}
    assert quality.reuse_rows(earlier, "triplets", {"questions": ["s/2"]}, "questions") == {"mesh": [{"a": 2}]}
    assert quality.reuse_rows(earlier, "portraits", {"pairs": []}, "pairs") == {}
    with pytest.raises(UsageError, match="same triplets"):
        quality.reuse_rows(earlier, "triplets", {"questions": ["s/2", "s/3"]}, "questions")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["quality"], 2),
        (["quality", "--triplets", "nowhere", "--methods", "mesh,mesh"], 2),
        (["quality", "--triplets", "nowhere", "--methods", "mesh:a"], 2),
        (["quality", "--triplets", "nowhere", "--methods", "mesh", "--earlier", "no.json"], 3),
        (["quality", "--triplets", "nowhere", "--methods", "mesh:wide=2"], 2),
        (["quality", "--portraits", "nowhere", "--scoring", "nothing.onnx"], 3),
        (["triplets", "--out", "nowhere"], 3),
        (["speed"], 2),
    ],
)
def test_bad_orders_end_in_one_line(arguments: list[str], code: int, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bench", *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("mattface: error: ") and error.count("\n") == 1
    assert not Path("nowhere").exists()


def test_quality_walks_from_order_to_report(
    shards: Path, tmp_path: Path, need: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("centerface")
    pytest.importorskip("onnx", reason="onnx is not installed")
    cases = triplets.Triplets(shards, 4)
    oracles = {"mesh": Oracle(cases, "target"), "mine": Oracle(cases, "swap")}
    monkeypatch.setattr(runner, "load", lambda method, **_: oracles[method])
    order = ["bench", "quality", "--methods", "mine,mesh", "--triplets", str(shards), "--questions", "4"]
    out = ["--out", str(tmp_path / "r.json"), "--sheet", str(tmp_path / "s.png"), "--rows", "2"]
    assert cli.main([*order, *out]) == 0
    saved = json.loads((tmp_path / "r.json").read_text())
    mine = saved["triplets"]["methods"]["mine"]
    assert saved["baseline"] == "mesh" and len(mine["rows"]) == 4 and saved["notes"] == ["told once"]
    assert mine["summary"]["all"]["psnr"]["against"]["low"] > 0
    assert picture_io.read(tmp_path / "s-triplets.png").pixels.shape[1] == 5 * sheets.TILE
    again = ["--earlier", str(tmp_path / "r.json"), "--out", str(tmp_path / "again.json")]
    monkeypatch.setattr(runner, "load", None)  # nothing is left to swap
    assert cli.main([*order, *again]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["triplets"] == saved["triplets"]


def test_missing_heads_of_lpips_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mattface.training.losses.networks.loading.load_perceptual", lambda name, device: (None, None))
    with pytest.raises(InputError, match="Type: mattface weights pull lpips-vgg"):
        triplets.lpips_distance(tmp_path / "vgg16.pth")


def test_the_benchmark_is_called_by_its_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["quality", "--help"])
    with pytest.raises(SystemExit):
        quality.main()
    assert capsys.readouterr().out.startswith("usage: mattface bench quality ")
