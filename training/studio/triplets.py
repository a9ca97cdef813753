"""Triplets: (source, target, swap) whose ground truth is known, with everything a loss or a measurement may need."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mattface.errors import UsageError
from mattface.training.studio import light, occluders, raster
from mattface.training.studio.anatomy import match_tone
from mattface.training.studio.face_model import FACE, HEAD
from mattface.training.studio.people import Person, Photo, Studio, unpack_albedo
from mattface.training.studio.render import GRID, Drawing, Head, Renderer, flow, over
from mattface.training.studio.shots import KINDS, Config, Photographer, Shot
from mattface.training.studio.texture import EYE_LAYER, FACE_LAYER, fill_gaps, ramp, sample_image
from mattface.training.studio.triplet import Triplet


class TripletMaker:
    """Makes triplets out of seeds; the same seed gives the same triplet.

    Args:
        studio: people and model.
        config: what triplets are like; None takes the defaults.
        renderer: who draws; None takes the CPU.
    """

    def __init__(self, studio: Studio, config: Config | None = None, renderer: Renderer | None = None) -> None:
        config = Config() if config is None else config
        if not 64 <= config.size <= 1024 or config.size % 2:
            raise UsageError(f"expected an even size of 64 to 1024 pixels; got {config.size}.")
        if len(config.kinds) != 3 or abs(sum(config.kinds) - 1) > 1e-6:
            raise UsageError(f"expected three shares that sum to 1; got {config.kinds}.")
        self.studio, self.config = studio, config
        self.renderer = Renderer(studio.model) if renderer is None else renderer
        self.photographer = Photographer(studio, config)
        self._photographed: dict[str, np.ndarray] = {}

    def __call__(self, seed: int, kind: str | None = None) -> Triplet:
        """The triplet of a seed.

        Args:
            seed: any whole number from 0.
            kind: one of `KINDS`; None draws one.
        """
        rng = np.random.default_rng([20261121, seed])
        drawn = KINDS[int(rng.choice(3, p=self.config.kinds))]
        kind = drawn if kind is None else kind
        if kind not in KINDS:
            raise UsageError(f"expected a kind of triplet {', '.join(KINDS)}; got {kind!r}.")
        ask = self.photographer
        target_person = ask.person(rng, photographed=kind != "head")
        source_person = target_person if rng.random() < self.config.same else ask.person(rng, kind == "inexact")
        if kind == "inexact":
            shots = ask.as_photographed(source_person), ask.as_photographed(target_person)
        else:
            source_kind = "photo" if source_person.photo is not None and rng.random() < 0.5 else "head"
            shots = ask.shot(source_person, rng, source_kind), ask.shot(target_person, rng, kind)
        return self._finished(*shots, kind, seed, rng)

    def head(self, shot: Shot, seed: int, face_of: Person | None = None, shape: np.ndarray | None = None) -> Head:
        """The head of a shot: the person's own, or with somebody else's face on it.

        Shape and skin of the other face fade into the head's own at ears, hair and neck; what the person's photograph
        shows over the face stays. Where no photograph shows the hair, it is painted and lifted.

        Args:
            shot: whose head, and with which expression.
            seed: of painted hair.
            face_of: whose face; None for the person's own.
            shape: (N, 3) the head's vertices where they are known already; left as they are.
        """
        model, anatomy, person = self.studio.model, self.studio.anatomy, shot.person
        drawn = not isinstance(shot.background, Photo)
        vertices = model.vertices(person.identity, shot.expression) if shape is None else shape.copy()
        if face_of is not None:
            change = model.offsets(model.identity_deltas, face_of.identity - person.identity)
            vertices += anatomy.face[:, None] * change
        texture = np.empty((3, *anatomy.face_map.shape[1:], 3), np.float32)
        texture[:EYE_LAYER] = unpack_albedo(person.bare if drawn else person.albedo)
        texture[EYE_LAYER] = anatomy.eyes((face_of or person).iris)
        if face_of is not None:
            self._lay_face(texture[FACE_LAYER], face_of, person, keep_cover=not drawn)
        if drawn:
            rng = np.random.default_rng([7, seed])
            vertices += anatomy.lift * np.float32(rng.uniform(0.2, 1.8) * anatomy.unit)
            anatomy.hair(person.hair, rng).paint(texture[:EYE_LAYER])
        return Head(vertices, texture, anatomy.face_below_hair if drawn else anatomy.face)

    def _lay_face(self, texture: np.ndarray, source: Person, target: Person, keep_cover: bool) -> None:
        """Lays the source's skin over the target's face layer (U, U, 3), in place."""
        share = ramp(self.studio.anatomy.face_map[FACE_LAYER], 0.1, 0.9)
        if keep_cover:
            share = share * (1 - self._over_face(target))
        wanted = source.skin * (target.skin / source.skin) ** self.config.tone
        skin = match_tone(unpack_albedo(source.bare[FACE_LAYER]), source.skin, wanted)
        texture += share[..., None].astype(np.float32) * (skin - texture)

    def _finished(self, source: Shot, target: Shot, kind: str, seed: int, rng: np.random.Generator) -> Triplet:
        """Draws the three pictures and all that goes with them."""
        size, model = self.config.size, self.studio.model
        shape = model.vertices(target.person.identity, target.expression)
        heads = {
            "source": (self.head(source, seed), source),
            "target": (self.head(target, seed + 1, shape=shape), target),
            "swap": (self.head(target, seed + 1, source.person, shape), target),
        }
        drawn = {k: self.renderer(head, shot.camera, shot.light, size) for k, (head, shot) in heads.items()}
        images = {
            "source": self.picture(drawn["source"], source, real=kind == "inexact"),
            "target": self.picture(drawn["target"], target, real=kind == "inexact"),
            "swap": self.picture(drawn["swap"], target, real=False),
        }
        layers, names = self._before(drawn, target, kind, seed, rng)
        layers["swap"] = layers["target"]
        covers = {"source": source.person.cover.astype(np.float32) / 255, "target": self._over_face(target.person)}
        covered = {k: self._covered(heads[k][1], heads[k][0], drawn[k], cover) for k, cover in covers.items()}
        images["swap"] += covered["target"][..., None] * (images["target"] - images["swap"])
        shown = {k: self._shown(image, layers[k]) for k, image in images.items()}
        found, visible = flow(model, drawn["source"], drawn["swap"])
        free, before = ((1 - layers[k][1]) * (1 - covered[k]) for k in ("target", "source"))
        bare = ramp(drawn["source"].face, 0.3, 0.9) * before
        matte = self._matte(drawn) * free
        return Triplet(
            source=shown["source"],
            target=shown["target"],
            swap=shown["swap"],
            flow=found,
            visible=visible * free * sample_image(bare.astype(np.float32), found),
            matte=matte,
            mask=ramp(drawn["target"].face, 0.3, 0.9).astype(np.float32) * free,
            occluder=layers["target"][1],
            depth=drawn["swap"].depth,
            landmarks={k: d.screen[model.landmarks].astype(np.float32) for k, d in drawn.items()},
            coefficients=self._coefficients(source, target),
            kind=kind,
            seed=seed,
            notes=(source.person.name, target.person.name, *names),
        )

    def _before(
        self, drawn: dict[str, Drawing], target: Shot, kind: str, seed: int, rng: np.random.Generator
    ) -> tuple[dict[str, occluders.Layer], tuple[str, ...]]:
        """What lies before the faces of "source" and "target", and what the latter is called."""
        size, model, share = self.config.size, self.studio.model, self.config.occluded
        if kind == "inexact":
            none = (np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
            return {"source": none, "target": none}, ()
        before, _ = occluders.draw_occluders(size, drawn["source"], model, rng, share / 2)
        layer, names = occluders.draw_occluders(size, drawn["target"], model, rng, share)
        return {"source": before, "target": layer}, names

    def _over_face(self, person: Person) -> np.ndarray:
        """(U, U) float32: hair and cloth over the face in a person's photograph; a beard is part of the face."""
        return person.cover.astype(np.float32) / 255 * (1 - self.studio.anatomy.beard[FACE_LAYER])

    def _covered(self, shot: Shot, head: Head, drawing: Drawing, cover: np.ndarray) -> np.ndarray:
        """(S, S) float32: how far the face lies hidden in a photograph, of (U, U) texels that do not show it."""
        if not isinstance(shot.background, Photo) or not cover.any():
            return np.zeros(drawing.coverage.shape, np.float32)
        texture = np.zeros_like(head.texture)
        texture[FACE_LAYER] = cover[..., None]
        seen = self.renderer(Head(head.vertices, texture, head.face), shot.camera, light.GREY, self.config.size)
        return ramp(seen.colour.mean(-1), 0.1, 0.4).astype(np.float32)

    @staticmethod
    def _matte(drawn: dict[str, Drawing]) -> np.ndarray:
        """(S, S) float32: what the swap replaces, the target's face and the source's in its place."""
        share = np.maximum(drawn["target"].face, drawn["swap"].face)
        return ramp(share, 0.02, 0.5).astype(np.float32)

    @staticmethod
    def _shown(image: np.ndarray, layer: occluders.Layer) -> np.ndarray:
        """(S, S, 3) uint8 picture of linear light with a layer before it."""
        seen = image * (1 - layer[1][..., None]) + layer[0]
        return np.rint(light.to_srgb(seen) * 255).astype(np.uint8)

    def picture(self, drawing: Drawing, shot: Shot, real: bool) -> np.ndarray:
        """(S, S, 3) linear: a drawing before a background, or its face in the photograph that follows it."""
        if not isinstance(shot.background, Photo):
            return over(drawing, self._clothed(drawing, shot.background, shot.cloth))
        size = self.config.size
        pixels = cv2.resize(shot.background.pixels, (size, size), interpolation=cv2.INTER_AREA)
        if real:
            return light.LINEAR_OF_BYTE[pixels]
        where = self._followed(drawing, shot.person.name, shot.background)
        followed = light.LINEAR_OF_BYTE[sample_image(pixels, where)]
        share = drawing.face[..., None] / np.maximum(drawing.coverage, 1e-3)[..., None]
        return drawing.colour * share + (1 - drawing.face[..., None]) * followed

    def _clothed(self, drawing: Drawing, background: np.ndarray, cloth: np.ndarray) -> np.ndarray:
        """A linear background with shoulders in cloth of a linear colour below the neck, so that no bust floats."""
        at, scale, size = self.studio.model.neutral[:, 1], drawing.camera.scale, self.config.size
        low = drawing.screen[at < at.min() + 0.12 * (at.max() - at.min()), :2]
        middle = np.array([low[:, 0].mean(), low[:, 1].mean()])
        shape = np.array([[-10.0, -4.0], [10.0, -4.0], [19.0, 2.0], [22.0, 60.0], [-22.0, 60.0], [-19.0, 2.0]])
        cover = occluders.polygon(size, middle + shape * scale)[..., None]
        fall = np.linspace(1.1, 0.7, size, dtype=np.float32)[:, None, None]
        return background + cover * (fall * cloth.astype(np.float32) - background)

    def _followed(self, drawing: Drawing, name: str, photo: Photo) -> np.ndarray:
        """(S, S, 2) float32 place in the photograph of every pixel, for what surrounds the face to follow it."""
        size, model = self.config.size, self.studio.model
        values = self._in_photo(name, photo)
        xy = raster.snap_corners(drawing.screen, GRID)
        found, seen = raster.surface(drawing.ids, drawing.nearest, xy, model.triangles, values, GRID)
        axis = np.arange(size, dtype=np.float32) + 0.5
        here = np.stack(np.broadcast_arrays(axis[None], axis[:, None]), -1)
        step = max(1, size // 128)
        small = (size // step, size // step)
        weight = ((seen >= 0) & (found[..., 2] > 0.99)).astype(np.float32)
        moved = cv2.resize((found[..., :2] - here) * weight[..., None], small, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)
        moved /= np.maximum(weight, 1e-3)[..., None]
        weight[[0, -1], :] = 1
        weight[:, [0, -1]] = 1
        moved[[0, -1], :] *= 0
        moved[:, [0, -1]] *= 0
        field = cv2.GaussianBlur(fill_gaps(moved, np.clip(weight, 0, 1)), (0, 0), 1.5)
        return here + cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR)

    def _in_photo(self, name: str, photo: Photo) -> np.ndarray:
        """(N, 3) where a photograph of this size shows every vertex, and 1 where it is skin; worked out once."""
        if name not in self._photographed:
            model, fit = self.studio.model, photo.fit
            seen = self.photographer.scaled(fit.camera, photo).project(model.vertices(fit.identity, fit.expression))
            self._photographed[name] = np.concatenate([seen[:, :2], np.isin(model.part, (FACE, HEAD))[:, None]], 1)
        return self._photographed[name]

    def _coefficients(self, source: Shot, target: Shot) -> dict[str, Any]:
        return {
            "source_identity": source.person.identity,
            "target_identity": target.person.identity,
            "source_expression": source.expression,
            "target_expression": target.expression,
            "source_pose": source.camera.angles().astype(np.float32),
            "target_pose": target.camera.angles().astype(np.float32),
            "source_light": source.light.astype(np.float32),
            "target_light": target.light.astype(np.float32),
        }
