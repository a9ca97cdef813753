"""Held-out portraits: pairs of people who never train, measured by networks that never train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mattface import align, measure, mesh, perception, picture_io, weights
from mattface.benchmarks.cases import evaluation_portraits
from mattface.benchmarks.report import Number
from mattface.benchmarks.runner import Outcome
from mattface.benchmarks.sheets import close_up
from mattface.errors import InputError
from mattface.measure.held_out import FaceEvaluator, largest_face
from mattface.measure.recognition import Scorer
from mattface.mesh.regions import Regions
from mattface.pipeline import Swapper
from mattface.vocabulary import Face, Identity, SwapResult

if TYPE_CHECKING:
    from mattface.training.studio.fit import Fitter

RULE = "zlib.crc32(file stem) % 4 == 0"
SIDE = 1024
"""Side of the crop whose octaves are compared."""
OCTAVES = ("512-1024", "256-512", "128-256", "64-128")
MODEL = "ict-face-model"
NUMBERS = (
    Number("cosine", "cosine to the source, by the scoring network"),
    Number("untouched", "cosine of the untouched target to the source", given=True),
    Number("retrieved", "share whose nearest of all people is the source"),
    Number("pose", "pose difference, degrees"),
    Number("expression", "expression difference, L2 of the face model's coefficients"),
    Number("shift", "landmark shift, % of the outer-eye distance"),
    Number("seam", "seam score, 0 is the untouched target"),
    *(Number(f"octave {name}", f"octave energy {name} px in the matte, target 1", ratio=True) for name in OCTAVES),
    Number("octave source", f"octave energy {OCTAVES[0]} px of the source's own crop there", ratio=True, given=True),
    Number("clipped", "clipped skin in the matte, %"),
    Number("clipped more", "clipped skin beyond what source and target have, %"),
    Number("background", "largest change outside the matte, levels"),
    Number("found", "share of results in which a face is found"),
    Number("seconds", "seconds a swap"),
)


@dataclass(frozen=True)
class Person:
    """A portrait as all methods get it.

    Attributes:
        path: the picture.
        face: largest face with landmarks.
        embedding: (D,) by the scoring network.
        expression: (E,) coefficients of the face model; None without it.
        clipped: percentage of clipped skin.
    """

    path: Path
    face: Face
    embedding: np.ndarray
    expression: np.ndarray | None
    clipped: float

    @property
    def name(self) -> str:
        """File stem."""
        return self.path.stem

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return picture_io.read(self.path).pixels


class Portraits:
    """Pairs of the evaluation people of a folder.

    Args:
        folder: of portraits.
        scoring: ONNX face recognition network that no method trains with, as `Scorer` feeds it.
        count: pairs.
        seed: of their choice.

    Attributes:
        people: everybody whose face was found.
        pairs: (source, target) by index.
        notes: sentences about what is left out.
    """

    def __init__(self, folder: Path, scoring: Path, count: int = 100, seed: int = 1) -> None:
        self.scoring = scoring
        paths = evaluation_portraits(folder)
        self.people = load_people(paths, Scorer(scoring), fitter())
        self.pairs = choose_pairs(len(self.people), count, seed)
        self.gallery = np.stack([person.embedding for person in self.people])
        self.notes = [f"{len(paths) - len(self.people)} of {len(paths)} evaluation portraits show no face"]
        if not weights.present(MODEL):
            self.notes.append(f"expression is not measured: no {MODEL} ({weights.card(MODEL).how})")

    def order(self) -> Sequence[int]:
        """Pairs of one source next to each other."""
        return sorted(range(len(self.pairs)), key=lambda k: self.pairs[k])

    def outcomes(self, swapper: Swapper, cases: Sequence[int], shown: frozenset[int]) -> Iterator[Outcome]:
        """Swaps and measures pairs."""
        fit = fitter()
        expression = None if fit is None else lambda mesh: fit(mesh).expression
        evaluate = FaceEvaluator(Scorer(self.scoring), swapper.detector, swapper.landmarker, self.gallery, expression)
        identities: dict[int, Identity] = {}
        for case in cases:
            s, t = self.pairs[case]
            source, target = self.people[s], self.people[t]
            if s not in identities:
                identities = {s: swapper.prepare(source.pixels())}
            pixels = target.pixels()
            result = swapper.swap(identities[s], pixels, measure=False)
            row: dict[str, Any] = {"source": source.name, "target": target.name}
            row |= evaluate(result.image, s, t, target.face, target.expression)
            row |= appearance(source, target, pixels, result)
            row["seconds"] = sum(result.report["seconds"].values())
            yield Outcome(row, close_up(result.image, target.face.box) if case in shown else None)

    def given(self, case: int) -> dict[str, np.ndarray]:
        """Close-ups of source and target."""
        pair = zip(("source", "target"), self.pairs[case], strict=True)
        return {name: close_up(self.people[k].pixels(), self.people[k].face.box) for name, k in pair}


def appearance(source: Person, target: Person, pixels: np.ndarray, result: SwapResult) -> dict[str, float]:
    """What pixels alone tell of a result.

    Args:
        source, target: the pair.
        pixels: (H, W, 3) uint8, the target.
        result: of the swap.
    """
    image, matte = result.image, result.matte
    skin = skin_of(target.face, matte.shape) * (matte > 0.5)
    clipped = measure.clipped_share(image, skin)
    before = max(source.clipped, measure.clipped_share(pixels, skin))
    matrix = align.ffhq_matrix(target.face, SIDE)
    after, untouched = (align.warp(p, matrix, SIDE) / 255 for p in (image, pixels))
    inside = align.warp(np.repeat(matte[..., None], 3, 2), matrix, SIDE)[..., 0]
    inside = np.where(inside > 0.5, inside, 0)
    octaves = measure.octave_energy(after, untouched, inside)
    own = align.warp(source.pixels(), align.ffhq_matrix(source.face, SIDE), SIDE) / 255
    return {
        "seam": measure.seam_score(image, pixels, matte),
        "background": measure.background_change(image, pixels, matte),
        "clipped": clipped,
        "clipped more": max(0.0, clipped - before),
        **{f"octave {name}": octaves[name] for name in OCTAVES},
        "octave source": measure.octave_energy(own, untouched, inside)[OCTAVES[0]],
    }


def skin_of(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) float32: a face's skin without eyes and lips, by its mesh."""
    if face.mesh is None:
        raise InputError("expected a face with dense landmarks; got none.")
    return Regions.draw(mesh.Drawing.of(face.mesh, max(shape))).skin[: shape[0], : shape[1]]


def load_people(paths: Sequence[Path], scorer: Scorer, fit: Fitter | None) -> list[Person]:
    """Everybody whose face is found."""
    from tqdm import tqdm

    find, locate = perception.load("detector"), perception.load("landmarks")
    people = []
    for path in tqdm(paths, desc="portraits", disable=None):
        pixels = picture_io.read(path).pixels
        face = largest_face(find, locate, pixels)
        if face is None or face.mesh is None:
            continue
        expression = None if fit is None else fit(face.mesh).expression
        clipped = measure.clipped_share(pixels, skin_of(face, pixels.shape[:2]))
        people.append(Person(path, face, scorer(pixels, face), expression, clipped))
    if len(people) < 2:
        raise InputError(f"expected at least two portraits that show a face; found {len(people)}.")
    return people


def fitter() -> Fitter | None:
    """Fits the face model, for expressions; None where the model is not here."""
    if not weights.present(MODEL):
        return None
    from mattface.training.studio.face_model import load_model
    from mattface.training.studio.fit import Fitter

    return Fitter(load_model())


def choose_pairs(count: int, wanted: int, seed: int) -> list[tuple[int, int]]:
    """Different (source, target) pairs; each person is a target once before anyone is one again."""
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < min(wanted, count * (count - 1)):
        sources, targets = rng.permutation(count), rng.permutation(count)
        fresh = [(int(s), int(t)) for s, t in zip(sources, targets, strict=True) if s != t]
        pairs += [pair for pair in fresh if pair not in pairs]
    return pairs[:wanted]


def describe_cases(evaluation: Portraits) -> dict[str, Any]:
    """Split and pairs, for the report."""
    names = [person.name for person in evaluation.people]
    return {
        "rule": RULE,
        "people": names,
        "pairs": [[names[s], names[t]] for s, t in evaluation.pairs],
        "notes": evaluation.notes,
    }
