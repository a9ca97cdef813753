"""mattface bench quality: how well methods swap people nobody trained on, each beside the baseline on the same pairs.

    mattface bench quality --methods mesh,mattface,mattface:detail=off --portraits DIR --scoring FILE.onnx \\
        --triplets DIR --out report.json --sheet sheet.png

Portraits of the evaluation people only. The scoring network is an ONNX face recognition network that no method trains
with. Triplets come from `mattface bench triplets`. Methods may have options: METHOD:OPTION=VALUE:...; the options
weights and dtype are those of `mattface.load`. Differences are to "mesh" if it is among the methods, else to the first.

Blur earns PSNR, light and seam; it costs octave energy and feature distance: read them together. Intervals are
bootstraps over pairs; people take part in several pairs, so they are a little too narrow.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mattface.benchmarks import portraits, triplets
from mattface.benchmarks.common import save
from mattface.benchmarks.report import Number, Row, plain, summarise, table
from mattface.benchmarks.runner import Candidate, Evaluation, Outcome, read_candidate, run_cases
from mattface.benchmarks.sheets import sheet
from mattface.errors import InputError, UsageError

BASELINE = "mesh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("--methods", default="mesh,mattface", metavar="NAME,NAME:OPTION=VALUE", help="comma separated")
    parser.add_argument("--portraits", type=Path, metavar="DIR", help="folder of portraits")
    parser.add_argument("--scoring", type=Path, metavar="FILE.onnx", help="scoring network, for --portraits")
    parser.add_argument("--pairs", type=int, default=100, metavar="N", help="pairs of portraits (default: 100)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the choice of pairs (default: 1)")
    parser.add_argument("--triplets", type=Path, metavar="DIR", help="folder of shards")
    parser.add_argument("--questions", type=int, metavar="N", help="some N triplets only, always the same")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="torchvision's VGG16 weights: measure LPIPS too")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="default: auto")
    parser.add_argument("--commercial", action="store_true", default=None,
                        help="pick only parts whose licences allow commercial use; says what is left out")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--earlier", type=Path, metavar="FILE.json", help="take what it has measured already")
    parser.add_argument("--out", type=Path, default=Path("runs/quality.json"), metavar="FILE.json")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="contact sheets: FILE-portraits, FILE-triplets")
    parser.add_argument("--rows", type=int, default=12, metavar="N", help="rows of a contact sheet (default: 12)")


def run(args: argparse.Namespace) -> None:
    """Measures, prints and saves."""
    if (args.portraits is None) != (args.scoring is None) or not (args.portraits or args.triplets):
        raise UsageError("expected --portraits DIR with --scoring FILE, --triplets DIR, or both.")
    if min(args.pairs, args.workers, args.rows, args.questions or 1) < 1:
        raise UsageError("expected --pairs, --workers, --rows and --questions of at least 1.")
    asked = [read_candidate(name, args.commercial) for name in args.methods.split(",")]
    if len({who.name for who in asked}) < len(asked):
        raise UsageError(f"expected every method once; got {args.methods}.")
    earlier = {} if args.earlier is None else read(args.earlier)
    parts = [part for part in ("portraits", "triplets") if getattr(args, part) is not None]
    notes: dict[str, None] = {}
    for who in asked:
        if not all(who.name in earlier.get(part, {}).get("methods", {}) for part in parts):
            notes |= dict.fromkeys(who.load(args.device).notes)  # what is missing is missed now, not after an hour
    report: dict[str, Any] = {"seed": args.seed, "baseline": baseline_of([who.name for who in asked])}
    report["notes"] = list(notes)
    if args.portraits is not None:
        evaluation = portraits.Portraits(args.portraits, args.scoring, args.pairs, args.seed)
        described = portraits.describe_cases(evaluation)
        rows = evaluate(evaluation, asked, args, reuse_rows(earlier, "portraits", described, "pairs"), "portraits")
        groups = {"all": rows}
        report["portraits"] = described | compare_methods(groups, rows, portraits.NUMBERS, "held-out portraits")
        save(report, args.out)
    if args.triplets is not None:
        cases = triplets.Triplets(args.triplets, args.questions, args.lpips)
        described = triplets.describe_cases(cases)
        rows = evaluate(cases, asked, args, reuse_rows(earlier, "triplets", described, "questions"), "triplets")
        groups = triplets.group_rows(rows)
        report["triplets"] = described | compare_methods(groups, rows, triplets.NUMBERS, "exact triplets")
    print("\n".join([*notes, *(note for part in parts for note in report[part]["notes"])]))
    save(report, args.out)
    print(args.out.resolve())


def read(path: Path) -> dict[str, Any]:
    """An earlier report.

    Raises:
        InputError: no such file, or something else.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"expected an earlier report; {path}: {error}. Leave --earlier out.") from error
    return report


def reuse_rows(earlier: dict[str, Any], part: str, described: dict[str, Any], key: str) -> dict[str, list[Row]]:
    """Method -> rows of an earlier report about the cases of this run.

    Args:
        earlier: the report; empty for none.
        part: "portraits" or "triplets".
        described: the cases of this run.
        key: of `described`, the list of cases.

    Raises:
        UsageError: the earlier report lacks one of them.
    """
    if part not in earlier:
        return {}
    index = {json.dumps(case): k for k, case in enumerate(earlier[part][key])}
    missing = [case for case in described[key] if json.dumps(case) not in index]
    if missing:
        raise UsageError(
            f"expected an earlier report about the same {part}; it lacks {missing[0]}. Leave --earlier out."
        )
    chosen = [index[json.dumps(case)] for case in described[key]]
    return {name: [found["rows"][k] for k in chosen] for name, found in earlier[part]["methods"].items()}


def baseline_of(names: Iterable[str]) -> str:
    """Name of the method that the others are compared with."""
    listed = list(names)
    return BASELINE if BASELINE in listed else listed[0]


def evaluate(
    evaluation: Evaluation,
    asked: Sequence[Candidate],
    args: argparse.Namespace,
    earlier: dict[str, list[Row]],
    part: str,
) -> dict[str, list[Row]]:
    """Name of a method -> its rows; draws the contact sheet of those that swap now, if one is wanted."""
    total = len(evaluation.order())
    order = np.random.default_rng(args.seed).permutation(total)[: args.rows]
    shown = sorted(int(k) for k in order) if args.sheet else []
    fresh = [who for who in asked if who.name not in earlier]
    found = {who.name: run_cases(evaluation, who, args.device, args.workers, shown) for who in fresh}
    if shown and found:
        path = args.sheet.with_name(f"{args.sheet.stem}-{part}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(evaluation, found, shown, path)
        print(path.resolve())
    made = {name: plain([outcome.row for outcome in outcomes]) for name, outcomes in found.items()}
    return {who.name: made[who.name] if who.name in made else earlier[who.name] for who in asked}


def draw(evaluation: Evaluation, found: dict[str, list[Outcome]], shown: Sequence[int], path: Path) -> None:
    """Writes a contact sheet: what is given, and every method's swap with its most telling number."""
    rows = []
    for case in shown:
        given = evaluation.given(case)
        row = [(pixels, "") for pixels in given.values()]
        for outcomes in found.values():
            picture = outcomes[case].picture
            if picture is not None:
                row.append((picture, caption(case, outcomes[case].row)))
        rows.append(row)
    sheet([*given, *found], rows).save(path)


def caption(case: int, row: Row) -> str:
    """The most telling numbers of a swap."""
    if "cosine" in row:
        return f"{case}: cosine {row['cosine']:.2f}, seam {row['seam']:.2f}"
    return f"{case}: {row['psnr']:.1f} dB, features {row['features']:.3f}, light {row['light']:.1f}"


def compare_methods(
    groups: dict[str, dict[str, list[Row]]], rows: dict[str, list[Row]], numbers: Sequence[Number], title: str
) -> dict[str, Any]:
    """Summaries of all groups and the rows of all methods, for the report; prints the table."""
    baseline = baseline_of(rows)
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for group, chosen in groups.items():
        made[group] = {
            name: summarise(own, None if name == baseline else chosen[baseline], numbers)
            for name, own in chosen.items()
        }
    print(table(title, made, numbers, baseline), flush=True)
    return {
        "methods": {
            name: {"summary": {group: made[group][name] for group in made}, "rows": own} for name, own in rows.items()
        }
    }


def main() -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("mattface bench quality", description=__doc__, formatter_class=raw)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
