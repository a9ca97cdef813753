"""Which source goes onto which face: sources prepared once, matched to reference pictures, changed while running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mattface import picture_io
from mattface.errors import MattfaceError, NoFaceError, UsageError, WeightsError
from mattface.pipeline import Swapper
from mattface.pixels import eight_bit
from mattface.vocabulary import Face, Identity

ALIKE = 0.6
"""Cosine to a reference picture from which a face is taken for that person: of 7626 pairs of 124 strangers 3.6 % reach
it (their 95th percentile is 0.54), and every one of 14 people in a smaller, darker, turned and blurred copy."""
POLL = 0.5
"""Seconds between checks of a watched file."""


@dataclass(frozen=True)
class Role:
    """One person to put onto faces.

    Attributes:
        name: what the user called it, for messages.
        identity: the prepared source.
        reference: (D,) identity of the faces that get it; None for every face without a better role.
    """

    name: str
    identity: Identity
    reference: np.ndarray | None = None


class Cast:
    """Roles by number. Role 0 is the source of every face that no reference picture claims, if there is one.

    Args:
        swapper: prepares sources.
        source: for every face; None leaves faces alone that no reference picture claims.
        pairs: (reference picture, source) each; both whatever `Swapper.prepare` takes.

    Raises:
        NoFaceError: no face in a source or reference picture.
        WeightsError: references are given, and no identity network is here.
        UsageError: neither a source nor a pair.
    """

    def __init__(self, swapper: Swapper, source: Any = None, pairs: Sequence[tuple[Any, Any]] = ()) -> None:
        if source is None and not pairs:
            raise UsageError("expected a source, or pairs of reference picture and source; got neither.")
        self.swapper = swapper
        self._roles: list[Role | None] = [None if source is None else Role(_name(source), swapper.prepare(source))]
        for reference, one in pairs:
            known = self._known(reference)
            self._roles.append(Role(_name(one), swapper.prepare(one), known))

    @property
    def by_reference(self) -> bool:
        """Whether faces are matched to reference pictures."""
        return len(self._roles) > 1

    def __call__(self, rgb: np.ndarray, face: Face) -> int | None:
        """The role of a face (see `track.Who`)."""
        default = None if self._roles[0] is None else 0
        if not self.by_reference or self.swapper.embedder is None:
            return default
        seen = self.swapper.embedder(rgb, face)
        alike = [-1.0 if r is None or r.reference is None else float(seen @ r.reference) for r in self._roles]
        best = int(np.argmax(alike))
        return best if alike[best] >= ALIKE else default

    def identity(self, role: int) -> Identity:
        """The source that a role shows now."""
        found = self._roles[role]
        if found is None:
            raise UsageError(f"expected a role with a source; role {role} has none.")
        return found.identity

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of all sources' pictures."""
        return tuple(dict.fromkeys(one for r in self._roles if r is not None for one in r.identity.hashes))

    def replace(self, source: Any, role: int = 0) -> None:
        """Puts another source into a role while the video runs; from the next frame on it is shown.

        Raises:
            NoFaceError, InputError: the picture will not do; the role keeps its source.
            UsageError: no such role.
        """
        if not 0 <= role < len(self._roles):
            raise UsageError(f"expected a role from 0 to {len(self._roles) - 1}; got {role}.")
        before = self._roles[role]
        identity = self.swapper.prepare(source)  # may raise: nothing has changed by then
        self._roles[role] = Role(_name(source), identity, None if before is None else before.reference)

    def _known(self, reference: Any) -> np.ndarray:
        if self.swapper.embedder is None:
            raise WeightsError(
                "telling faces apart needs an identity network; none is here. "
                "Run: mattface weights pull identity-resnet"
            )
        rgb = eight_bit(picture_io.read(reference).pixels)
        found = self.swapper.detector(rgb)
        if not found:
            raise NoFaceError(f"expected a face in the reference picture {_name(reference)}; found none. Use another.")
        return self.swapper.embedder(rgb, self.swapper.landmarker(rgb, found[0]))


class Watcher:
    """Looks at a source's file now and then, and puts it into its role whenever it has changed.

    Args:
        cast: where the role is.
        path: file to watch.
        role: which role.
        say: gets one sentence about every change, or why a picture was not taken.
    """

    def __init__(self, cast: Cast, path: str | Path, role: int, say: Callable[[str], None]) -> None:
        self.cast, self.path, self.role, self.say = cast, Path(path), role, say
        self._done = threading.Event()
        self._stamp = self._look()
        self._thread = threading.Thread(target=self._run, name="mattface-watch", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> tuple[int, int] | None:
        try:
            state = self.path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size

    def _run(self) -> None:
        while not self._done.wait(POLL):
            stamp = self._look()
            if stamp is None or stamp == self._stamp:
                continue
            if self._done.wait(POLL / 2) or self._look() != stamp:
                continue  # still being written
            self._stamp = stamp
            self.take()

    def take(self) -> None:
        """Puts the file's picture into the role, or says why not."""
        try:
            self.cast.replace(str(self.path), self.role)
        except MattfaceError as error:
            self.say(f"{self.path}: the source before stays: {error}")
        else:
            self.say(f"{self.path}: new source")


def _name(source: Any) -> str:
    if isinstance(source, list | tuple) and source:
        return _name(source[0])
    return str(source) if isinstance(source, str | Path) else type(source).__name__
