"""People of the studio: shape, skin, hair and eyes out of photographs, and new people by mixing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mattface.align import cut
from mattface.errors import InputError
from mattface.pixels import to_pixels
from mattface.training.studio import light
from mattface.training.studio.anatomy import Anatomy, skin_likeness, tone
from mattface.training.studio.face_model import EYE, FaceModel, load_model
from mattface.training.studio.fit import Fitter
from mattface.training.studio.fitted_face import Fit
from mattface.training.studio.refine import Refiner
from mattface.training.studio.texture import (
    Atlas,
    Unwrapped,
    complete_albedo,
    make_symmetric,
    mean_albedo,
    ramp,
    unwrap,
)
from mattface.vocabulary import Face

IRISES = ((0.035, 0.018, 0.010), (0.08, 0.045, 0.02), (0.10, 0.09, 0.04), (0.09, 0.13, 0.09), (0.09, 0.13, 0.19))
"""Linear colours: dark brown, brown, hazel, green, blue."""
HAIRS = np.array([
    (0.012, 0.010, 0.010), (0.030, 0.020, 0.014), (0.075, 0.042, 0.024), (0.16, 0.09, 0.045), (0.36, 0.24, 0.12),
    (0.16, 0.055, 0.022), (0.20, 0.19, 0.18), (0.45, 0.44, 0.42),
])  # fmt: skip
"""Linear colours: black, dark brown, brown, light brown, blond, red, grey, white."""
SIDE = 512


@dataclass(frozen=True)
class Photo:
    """The photograph a person came from: (S, S, 3) uint8 FFHQ crop, and the fit in pixels of that crop."""

    pixels: np.ndarray
    fit: Fit


@dataclass(frozen=True)
class Person:
    """Somebody the studio can draw.

    Attributes:
        name: where from.
        identity: (I,) float32.
        albedo: (2, U, U, 3) uint8 sRGB: face and head without light, as the photograph shows them.
        bare: (2, U, U, 3) uint8 sRGB: the same, skin in place of hair, cloth and what else is not the person's face.
        cover: (U, U) uint8: 255 where the face layer of `albedo` shows such things.
        skin, hair: (3,) linear mean colours.
        iris: linear colour.
        photo: the photograph; None for mixed people.
    """

    name: str
    identity: np.ndarray
    albedo: np.ndarray
    bare: np.ndarray
    cover: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    iris: tuple[float, float, float]
    photo: Photo | None = None


@dataclass(frozen=True)
class Studio:
    """What all people share."""

    model: FaceModel
    atlas: Atlas
    anatomy: Anatomy
    people: tuple[Person, ...]
    mean: np.ndarray


def pack_albedo(albedo: np.ndarray) -> np.ndarray:
    """Linear colours as 8-bit sRGB."""
    return np.rint(light.to_srgb(albedo) * 255).astype(np.uint8)


def unpack_albedo(albedo: np.ndarray) -> np.ndarray:
    """8-bit sRGB as linear colours, float32."""
    return cv2.LUT(albedo.reshape(-1, albedo.shape[-2], 3), light.LINEAR_OF_BYTE).reshape(albedo.shape)


def nearest(known: np.ndarray, colour: np.ndarray, brightness: float) -> int:
    """Index of the known colour (K, 3) nearest to a colour (3,); brightness weighs so much less than hue does."""
    apart = np.log(known + 0.004) - np.log(colour + 0.004)
    return int(((apart - (1 - brightness) * apart.mean(1, keepdims=True)) ** 2).sum(1).argmin())


def iris_colour(model: FaceModel, fit: Fit, rgb: np.ndarray) -> tuple[float, float, float]:
    """The known colour nearest to what the photograph shows around the pupils."""
    vertices = model.vertices(fit.identity, fit.expression)
    eyes = np.flatnonzero(model.part == EYE)
    reach = max(1, round(0.45 * fit.camera.scale))
    seen = [np.zeros((0, 3), np.float32)]
    for side in (-1, 1):
        own = vertices[eyes[model.neutral[eyes, 0] * side > 0]]
        if len(own):
            x, y = fit.camera.project(own[own[:, 2].argmax()][None])[0, :2]
            patch = rgb[max(0, int(y) - reach // 2) : int(y) + reach, max(0, int(x) - reach) : int(x) + reach]
            seen.append(light.to_linear(patch.reshape(-1, 3) / 255.0))
    pixels = np.concatenate(seen)
    if not len(pixels):
        return IRISES[1]
    dark = np.median(pixels[pixels.sum(1) <= np.percentile(pixels.sum(1), 60)], axis=0)
    return IRISES[nearest(np.array(IRISES), dark, 0.5)]


def hair_colour(anatomy: Anatomy, seen: Unwrapped, likeness: np.ndarray) -> np.ndarray:
    """(3,) the natural colour nearest to what the photograph shows on the scalp; dark brown where it shows skin."""
    chosen = (seen.weight > 0.3) & (anatomy.scalp_map > 0.5) & (likeness < 0.5)
    if chosen.sum() < 30:
        return HAIRS[1]
    return HAIRS[nearest(HAIRS, np.median(seen.albedo[chosen], axis=0), 0.8)]


def skin_likenesses(anatomy: Anatomy, seen: Unwrapped, skin: np.ndarray) -> np.ndarray:
    """(2, U, U) skin likeness of both layers."""
    return np.stack([skin_likeness(a, skin, b) for a, b in zip(seen.albedo, anatomy.beard, strict=True)])


def build_person(atlas: Atlas, anatomy: Anatomy, name: str, photo: Photo, seen: Unwrapped, mean: np.ndarray) -> Person:
    """A person out of what their photograph shows."""
    skin = tone(seen.albedo, anatomy.core[0] * seen.weight[0])
    likeness = skin_likenesses(anatomy, seen, skin)
    albedo = complete_albedo(atlas, seen, mean)
    bare = complete_albedo(atlas, skin_only(anatomy, seen, likeness), mean)
    away = (1 - anatomy.core[0]) * (1 - likeness[0]) * seen.weight[0]
    return Person(
        name=name,
        identity=photo.fit.identity,
        albedo=pack_albedo(albedo),
        bare=pack_albedo(bare),
        cover=np.rint(away * 255).astype(np.uint8),
        skin=skin,
        hair=hair_colour(anatomy, seen, likeness),
        iris=iris_colour(anatomy.model, photo.fit, photo.pixels),
        photo=photo,
    )


def skin_only(anatomy: Anatomy, seen: Unwrapped, likeness: np.ndarray) -> Unwrapped:
    """What a photograph shows of the skin: beyond the face's core what looks like it, and nothing of the scalp."""
    kept = anatomy.core + (1 - anatomy.core) * likeness * (1 - ramp(anatomy.scalp_map, 0.0, 1.0))
    return Unwrapped(seen.albedo, (seen.weight * kept).astype(np.float32))


@dataclass(frozen=True)
class Measured:
    """A photograph on its way to a person: name, (S, S, 3) crop, (468, 3) mesh in its pixels, fit, what it shows."""

    name: str
    pixels: np.ndarray
    mesh: np.ndarray
    fit: Fit
    seen: Unwrapped


def measure_portrait(fitter: Fitter, atlas: Atlas, name: str, rgb: np.ndarray, face: Face, size: int) -> Measured:
    """Cuts an FFHQ crop of `size`, fits the model by landmarks, and unwraps.

    Raises:
        InputError: the face has no dense landmarks.
    """
    crop = cut(rgb, face, "ffhq", size)
    if crop.mesh is None:
        raise InputError(f"{name}: expected a face with dense landmarks; got none.")
    pixels = to_pixels(crop.pixels, np.uint8)
    fit = fitter(crop.mesh, pixels)
    return Measured(name, pixels, crop.mesh, fit, unwrap(atlas, fit, pixels))


def refine_measured(refiner: Refiner, atlas: Atlas, one: Measured) -> Measured:
    """The same with its fit improved by pixels."""
    fit = refiner(one.fit, one.mesh, one.pixels)
    return replace(one, fit=fit, seen=unwrap(atlas, fit, one.pixels))


def mean_skin(anatomy: Anatomy, everybody: Sequence[Measured]) -> np.ndarray:
    """(2, U, U, 3) mean albedo of bare skin, the same on both sides."""
    shown = []
    for one in everybody:
        skin = tone(one.seen.albedo, anatomy.core[0] * one.seen.weight[0])
        shown.append(skin_only(anatomy, one.seen, skin_likenesses(anatomy, one.seen, skin)))
    return make_symmetric(mean_albedo(shown))


def build(
    photos: Iterable[tuple[str, np.ndarray, Face]],
    model: FaceModel | None = None,
    size: int = 768,
    side: int = SIDE,
    by_pixels: bool = True,
) -> Studio:
    """Makes people out of photographs; give photographs of training people only, since a mean skin is learned.

    Args:
        photos: (name, (H, W, 3) uint8 picture, face with mesh).
        model: the face model; None takes the card's.
        size: side of the FFHQ crops that are kept.
        side: texels of a texture layer.
        by_pixels: whether fits by landmarks are improved by pixels, against the mean skin.
    """
    model = load_model() if model is None else model
    atlas, fitter = Atlas(model, side), Fitter(model)
    anatomy = Anatomy(atlas)
    everybody = [measure_portrait(fitter, atlas, name, rgb, face, size) for name, rgb, face in photos]
    if not everybody:
        raise InputError("expected at least one photograph with a face; got none.")
    mean = mean_skin(anatomy, everybody)
    if by_pixels:
        refiner = Refiner(fitter, anatomy, mean)
        everybody = [refine_measured(refiner, atlas, one) for one in everybody]
        mean = mean_skin(anatomy, everybody)
    people = (build_person(atlas, anatomy, m.name, Photo(m.pixels, m.fit), m.seen, mean) for m in everybody)
    return Studio(model, atlas, anatomy, tuple(people), mean)


def mix_people(studio: Studio, rng: np.random.Generator) -> Person:
    """A new person: shape between two people, stretched and varied; skin of one of them or a mixture of both."""
    count = len(studio.people)
    a, b = (studio.people[int(k)] for k in rng.choice(count, 2, replace=count < 2))
    share = rng.uniform(0, 1)
    noise = rng.standard_normal(len(a.identity)) * 0.5
    identity = share * a.identity + (1 - share) * b.identity
    identity = np.clip(identity * rng.uniform(0.9, 1.15) + noise, -3, 3).astype(np.float32)
    if rng.random() < 0.5:
        return replace(a, name=f"{a.name} reshaped", identity=identity, photo=None)
    part = rng.uniform(0.25, 0.75)
    skin = np.exp(part * np.log(a.skin) + (1 - part) * np.log(b.skin))
    bare = cv2.addWeighted(a.bare, part, b.bare, 1 - part, 0)  # in sRGB, which is near to how colours mix in logarithms
    nearer = a if part > 0.5 else b
    return replace(
        nearer, name=f"{a.name} + {b.name}", identity=identity, albedo=bare, bare=bare,
        cover=np.zeros_like(a.cover), skin=skin, photo=None,
    )  # fmt: skip
