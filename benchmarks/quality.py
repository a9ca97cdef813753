"""python -m mattface.benchmarks.quality: how well methods swap pairs of people nobody trained on.

    python -m mattface.benchmarks.quality --portraits DIR --scoring FILE.onnx --methods mesh,mattface --out FILE.json

Portraits of the evaluation people only (`mattface.training.pairs.held_out`). The scoring network is an ONNX face
recognition network that no method trains with, as `mattface.training.scoring.Scorer` feeds it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import mattface
from mattface import measure, picture_io
from mattface.benchmarks.common import save
from mattface.errors import InputError, MattfaceError
from mattface.mesh import topology
from mattface.pipeline import Swapper
from mattface.training.pairs import held_out
from mattface.training.scoring import Scorer
from mattface.vocabulary import Face, Identity, SwapResult

NUMBERS = {
    "cosine": "cosine to the source",
    "untouched": "cosine of the untouched target",
    "retrieved": "share retrieved",
    "pose": "pose difference, degrees",
    "shift": "landmark shift, % of the outer-eye distance",
    "background": "largest change outside the matte",
    "seam": "seam score",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Person:
    """A portrait as all methods get it.

    Attributes:
        name: file stem.
        pixels: (H, W, 3) uint8.
        face: largest face with landmarks.
        embedding: (D,) by the scoring network.
    """

    name: str
    pixels: np.ndarray
    face: Face
    embedding: np.ndarray


def people(folder: Path, swapper: Swapper, scorer: Scorer) -> list[Person]:
    """The evaluation people of a folder whose face is found."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png") and held_out(p))
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least two portraits of evaluation people; found {len(paths)}.")
    found = []
    for path in tqdm(paths, desc="portraits", disable=None):
        pixels = picture_io.read(path).pixels
        face = landmarks_of(swapper, pixels)
        if face is not None:
            found.append(Person(path.stem, pixels, face, scorer(pixels, face.points)))
    return found


def landmarks_of(swapper: Swapper, pixels: np.ndarray) -> Face | None:
    """The largest face with landmarks, found from scratch; None when there is none."""
    faces = swapper.detector(pixels)
    return swapper.landmarker(pixels, faces[0]) if faces else None


def choose_pairs(count: int, wanted: int, seed: int) -> list[tuple[int, int]]:
    """Different (source, target) pairs; each person is a target once before anyone is one again."""
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < min(wanted, count * (count - 1)):
        sources, targets = rng.permutation(count), rng.permutation(count)
        fresh = [(int(s), int(t)) for s, t in zip(sources, targets, strict=True) if s != t]
        pairs += [pair for pair in fresh if pair not in pairs]
    return pairs[:wanted]


def numbers_of(
    swapper: Swapper, scorer: Scorer, source: Person, target: Person, result: SwapResult
) -> tuple[dict[str, float], np.ndarray]:
    """Everything measured on one swap, and its embedding. Landmarks are found again, from scratch, in the result."""
    face = landmarks_of(swapper, result.image)
    if face is None or face.mesh is None or target.face.mesh is None:
        raise MattfaceError(f"no face was found in the swap of {source.name} onto {target.name}.")
    mean = topology().mean
    poses = [measure.pose(f.mesh, mean) for f in (face, target.face) if f.mesh is not None]
    embedding = scorer(result.image, face.points)
    numbers = {
        "cosine": float(measure.identity_cosine(embedding, source.embedding)),
        "untouched": float(measure.identity_cosine(target.embedding, source.embedding)),
        "pose": measure.pose_difference(*poses),
        "shift": measure.landmark_shift(face.mesh, target.face.mesh),
        "background": measure.background_change(result.image, target.pixels, result.matte),
        "seam": measure.seam_score(result.image, target.pixels, result.matte),
        "seconds": sum(result.report["seconds"].values()),
    }
    return numbers, embedding


def evaluate(
    swapper: Swapper, scorer: Scorer, persons: Sequence[Person], pairs: Sequence[tuple[int, int]]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All numbers of one method: per pair, means, medians; and the swapped pictures."""
    identities: dict[int, Identity] = {}
    rows, images, embeddings = [], [], []
    for s, t in tqdm(pairs, desc=swapper.method.name, disable=None):
        if s not in identities:
            identities[s] = swapper.prepare(persons[s].pixels)
        result = swapper.swap(identities[s], persons[t].pixels, measure=False)
        row, embedding = numbers_of(swapper, scorer, persons[s], persons[t], result)
        embeddings.append(embedding)
        rows.append({"source": persons[s].name, "target": persons[t].name, **row})
        images.append(result.image)
    gallery = np.stack([p.embedding for p in persons])
    summary = {
        name: {"mean": statistics.fmean(r[name] for r in rows), "median": statistics.median(r[name] for r in rows)}
        for name in NUMBERS
        if name != "retrieved"
    }
    share = measure.retrieval(np.stack(embeddings), gallery, np.array([s for s, _ in pairs]))
    summary["retrieved"] = {"mean": share, "of": len(gallery)}
    return {"weights": swapper.method.weights, "summary": summary, "pairs": rows}, images


def sheet(columns: Sequence[Sequence[np.ndarray]], side: int = 320) -> Image.Image:
    """Pictures in columns of equal length, each fitted into a square."""
    rows = len(columns[0])
    page = Image.new("RGB", (side * len(columns), side * rows), "white")
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            small = Image.fromarray(pixels)
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            page.paste(small, (x * side, y * side))
    return page


def table(results: dict[str, dict[str, Any]]) -> str:
    """One line per number, one column per method: mean (median)."""
    lines = [f"{'':44}" + "".join(f"{name:>20}" for name in results)]
    for key, title in NUMBERS.items():
        cells = []
        for result in results.values():
            value = result["summary"][key]
            median = f" ({value['median']:.3f})" if "median" in value else f" of {value['of']}"
            cells.append(f"{value['mean']:.3f}{median}")
        lines.append(f"{title:44}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="folder of portraits")
    parser.add_argument("--scoring", type=Path, required=True, help="scoring network, ONNX")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--methods", default="mesh", help="names, comma separated")
    parser.add_argument("--weights", help="weights of the (single) method, instead of its default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/quality.json"))
    parser.add_argument("--sheet", type=Path, help="contact sheet, PNG: source, target, one column per method")
    args = parser.parse_args()
    scorer = Scorer(args.scoring)
    names = args.methods.split(",")
    chosen = {name: args.weights for name in names if len(names) == 1}
    swappers = {name: mattface.load(name, weights=chosen.get(name), device=args.device) for name in names}
    persons = people(args.portraits, next(iter(swappers.values())), scorer)
    pairs = choose_pairs(len(persons), args.pairs, args.seed)
    columns = [[persons[s].pixels for s, _ in pairs], [persons[t].pixels for _, t in pairs]]
    results: dict[str, dict[str, Any]] = {}
    for name, swapper in swappers.items():
        results[name], images = evaluate(swapper, scorer, persons, pairs)
        columns.append(images)
    print(table(results))
    save({"people": len(persons), "seed": args.seed, "methods": results}, args.out)
    print(args.out.resolve())
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(columns).save(args.sheet)
        print(args.sheet.resolve())


if __name__ == "__main__":
    main()
