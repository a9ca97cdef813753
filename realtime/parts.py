"""A long piece of work in finished parts: whatever ends it, what was done stays and is used again.

Parts lie in a folder beside the output, OUT.parts: plan.json says of what work they are, 00000.nut and so on are
encoded video of a fixed number of frames each. A part has its name once it is complete; before, it is called otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mattface import __version__
from mattface.errors import InputError
from mattface.picture_io.files import check_target
from mattface.provenance.laying import Laying, seal, tags
from mattface.realtime.encoding import (
    PART_OPTIONS,
    Encoder,
    Encoding,
    check_container,
    join,
    no_space,
    write_synced,
)
from mattface.realtime.loop import Shot
from mattface.realtime.planes import Origin, repaint
from mattface.realtime.video import VideoInfo

FRAMES = 60
"""Frames of a part: what is lost at most when the process is killed."""


class Parts:
    """The folder of parts of one output.

    Attributes:
        output: file that it becomes.
        folder: where the parts are.
        done: number of complete parts.
    """

    def __init__(
        self, output: str | Path, source: str | Path, work: dict[str, Any], resume: bool, overwrite: bool
    ) -> None:
        """Makes the folder, or takes up the one of an interrupted run.

        Args:
            output: file to write.
            source: video it is made of.
            work: what the run does, as JSON holds it; parts of other work are not used.
            resume: take up what an interrupted run has left, if anything.
            overwrite: the output may exist, and parts of other work may be thrown away.

        Raises:
            InputError: the output cannot be written or exists; parts are there and `resume` was not asked for, or they
                belong to other work.
        """
        check_container(output)
        given = Path(output)
        self.folder = given.with_name(given.name + ".parts")
        left = self._left()
        if left is None and self.folder.is_dir() and any(f.name != "plan.tmp" for f in self.folder.iterdir()):
            raise InputError(
                f"{self.folder}: expected a name that is free for parts; a folder with other files is there. Move it."
            )
        usable = left is not None and left == work
        if left is not None and not overwrite:
            if not resume:
                raise InputError(
                    f"{self.folder}: expected no parts; an interrupted run left some. Go on with --resume, or begin "
                    "anew with --overwrite."
                )
            if not usable:
                changed = sorted(k for k in {*left, *work} if left.get(k) != work.get(k))
                raise InputError(
                    f"{self.folder}: expected parts of the same work; these differ in {', '.join(changed)}. Repeat the "
                    "options of that run, or begin anew with --overwrite."
                )
        self.output = check_target(given, overwrite or (resume and usable), [source])
        if not (resume and usable):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._begin(work)
        self.done = next(k for k in range(1 << 30) if not self.path(k).exists())

    def path(self, number: int) -> Path:
        """File of a complete part."""
        return self.folder / f"{number:05}.nut"

    @property
    def unfinished(self) -> Path:
        """File of the part in work, or of one that an interruption cut short."""
        return self.folder / "unfinished.nut"

    def complete(self) -> None:
        """The part in work is complete."""
        write_synced(self.unfinished)
        os.replace(self.unfinished, self.path(self.done))
        self.done += 1

    def files(self, unfinished: bool) -> list[Path]:
        """All parts in order, the unfinished one at the end if asked for and there."""
        found = [self.path(k) for k in range(self.done)]
        return [*found, self.unfinished] if unfinished and self.unfinished.exists() else found

    def write(self, source: str | Path, info: VideoInfo, whole: bool, laying: Laying) -> bool:
        """Makes the output of the parts, with its provenance; the folder is removed when the work is whole.

        Returns:
            False when there was no frame to write.

        Raises:
            InputError: the disk is full; the parts stay.
        """
        files = self.files(unfinished=not whole)
        if not files:
            return False
        temporary = self.folder / f"joined{self.output.suffix}"
        try:
            join(files, source, temporary, info, whole, tags(laying.settings.layers, __version__))
            seal(temporary, self.output, laying, __version__)
            write_synced(temporary)
            os.replace(temporary, self.output)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        if whole:
            shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _left(self) -> dict[str, Any] | None:
        """The plan of an interrupted run; None when there is none. A plan that cannot be read is that of other work."""
        try:
            found = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _begin(self, work: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            plan = self.folder / "plan.tmp"
            plan.write_text(json.dumps(work, indent=2), encoding="utf-8")
            os.replace(plan, self.folder / "plan.json")
            self.unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise no_space(error, self.folder, "Free some space, or write elsewhere.") or InputError(
                f"{self.folder}: expected a folder for parts; it cannot be made ({error}). Write elsewhere."
            ) from error


class PartsSink:
    """Encodes frames into parts. Frames before the first missing part are left out: they are there already.

    Args:
        parts: where to write.
        info: of the video.
        encoding: how.
        frames: of a part.
    """

    def __init__(self, parts: Parts, info: VideoInfo, encoding: Encoding, frames: int = FRAMES) -> None:
        self.parts, self.info, self.encoding, self.frames = parts, info, encoding, frames
        self.first = parts.done * frames
        self.written = 0
        self._encoder: Encoder | None = None
        self._inside = 0
        self._failed = False

    def show(self, shot: Shot) -> None:
        """Encodes the next frame.

        Raises:
            InputError: the disk is full.
        """
        if shot.index < self.first:
            return
        origin = shot.origin
        if not isinstance(origin, Origin):
            raise TypeError(f"expected a frame out of a video file; got {type(origin).__name__}")
        frame = repaint(origin, shot.pixels, shot.boxes)
        with self._explained():
            if self._encoder is None:
                self._encoder = self._opened()
            self._encoder.write(frame)
            self.written += 1
            self._inside += 1
            if self._inside == self.frames:
                self._finish()
                self.parts.complete()

    def close(self) -> None:
        """Finishes the file of the part in work; whether the part is complete is known to who ended the work."""
        if not self._failed:
            with self._explained():
                self._finish()

    def _finish(self) -> None:
        encoder, self._encoder, self._inside = self._encoder, None, 0
        if encoder is not None:
            encoder.finish()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of a full disk as a sentence."""
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            advice = f"{self.parts.done} part(s) of {self.frames} frames are kept: free some space and add --resume."
            full = no_space(error, self.parts.folder, advice)
            if full is None:
                raise
            raise full from error

    def _opened(self) -> Encoder:
        import av

        return Encoder(av.open(str(self.parts.unfinished), "w", options=PART_OPTIONS), self.info, self.encoding)
