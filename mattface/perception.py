"""Perception by kind: what finds, measures, recognises and parses faces. Methods name kinds, never files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from mattface import detect, embed, estimate, landmarks, parse
from mattface.errors import UsageError
from mattface.weights.parts import Status

if TYPE_CHECKING:
    from mattface.detect import Detector
    from mattface.embed import Embedder
    from mattface.estimate import FaceRegressor
    from mattface.landmarks import Landmarker
    from mattface.parse import Parser


@dataclass(frozen=True)
class Kind:
    """One job.

    Attributes:
        job: one line.
        status: the state of every part that does it, strongest first.
        build: (name or "auto", device, dtype) -> the part.
    """

    job: str
    status: Callable[[], list[Status]]
    build: Callable[[str, str | torch.device, torch.dtype], Any]


KINDS: dict[str, Kind] = {
    "detector": Kind("picture -> faces", detect.available, detect.build),
    "landmarks": Kind("face -> 468 dense landmarks", landmarks.available, landmarks.build),
    "identity": Kind("face -> identity vector", embed.available, embed.build),
    "parser": Kind("crop -> mask of the inner face", parse.available, parse.build),
    "estimator": Kind("crop -> 3D coefficients", estimate.available, estimate.build),
}
Where = str | torch.device


@overload
def load(kind: Literal["detector"], name: str = ..., device: Where = ..., dtype: torch.dtype = ...) -> Detector: ...
@overload
def load(kind: Literal["landmarks"], name: str = ..., device: Where = ..., dtype: torch.dtype = ...) -> Landmarker: ...
@overload
def load(kind: Literal["identity"], name: str = ..., device: Where = ..., dtype: torch.dtype = ...) -> Embedder: ...
@overload
def load(kind: Literal["parser"], name: str = ..., device: Where = ..., dtype: torch.dtype = ...) -> Parser: ...
@overload
def load(
    kind: Literal["estimator"], name: str = ..., device: Where = ..., dtype: torch.dtype = ...
) -> FaceRegressor: ...
def load(kind: str, name: str = "auto", device: Where = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Loads a part.

    Args:
        kind: what it does, a key of `KINDS`.
        name: which one; "auto" takes the strongest that can run here.
        device: where it shall run; a part says in its own `device` where it does.
        dtype: for parts that have a choice.

    Raises:
        UsageError: no such kind or name.
        WeightsError: its weights or its package are not here; the message says what to type.
    """
    return _kind(kind).build(name, device, dtype)


def status(kind: str) -> list[Status]:
    """The state of every part of a kind, strongest first.

    Raises:
        UsageError: no such kind.
    """
    return _kind(kind).status()


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise UsageError(f"expected a kind of part, one of {', '.join(KINDS)}; got {kind!r}.")
    return KINDS[kind]
