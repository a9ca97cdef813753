"""Frame -> its faces, each with a number that stays with it: detection now and then, landmarks in every frame.

The landmark stage is the tracker: it looks where the mesh was in the frame before, and says how sure it is. The
detector runs every few frames to find who came in, and soon after somebody was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from mattface.detect import Detector
from mattface.landmarks import Landmarker
from mattface.realtime.smooth import LandmarkFilter
from mattface.vocabulary import Face

PRESENT = 0.5
"""Presence of the landmark stage below which a face counts as lost."""
SAME = 0.3
"""Intersection over union from which two boxes are one face."""
PATIENCE = 1.0
"""Seconds for which a lost face keeps its number."""
ASKED_AGAIN = (10, 40)
"""Ages in frames at which a face that nobody knew is looked at again: it may have been blurred or turned away."""

Who = Callable[[np.ndarray, Face], int | None]
"""(picture, face with mesh) -> whose role it plays; None leaves it alone."""


@dataclass(frozen=True)
class Tracked:
    """A face of one frame.

    Attributes:
        number: stays the same while the face is followed, and is never given twice.
        face: with filtered landmarks.
        role: who it becomes (see `faces.Cast`), or None.
    """

    number: int
    face: Face
    role: int | None


@dataclass
class Track:
    """What is known about one face from frame to frame."""

    number: int
    face: Face
    role: int | None
    filter: LandmarkFilter = field(default_factory=LandmarkFilter)
    age: int = 0
    last_seen: float = 0.0
    lost: bool = False


@dataclass(frozen=True)
class Pace:
    """How often the detector looks.

    Attributes:
        every: frames between looks while every known face is in sight.
        searching: frames between looks while a face is lost or there is none.
        side: longest side at which it looks; faces below 4 % of it are not found.
        most: faces followed at once; the largest come first. With all of them in sight the detector rests.
    """

    every: int = 10
    searching: int = 3
    side: int = 320
    most: int = 1


LIVE, OFFLINE = Pace(), Pace(every=5, searching=1, side=640)


class Tracker:
    """Follows faces through the frames of one video.

    Args:
        detector, landmarker: perception parts.
        who: says which role a new face plays; None gives role 0 to everybody.
        pace: how often the detector looks.
    """

    def __init__(self, detector: Detector, landmarker: Landmarker, who: Who | None = None, pace: Pace = LIVE) -> None:
        self.detector, self.landmarker, self.who, self.pace = detector, landmarker, who, pace
        self.tracks: list[Track] = []
        self._given = 0
        self._since_look = pace.every

    def __call__(self, rgb: np.ndarray, time: float) -> tuple[Tracked, ...]:
        """The faces of the next frame.

        Args:
            rgb: (H, W, 3) uint8.
            time: of the frame, seconds, growing.

        Returns:
            Faces in sight, longest known first.
        """
        for track in self.tracks:
            if not track.lost:
                self._follow(track, rgb, time)
        self._since_look += 1
        if self._due():
            self._look(rgb, time)
        self.tracks = self._sorted_out(time)
        return tuple(Tracked(t.number, t.face, t.role) for t in self.tracks if not t.lost)

    def _follow(self, track: Track, rgb: np.ndarray, time: float) -> None:
        found = self.landmarker(rgb, track.face, passes=1)
        if (found.presence or 0.0) < PRESENT or not _inside(found, rgb):
            track.lost, self._since_look = True, max(self._since_look, self.pace.searching)
            return
        self._seen(track, found, rgb, time)

    def _seen(self, track: Track, found: Face, rgb: np.ndarray, time: float) -> None:
        track.face = track.filter(found, time)
        track.last_seen, track.lost = time, False
        track.age += 1
        if track.role is None and track.age in ASKED_AGAIN:
            track.role = self._role(rgb, track.face)

    def _due(self) -> bool:
        in_sight = sum(not track.lost for track in self.tracks)
        if in_sight >= self.pace.most:
            return False
        searching = in_sight < len(self.tracks) or not self.tracks
        return self._since_look >= (self.pace.searching if searching else self.pace.every)

    def _look(self, rgb: np.ndarray, time: float) -> None:
        """Finds lost faces again, and new ones."""
        self._since_look = 0
        for found in detect_small(self.detector, rgb, self.pace.side):
            if any(overlap(found.box, t.face.box) > SAME for t in self.tracks if not t.lost):
                continue
            if sum(not t.lost for t in self.tracks) >= self.pace.most:
                return
            measured = self.landmarker(rgb, found)
            if (measured.presence or 0.0) < PRESENT or not _inside(measured, rgb):
                continue
            track = self._returned(measured)
            if track is None:
                track = Track(self._given, measured, self._role(rgb, measured))
                self._given += 1
                self.tracks.append(track)
            self._seen(track, measured, rgb, time)

    def _returned(self, face: Face) -> Track | None:
        """The lost track whose face this can be: the nearest one less than a face's width away."""
        lost = [t for t in self.tracks if t.lost]
        ways = [float(np.linalg.norm(_middle(t.face) - _middle(face))) / _width(t.face) for t in lost]
        if not lost or min(ways) > 1:
            return None
        return lost[int(np.argmin(ways))]

    def _sorted_out(self, time: float) -> list[Track]:
        """Without those lost for too long, and without the younger of two that follow one face."""
        kept: list[Track] = []
        for track in sorted(self.tracks, key=lambda t: t.number):
            doubled = any(not k.lost and overlap(k.face.box, track.face.box) > SAME for k in kept)
            if time - track.last_seen <= PATIENCE and not (doubled and not track.lost):
                kept.append(track)
        return kept

    def _role(self, rgb: np.ndarray, face: Face) -> int | None:
        return 0 if self.who is None else self.who(rgb, face)


def detect_small(detector: Detector, rgb: np.ndarray, side: int) -> list[Face]:
    """Faces found in a copy of at most `side` pixels, in pixels of the picture, largest first."""
    height, width = rgb.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = rgb if scale == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    back = np.array([width / size[0], height / size[1]])
    found = detector(small, thorough=False)
    return [replace(f, box=f.box * np.tile(back, 2), points=f.points * back) for f in found]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    total = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common
    return common / max(total, 1e-9)


def _middle(face: Face) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2


def _width(face: Face) -> float:
    return max(float(face.box[2] - face.box[0]), 1e-6)


def _inside(face: Face, rgb: np.ndarray) -> bool:
    """Whether the middle of the face is in the picture, and the face is more than a few pixels wide."""
    mesh = np.asarray(face.mesh)[:, :2]
    middle, extent = (mesh.min(0) + mesh.max(0)) / 2, np.ptp(mesh, axis=0).max()
    return bool((middle > 0).all() and (middle < rgb.shape[1::-1]).all() and extent > 8)
