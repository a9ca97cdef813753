"""Exact triplets: swaps against the ground truth, by yaw, by light and by what lies before the face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mattface import measure
from mattface.benchmarks.cases import LIGHTS, OCCLUDERS, YAWS, case_from_notes
from mattface.benchmarks.report import Number, Row
from mattface.benchmarks.runner import Outcome
from mattface.benchmarks.sheets import close_up
from mattface.errors import InputError, NoFaceError
from mattface.pipeline import Swapper
from mattface.training.data.shards import Member, index_shards, read_bytes
from mattface.training.studio.stream import decode_triplet
from mattface.training.studio.triplet import Triplet

MARGIN = 16
"""Pixels around the true matte that the perceptual distance sees."""
LEAST = 0.02
"""Share of the true matte that the source does not show, from which on it is measured apart."""
LIGHT_SIGMA = 1 / 16
"""Of the Gaussian that leaves low frequencies, in face heights."""


def occluded(row: Row) -> bool:
    """Whether something lies before the target's face."""
    return bool(row["occluder"])


def unseen(row: Row) -> bool:
    """Whether the source hides enough of what the output shows for it to be measured apart."""
    return "hidden" in row


NUMBERS = (
    Number("psnr", "PSNR inside the true matte, dB", everywhere=True),
    Number("hidden", "PSNR of what the source does not show, dB", wanted=unseen, everywhere=True),
    Number("target psnr", "PSNR of the untouched target, dB", everywhere=True, given=True),
    Number("features", "feature distance inside the true matte (CenterFace, form of LPIPS)", everywhere=True),
    Number("target features", "feature distance of the untouched target", everywhere=True, given=True),
    Number("structure", "1 - SSIM inside the true matte, three octaves", everywhere=True),
    Number("lpips", "LPIPS (VGG) of the face's crop", wanted=lambda row: "lpips" in row, everywhere=True),
    Number("light", "low-frequency light error, levels of 255", everywhere=True),
    Number("target light", "light error of the untouched target, levels", everywhere=True, given=True),
    Number("clipped", "clipped pixels inside the true matte, %"),
    Number("clipped more", "clipped pixels beyond the truth's, %", everywhere=True),
    Number("outside", "occluder's pixels outside the matte, %", wanted=occluded, everywhere=True),
    Number("kept", "occluder's pixels outside the matte and unchanged, %", wanted=occluded, everywhere=True),
    Number("background", "largest change outside the method's matte, levels"),
    Number("found", "share in which both faces are found", everywhere=True),
    Number("seconds", "seconds a swap"),
)


def group_rows(rows: dict[str, list[Row]]) -> dict[str, dict[str, list[Row]]]:
    """Name of a group -> method -> its rows, for every group that has rows: all, yaws, lights, occluders."""
    tests: dict[str, tuple[str, Any]] = {f"yaw {yaw}": ("yaw", yaw) for yaw in YAWS}
    tests |= {light: ("contrast", light) for light in LIGHTS[2:]}
    tests |= {f"behind {kind}": ("occluder", kind) for kind in OCCLUDERS if kind} | {"behind nothing": ("occluder", "")}
    found = {"all": rows}
    for name, (key, value) in tests.items():
        found[name] = {method: [row for row in own if row[key] == value] for method, own in rows.items()}
    return {name: chosen for name, chosen in found.items() if any(chosen.values())}


@dataclass(frozen=True)
class SwapOutput:
    """What a method makes of a triplet: picture (H, W, 3) uint8, matte (H, W), whether faces were found, seconds."""

    image: np.ndarray
    matte: np.ndarray
    found: bool
    seconds: float


class Triplets:
    """Shards made by `mattface.benchmarks.cases`.

    Args:
        folder: of shards.
        count: how many cases, some of each sort; None for all.
        lpips: torchvision's VGG16 for LPIPS; None leaves LPIPS out.

    Attributes:
        names: of the cases, shard/number.
        notes: sentences about what is left out.
    """

    def __init__(self, folder: Path, count: int | None = None, lpips: Path | None = None) -> None:
        samples, notes = index_shards(sorted(folder.glob("*.tar")))
        if not samples:
            raise InputError(f"{folder} must hold shards of triplets; found none. See: mattface bench triplets")
        listed = sorted(samples.items())
        order = np.random.default_rng(len(listed)).permutation(len(listed))
        chosen = [listed[k] for k in order[:count]]
        self.samples: list[dict[str, Member]] = [members for _, members in chosen]
        self.names = [name for name, _ in chosen]
        self.lpips = lpips
        self.notes = list(notes)
        if lpips is None:
            self.notes.append("LPIPS is not measured: give torchvision's VGG16 weights (--lpips FILE)")

    def order(self) -> Sequence[int]:
        """As they come."""
        return range(len(self.samples))

    def triplet(self, case: int) -> Triplet:
        """A triplet."""
        return decode_triplet({name: read_bytes(member) for name, member in self.samples[case].items()})

    def outcomes(self, swapper: Swapper, cases: Sequence[int], shown: frozenset[int]) -> Iterator[Outcome]:
        """Swaps and measures. Where no face is found the untouched target is the output, and counts as such."""
        distance = None if self.lpips is None else lpips_distance(self.lpips)
        for case in cases:
            triplet = self.triplet(case)
            output = run_swap(swapper, triplet)
            row = measure_output(triplet, output)
            if distance is not None:
                row["lpips"] = distance(*frame_output(output.image, triplet)[:2])
            yield Outcome(row, close_up(output.image, box_of(triplet), 1.3) if case in shown else None)

    def given(self, case: int) -> dict[str, np.ndarray]:
        """Source, and close-ups of target and truth."""
        triplet = self.triplet(case)
        box = box_of(triplet)
        near = {"target": close_up(triplet.target, box, 1.3), "truth": close_up(triplet.swap, box, 1.3)}
        return {"source": triplet.source, **near}


def run_swap(swapper: Swapper, triplet: Triplet) -> SwapOutput:
    """Detects, aligns and swaps the two pictures as it would any photograph."""
    try:
        result = swapper.swap(swapper.prepare(triplet.source), triplet.target, measure=False)
    except NoFaceError:
        return SwapOutput(triplet.target, np.zeros(triplet.matte.shape, np.float32), False, np.nan)
    return SwapOutput(result.image, result.matte, True, sum(result.report["seconds"].values()))


def measure_output(triplet: Triplet, output: SwapOutput) -> Row:
    """Everything that is measured on one output, and its case."""
    case, true, matte = case_from_notes(triplet.notes), triplet.swap, triplet.matte
    sigma = LIGHT_SIGMA * face_height(matte)
    skin = (matte > 0.5).astype(np.float32)
    clipped = measure.clipped_share(output.image, skin)
    near, truth, inside = frame_output(output.image, triplet)
    untouched, _, _ = frame_output(triplet.target, triplet)
    kept = measure.kept_share(output.image, triplet.target, output.matte, before_face(triplet))
    hidden = matte * (1 - triplet.visible)
    enough = hidden.sum() >= LEAST * matte.sum()
    return {
        "seed": triplet.seed,
        "yaw": case.yaw,
        "contrast": case.light,
        "occluder": case.occluder,
        "found": float(output.found),
        "psnr": measure.psnr(output.image, true, matte),
        **({"hidden": measure.psnr(output.image, true, hidden)} if enough else {}),
        "features": measure.feature_distance(near, truth, inside),
        "structure": measure.structure_loss(near, truth, inside),
        "light": measure.light_error(output.image, true, matte, sigma),
        "clipped": clipped,
        "clipped more": max(0.0, clipped - measure.clipped_share(true, skin)),
        **kept,
        "background": measure.background_change(output.image, triplet.target, output.matte),
        "target psnr": measure.psnr(triplet.target, true, matte),
        "target features": measure.feature_distance(untouched, truth, inside),
        "target light": measure.light_error(triplet.target, true, matte, sigma),
        "seconds": output.seconds,
    }


def frame_output(image: np.ndarray, triplet: Triplet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The output with everything outside the true matte replaced by the truth, the truth, and the matte, around it."""
    left, top, right, bottom = box_of(triplet).astype(int)
    rows, columns = slice(max(0, top - MARGIN), bottom + MARGIN), slice(max(0, left - MARGIN), right + MARGIN)
    true, matte = triplet.swap[rows, columns], triplet.matte[rows, columns]
    return np.where(matte[..., None] > 0, image[rows, columns], true), true, matte


def box_of(triplet: Triplet) -> np.ndarray:
    """(4,) left, top, right, bottom of the true matte."""
    rows, columns = np.flatnonzero((triplet.matte > 0.5).any(1)), np.flatnonzero((triplet.matte > 0.5).any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def face_height(matte: np.ndarray) -> float:
    """Pixels from the top to the bottom of the face in a matte."""
    return float(max(1, (matte > 0.5).any(1).sum()))


def before_face(triplet: Triplet) -> np.ndarray:
    """(H, W) cover of the occluder where the face is behind it: within the hull of matte and landmarks."""
    rows, columns = np.nonzero(triplet.matte > 0.5)
    points = np.concatenate([np.column_stack([columns, rows]), triplet.landmarks["target"][:, :2]]).astype(np.float32)
    face = np.zeros(triplet.matte.shape, np.uint8)
    cv2.fillConvexPoly(face, np.rint(cv2.convexHull(points)).astype(np.int32), 1)
    return triplet.occluder * face


def lpips_distance(path: Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS of two (H, W, 3) uint8 pictures, by torchvision's VGG16 and the heads of LPIPS."""
    import torch

    from mattface.pixels import to_tensor
    from mattface.training.losses.networks.loading import load_perceptual
    from mattface.training.losses.reconstruction import lpips_loss

    network, heads = load_perceptual(f"lpips:{path}", torch.device("cpu"))
    if heads is None:
        raise InputError(f"{path}: expected the heads of LPIPS; got none. Type: mattface weights pull lpips-vgg")

    @torch.inference_mode()
    def distance(image: np.ndarray, truth: np.ndarray) -> float:
        return float(lpips_loss(network, heads, to_tensor(image), to_tensor(truth)))

    return distance


def describe_cases(evaluation: Triplets) -> dict[str, Any]:
    """The cases, for the report."""
    return {"questions": evaluation.names, "notes": evaluation.notes}
