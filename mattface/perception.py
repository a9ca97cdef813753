"""Perception by kind: what finds, measures, recognises and parses faces. Methods name kinds, never files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from mattface import detect, embed, estimate, landmarks, parse
from mattface.errors import UsageError
from mattface.weights.licences import commercial_only
from mattface.weights.parts import Status, choose_permitted

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
Asked = bool | None


@overload
def load(
    kind: Literal["detector"], name: str = ..., device: Where = ..., dtype: torch.dtype = ..., commercial: Asked = ...
) -> Detector: ...
@overload
def load(
    kind: Literal["landmarks"], name: str = ..., device: Where = ..., dtype: torch.dtype = ..., commercial: Asked = ...
) -> Landmarker: ...
@overload
def load(
    kind: Literal["identity"], name: str = ..., device: Where = ..., dtype: torch.dtype = ..., commercial: Asked = ...
) -> Embedder: ...
@overload
def load(
    kind: Literal["parser"], name: str = ..., device: Where = ..., dtype: torch.dtype = ..., commercial: Asked = ...
) -> Parser: ...
@overload
def load(
    kind: Literal["estimator"], name: str = ..., device: Where = ..., dtype: torch.dtype = ..., commercial: Asked = ...
) -> FaceRegressor: ...
def load(
    kind: str,
    name: str = "auto",
    device: Where = "cpu",
    dtype: torch.dtype = torch.float32,
    commercial: Asked = None,
) -> Any:
    """Loads a part.

    Args:
        kind: what it does, a key of `KINDS`.
        name: which one; "auto" takes the strongest that can run here.
        device: where it shall run; a part says in its own `device` where it does.
        dtype: for parts that have a choice.
        commercial: only a part whose licence allows commercial use; None: as $MATTFACE_COMMERCIAL says.

    Raises:
        UsageError: no such kind or name, or the part that is named forbids commercial use.
        WeightsError: its weights or its package are not here; the message says what to type.
    """
    found = _kind(kind)
    if commercial_only(commercial):
        name = choose_permitted(kind, found.status(), name)
    return found.build(name, device, dtype)


def status(kind: str) -> list[Status]:
    """The state of every part of a kind, strongest first.

    Raises:
        UsageError: no such kind.
    """
    return _kind(kind).status()


def usable(kind: str, commercial: bool) -> bool:
    """Whether a part of a kind can run here, and where `commercial`, may be used commercially."""
    return any(one.usable and not (commercial and one.restriction) for one in status(kind))


def left_out() -> str:
    """A note for reports: the parts that can run here and are left out where only commercial use is allowed."""
    kinds = [kind for kind in KINDS if kind != "estimator"]  # which is never picked, only named
    names = [f"{one.part} ({kind})" for kind in kinds for one in status(kind) if one.usable and one.restriction]
    return f"commercial use only: left out {', '.join(names) or 'no part, all that are here allow it'}"


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise UsageError(f"expected a kind of part, one of {', '.join(KINDS)}; got {kind!r}.")
    return KINDS[kind]
