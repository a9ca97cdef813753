"""mattface bench triplets: exact ground truth of people who never train, over yaw, light and things before the face.

Case n has a fixed yaw, contrast of light and occluder (`case`), everything else is drawn from its seed. The
same people and number give the same triplet. Pictures are of kind "head": everything is drawn, so the ground truth is
exact.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mattface import perception, picture_io
from mattface.errors import InputError
from mattface.measure.held_out import is_held_out
from mattface.training.studio import light, occluders
from mattface.training.studio.camera import frame_as_ffhq, rotation
from mattface.training.studio.people import HAIRS, Studio, build
from mattface.training.studio.render import Drawing
from mattface.training.studio.shots import Config, Shot
from mattface.training.studio.stream import write_shards
from mattface.training.studio.studio_file import load_studio, save_studio
from mattface.training.studio.triplet import Triplet
from mattface.training.studio.triplets import TripletMaker

YAWS = (0, 30, 60)
LIGHTS = ("any", "any", "dark to light", "light to dark")
OCCLUDERS = ("glasses", "hand", "microphone", "fringe", "", "", "", "", "", "")
CONTRAST = 2.2
"""How many times as bright the lighter face of a pair of dark and light is, as far as skin and light say."""
TRIES = 200


@dataclass(frozen=True)
class Case:
    """What a triplet shows.

    Attributes:
        yaw: the target's, in degrees, to either side, give or take 2.
        light: one of `LIGHTS`: source to target.
        occluder: what lies before the target's face; empty for nothing.
    """

    yaw: int
    light: str
    occluder: str

    @property
    def notes(self) -> tuple[str, ...]:
        """The case in words, as triplets carry it."""
        return (f"yaw {self.yaw}", f"light {self.light}", f"before {self.occluder or 'nothing'}")


def case_of(number: int) -> Case:
    """The case of a number: every 120 have each combination of yaw, light and occluder as often as it is listed."""
    yaw, rest = YAWS[number % 3], number // 3
    return Case(yaw, LIGHTS[rest % 4], OCCLUDERS[rest // 4 % 10])


def case_from_notes(notes: Sequence[str]) -> Case:
    """The case out of a triplet's notes.

    Raises:
        InputError: the triplet was not made for an evaluation.
    """
    words = {note.partition(" ")[0]: note.partition(" ")[2] for note in notes[-3:]}
    if set(words) != {"yaw", "light", "before"}:
        raise InputError("expected triplets of an evaluation; these say nothing of yaw. See: mattface bench triplets.")
    return Case(int(words["yaw"]), words["light"], "" if words["before"] == "nothing" else words["before"])


class CaseMaker(TripletMaker):
    """Makes the triplet of a case.

    Args:
        studio: people who never train.
        size: side of the pictures in pixels.
    """

    def __init__(self, studio: Studio, size: int = 512) -> None:
        super().__init__(studio, Config(size=size, kinds=(1, 0, 0), wide=0, occluded=0, same=0))

    def __call__(self, seed: int, kind: str | None = None) -> Triplet:
        """The triplet of case `seed`; `kind` must be None or "head"."""
        if kind not in (None, "head"):
            raise InputError(f'an evaluation has triplets of kind "head" alone; got {kind!r}.')
        rng = np.random.default_rng([6, seed])
        shots = self._shots(case_of(seed), rng)
        return self._finished(*shots, "head", seed, rng)

    def _shots(self, asked_for: Case, rng: np.random.Generator) -> tuple[Shot, Shot]:
        """Source and target: drawn again until the light is as asked for."""
        for _ in range(TRIES):
            people = [self.photographer.person(rng, photographed=False) for _ in range(2)]
            if people[0].name == people[1].name:
                continue
            target = self._turned(self.photographer.shot(people[1], rng, "head"), asked_for.yaw, rng)
            kind = "photo" if people[0].photo is not None and rng.random() < 0.5 else "head"
            source = self.photographer.shot(people[0], rng, kind)
            ratio = brightness(target) / brightness(source)
            least = {"any": 0.0, "dark to light": CONTRAST, "light to dark": 0.0}[asked_for.light]
            most = {"any": np.inf, "dark to light": np.inf, "light to dark": 1 / CONTRAST}[asked_for.light]
            if least <= ratio <= most:
                return source, target
        raise InputError(f"expected two people with faces {asked_for.light}; drew {TRIES} pairs. Add people.")

    def _turned(self, shot: Shot, yaw: int, rng: np.random.Generator) -> Shot:
        """The shot with its head turned to either side, framed by its landmarks with some room around."""
        model, size = self.studio.model, self.config.size
        marks = model.vertices(shot.person.identity, shot.expression)[model.landmarks]
        side = rng.choice([-1, 1])
        pose = rotation(float(side * yaw + rng.uniform(-2, 2)), float(rng.normal(0, 6)), float(rng.normal(0, 4)))
        camera = frame_as_ffhq(pose, marks, size, float(rng.uniform(45, 160)))
        room = 0.9
        away = np.array([[room, 0, size * (1 - room) / 2], [0, room, size * (1 - room) / 2], [0, 0, 1]])
        return Shot(shot.person, shot.expression, camera.moved(away), shot.light, shot.background, shot.cloth)

    def _before(
        self, drawn: dict[str, Drawing], target: Shot, kind: str, seed: int, rng: np.random.Generator
    ) -> tuple[dict[str, occluders.Layer], tuple[str, ...]]:
        size, model, wanted = self.config.size, self.studio.model, case_of(seed)
        none = (np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
        layer = none
        if wanted.occluder == "fringe":
            hair = target.person.hair if target.person.hair.max() > 0 else HAIRS[1]
            layer = occluders.fringe(size, drawn["target"], model, rng, hair)
        elif wanted.occluder:
            layer = occluders.KINDS[wanted.occluder](size, drawn["target"], model, rng)
        return {"source": none, "target": layer}, wanted.notes


def brightness(shot: Shot) -> float:
    """Linear brightness of a face: its mean skin under the light that comes from the camera's side."""
    skin = float(shot.person.skin @ np.array([0.2126, 0.7152, 0.0722]))
    front = float((light.basis(np.array([[0.0, 0.2, 0.98]]))[0] @ shot.light).mean())
    return skin * max(front, light.DARKEST)


def evaluation_portraits(folder: Path) -> list[Path]:
    """Portraits of the evaluation people in a folder, sorted by name."""
    if not folder.is_dir():
        raise InputError(f"expected a folder of portraits; {folder} is none.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png") and is_held_out(p.stem))
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least two portraits of evaluation people; found {len(paths)}.")
    return paths


def fitted(folder: Path, without: Sequence[str] = ()) -> Studio:
    """A studio of the evaluation people alone; its mean skin is learned from them too.

    Args:
        folder: of portraits.
        without: file stems to leave out, because what lies around the face is taken for skin (a tight scarf).
    """
    from tqdm import tqdm

    find, measure = perception.load("detector"), perception.load("landmarks")
    photos = []
    chosen = [path for path in evaluation_portraits(folder) if path.stem not in without]
    for path in tqdm(chosen, desc="fitting", disable=None):
        pixels = picture_io.read(path).pixels
        faces = find(pixels)
        if faces:
            photos.append((path.name, pixels, measure(pixels, faces[0])))
    return build(photos)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("--portraits", type=Path, metavar="DIR", help="portraits; evaluation people are fitted")
    parser.add_argument("--people", type=Path, metavar="FILE.npz", help="the fitted people: kept here, read if there")
    parser.add_argument("--without", default="", metavar="STEM,STEM", help="portraits that are not fitted")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of shards; whole ones are kept")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="triplets (default: 500)")
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="side of the pictures (default: 512)")
    parser.add_argument("--per-shard", type=int, default=50, metavar="N", help="default: 50")


def run(args: argparse.Namespace) -> None:
    """Fits the evaluation people, if need be, and renders."""
    if args.people is not None and args.people.exists():
        studio = load_studio(args.people)
    elif args.portraits is not None:
        studio = fitted(args.portraits, args.without.split(","))
        if args.people is not None:
            save_studio(studio, args.people)
    else:
        raise InputError("expected --portraits DIR, or --people FILE.npz that is there; got neither.")
    trained = [p.name for p in studio.people if not is_held_out(Path(p.name).stem)]
    if trained:
        raise InputError(f"expected evaluation people only; {trained[0]} trains. Fit them again: --portraits.")
    for path in write_shards(CaseMaker(studio, args.size), args.out, args.count, args.per_shard):
        print(path, flush=True)
