"""How people are pictured: who, with which expression, pose, camera, light and background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from mattface.errors import UsageError
from mattface.training.studio import light
from mattface.training.studio.camera import Camera, frame_as_ffhq, rotation
from mattface.training.studio.face_model import FaceModel
from mattface.training.studio.people import Person, Photo, Studio, mix_people

KINDS = ("head", "photo", "inexact")
"""head: everything is drawn. photo: drawn faces in photographs that follow them. inexact: real photographs, of which
the swap alone is drawn; its ground truth is as good as the fits."""


@dataclass(frozen=True)
class Config:
    """What triplets are like.

    Attributes:
        size: side S in pixels, 256 to 1024.
        kinds: share of every kind in `KINDS`, summing to 1.
        new_people: share of sources and targets that are mixed, not one of the photographed.
        wide: share of drawn heads whose yaw is uniform up to 90 degrees; the others look ahead, more or less.
        occluded: how often things lie before a face, 0 to 1.
        tone: how far the swapped face takes the mean skin colour of the target, 0 (the source's own) to 1.
        same: share of triplets whose source is the target's person.
    """

    size: int = 256
    kinds: tuple[float, float, float] = (0.45, 0.45, 0.10)
    new_people: float = 0.5
    wide: float = 0.35
    occluded: float = 0.5
    tone: float = 0.8
    same: float = 0.15


@dataclass(frozen=True)
class Shot:
    """How a person is pictured: expression, camera, light, what is behind the head, colour of painted clothes."""

    person: Person
    expression: np.ndarray
    camera: Camera
    light: np.ndarray
    background: np.ndarray | Photo
    cloth: np.ndarray = field(default_factory=lambda: np.zeros(3))


class Photographer:
    """Invents shots.

    Args:
        studio: people and model.
        config: what triplets are like.
    """

    def __init__(self, studio: Studio, config: Config) -> None:
        self.studio, self.config = studio, config
        self._marks = landmarks_only(studio.model)

    def person(self, rng: np.random.Generator, photographed: bool) -> Person:
        """Somebody: a photographed person, or perhaps a new one."""
        people = self.studio.people
        if not photographed and rng.random() < self.config.new_people:
            return mix_people(self.studio, rng)
        return people[int(rng.integers(len(people)))]

    def shot(self, person: Person, rng: np.random.Generator, kind: str) -> Shot:
        """A person under a new expression, pose and light, in their photograph or before an invented background."""
        expression = self._expression(rng)
        if kind == "photo" and person.photo is not None:
            found = person.photo.fit
            turn = rotation(*(rng.normal(0, (7, 5, 3)).clip(-14, 14)))
            camera = self.scaled(found.camera, person.photo)
            changed = found.light * (1 + rng.normal(0, 0.08, (9, 1)))
            mixed_face = 0.5 * expression + 0.5 * found.expression if rng.random() < 0.7 else found.expression
            return Shot(person, mixed_face, replace(camera, rotation=turn @ camera.rotation), changed, person.photo)
        pose = self._pose(rng)
        marks = self._marks.vertices(person.identity, expression)
        camera = frame_as_ffhq(pose, marks, self.config.size, float(rng.uniform(45, 160)))
        camera, shine, cloth = self._jittered(camera, rng), light.draw_light(rng), rng.uniform(0.1, 0.8, 3) ** 2
        return Shot(person, expression, camera, shine, self._background(rng), cloth)

    def as_photographed(self, person: Person) -> Shot:
        """A person exactly as in their photograph."""
        if person.photo is None:
            raise UsageError(f"expected a photographed person; {person.name} is mixed.")
        fit = person.photo.fit
        return Shot(person, fit.expression, self.scaled(fit.camera, person.photo), fit.light, person.photo)

    def scaled(self, camera: Camera, photo: Photo) -> Camera:
        """A photograph's camera in pixels of this size."""
        return camera.moved(np.diag([self.config.size / len(photo.pixels)] * 2 + [1.0]))

    def _pose(self, rng: np.random.Generator) -> np.ndarray:
        yaw = rng.uniform(-90, 90) if rng.random() < self.config.wide else rng.normal(0, 18)
        return rotation(float(np.clip(yaw, -90, 90)), float(rng.normal(0, 9)), float(rng.normal(0, 5)))

    def _jittered(self, camera: Camera, rng: np.random.Generator) -> Camera:
        """FFHQ framing as inexact as a detector is."""
        size, half = float(np.exp(rng.normal(0, 0.05))), self.config.size / 2
        move = rng.normal(0, 0.02, 2) * self.config.size + half * (1 - size)
        return camera.moved(np.array([[size, 0, move[0]], [0, size, move[1]], [0, 0, 1]]))

    def _expression(self, rng: np.random.Generator) -> np.ndarray:
        """(E,) float32: a photographed person's expression weakened or strengthened, gaze, and some muscles more."""
        model, people = self.studio.model, self.studio.people
        photos = [p.photo for p in people if p.photo is not None]
        out = np.zeros(len(model.expression_names), np.float32)
        if photos:
            out = photos[int(rng.integers(len(photos)))].fit.expression * np.float32(rng.uniform(0.3, 1.1))
        names = np.array(model.expression_names)
        free = ~np.char.startswith(names, "eyeLook") & ~np.char.startswith(names, "Pupil")
        free &= ~np.isin(names, ("jawForward", "mouthClose", "mouthRollLower", "mouthRollUpper"))
        few = rng.random(len(out)) < 0.08
        out = out + np.where(few & free, rng.uniform(0, 0.6, len(out)), 0)
        out[np.char.startswith(names, "eyeLook")] = 0
        extra = {"jawOpen": rng.uniform(0, 0.8) * (rng.random() < 0.3), "eyeBlink": float(rng.random() < 0.06)}
        sideways, up = rng.normal(0, 0.25), rng.normal(-0.05, 0.2)
        extra |= {"eyeLookOut_L": sideways, "eyeLookIn_R": sideways, "eyeLookIn_L": -sideways}
        extra |= {"eyeLookOut_R": -sideways, "eyeLookUp": up, "eyeLookDown": -up}
        for name, value in extra.items():
            for k in [k for k, n in enumerate(names) if n in (name, f"{name}_L", f"{name}_R")]:
                out[k] = max(out[k], value)
        return np.clip(out, 0, 1).astype(np.float32)

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """(S, S, 3) linear: an enlarged, blurred corner of some photograph, or a lit wall."""
        size = self.config.size
        photos = [p.photo for p in self.studio.people if p.photo is not None]
        if photos and rng.random() < 0.8:
            pixels = photos[int(rng.integers(len(photos)))].pixels
            part = max(8, int(len(pixels) * rng.uniform(0.18, 0.3)))
            left = 0 if rng.random() < 0.5 else len(pixels) - part
            top = int(rng.integers(0, max(1, int(len(pixels) * 0.35))))
            corner = pixels[top : top + part, left : left + part]
            image = cv2.resize(corner, (size, size), interpolation=cv2.INTER_CUBIC)
            image = cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.003, 0.03))
            return light.LINEAR_OF_BYTE[image]
        wall = rng.uniform(0.02, 0.7) * np.exp(rng.normal(0, 0.25, 3))
        axis = np.linspace(-1, 1, size)
        away = (axis - rng.normal()) ** 2 + (axis[:, None] - rng.normal()) ** 2
        fall = np.exp(-rng.uniform(0, 0.35) * away)
        return (fall[..., None] * wall).astype(np.float32)


def landmarks_only(model: FaceModel) -> FaceModel:
    """The model with its 68 landmarks as only vertices, for framing; it has no surface."""
    chosen = model.landmarks
    return replace(
        model,
        neutral=model.neutral[chosen],
        identity_deltas=np.ascontiguousarray(model.identity_deltas[:, chosen]),
        expression_deltas=np.ascontiguousarray(model.expression_deltas[:, chosen]),
        part=model.part[chosen],
        landmarks=np.arange(68, dtype=np.int32),
    )
