"""Who is evaluated, and the processes that do it: methods with options by one short name each, one set of cases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np

from mattface.benchmarks.ablation import Ablation, ablate
from mattface.errors import UsageError
from mattface.pipeline import Swapper, load

RESERVED = ("weights", "dtype")
"""Options of `mattface.load`."""
ABLATIONS = tuple(Ablation.__dataclass_fields__)
"""Options that switch parts of a trained network off; every other one is the method's own."""


@dataclass(frozen=True)
class Candidate:
    """A method with its options.

    Attributes:
        name: as given: METHOD, or METHOD:OPTION=VALUE:... ("mattface:detail=off", "mattface:weights=x.safetensors").
        method: name of the method.
        options: of `mattface.load`.
    """

    name: str
    method: str
    options: tuple[tuple[str, Any], ...] = ()

    def load(self, device: str) -> Swapper:
        """The swapper, with the parts switched off that the options say."""
        switched = {key: value for key, value in self.options if key in ABLATIONS}
        swapper = load(self.method, device=device, **{k: v for k, v in self.options if k not in ABLATIONS})
        if switched:
            ablate(swapper.method, switched)
        return swapper


def read_candidate(name: str, commercial: bool | None = None) -> Candidate:
    """Reads METHOD:OPTION=VALUE:...

    Args:
        name: as given.
        commercial: of `mattface.load`.

    Raises:
        UsageError: an option without a value.
    """
    method, *given = name.split(":")
    options: list[tuple[str, Any]] = [("commercial", True)] if commercial else []
    for one in given:
        key, equals, value = one.partition("=")
        if not (key and equals and value):
            raise UsageError(f"expected METHOD:OPTION=VALUE; got {name!r}. Example: mattface:detail=off")
        options.append((key, value if key in RESERVED else parse_option(value)))
    return Candidate(name, method, tuple(options))


def parse_option(value: str) -> Any:
    """A whole number, a number, a truth value or the text itself."""
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


@dataclass(frozen=True)
class Outcome:
    """What one case gave: numbers and names by key (NaN: could not be measured), and a close-up or None."""

    row: dict[str, Any]
    picture: np.ndarray | None = None


class Evaluation(Protocol):
    """Cases given to swappers. It travels to other processes, so it holds no network."""

    def order(self) -> Sequence[int]:
        """All cases, those that share work next to each other."""

    def outcomes(self, swapper: Swapper, cases: Sequence[int], shown: frozenset[int]) -> Iterator[Outcome]:
        """Swaps and measures `cases`, with close-ups of those in `shown`."""

    def given(self, case: int) -> dict[str, np.ndarray]:
        """Close-ups of what is known beforehand: "source", "target", ..."""


def run_cases(evaluation: Evaluation, who: Candidate, device: str, workers: int, shown: Sequence[int]) -> list[Outcome]:
    """All outcomes of one method, by number of the case.

    Args:
        evaluation: the cases.
        who: the method.
        device: where its networks run.
        workers: processes; 1 works in this one.
        shown: cases whose close-ups are kept.
    """
    order, wanted = list(evaluation.order()), frozenset(shown)
    parts = [[int(q) for q in part] for part in np.array_split(order, workers) if len(part)]
    if workers == 1:
        done = [work(evaluation, who, device, part, wanted, 0) for part in parts]
    else:
        cores = max(1, (os.cpu_count() or 1) // workers)
        with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(work, evaluation, who, device, part, wanted, cores) for part in parts]
            done = [job.result() for job in jobs]
    found = dict(zip([q for part in parts for q in part], [o for part in done for o in part], strict=True))
    return [found[case] for case in sorted(found)]


def work(
    evaluation: Evaluation, who: Candidate, device: str, cases: Sequence[int], shown: frozenset[int], threads: int
) -> list[Outcome]:
    """One process's part; `threads` bounds torch's, 0 leaves them."""
    import torch
    from tqdm import tqdm

    if threads:
        torch.set_num_threads(threads)
    found = evaluation.outcomes(who.load(device), cases, shown)
    return list(tqdm(found, total=len(cases), desc=who.name, disable=None))
