"""People of the studio: shape, skin, hair and eyes out of photographs, and new people by mixing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mattface.errors import InputError
from mattface.training.studio import light
from mattface.training.studio.anatomy import Anatomy
from mattface.training.studio.face_model import EYE, FaceModel, load_model
from mattface.training.studio.fit import Fit, Fitter
from mattface.training.studio.texture import Atlas, Unwrapped, completed, mean_albedo, symmetric, unwrap
from mattface.vocabulary import Face

IRISES = ((0.035, 0.018, 0.010), (0.08, 0.045, 0.02), (0.10, 0.09, 0.04), (0.09, 0.13, 0.09), (0.09, 0.13, 0.19))
"""Linear colours: dark brown, brown, hazel, green, blue."""
DARK_HAIR = np.array([0.020, 0.014, 0.011])
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
        albedo: (2, U, U, 3) uint8 sRGB: face and head without light, hair where the photograph shows it.
        iris, hair: (3,) linear colours.
        photo: the photograph; None for mixed people.
    """

    name: str
    identity: np.ndarray
    albedo: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    photo: Photo | None = None

    def linear(self) -> np.ndarray:
        """(2, U, U, 3) float32 linear albedo."""
        return light.LINEAR_OF_BYTE[self.albedo]


@dataclass(frozen=True)
class Studio:
    """What all people share."""

    model: FaceModel
    atlas: Atlas
    anatomy: Anatomy
    people: tuple[Person, ...]
    mean: np.ndarray


def packed(albedo: np.ndarray) -> np.ndarray:
    """Linear colours as 8-bit sRGB."""
    return np.rint(light.to_srgb(albedo) * 255).astype(np.uint8)


def iris_colour(model: FaceModel, fit: Fit, rgb: np.ndarray) -> np.ndarray:
    """(3,) linear colour of the irises: the known colour nearest to what the photograph shows around the pupils."""
    vertices = model.vertices(fit.identity, fit.expression)
    eyes = np.flatnonzero(model.part == EYE)
    seen = []
    for side in (-1, 1):
        own = vertices[eyes[model.neutral[eyes, 0] * side > 0]]
        if len(own) == 0:
            continue
        front = own[own[:, 2].argmax()]
        x, y = fit.camera.project(front[None])[0, :2]
        reach = max(1, round(0.45 * fit.camera.scale))
        patch = rgb[max(0, int(y) - reach // 2) : int(y) + reach, max(0, int(x) - reach) : int(x) + reach]
        seen.append(light.to_linear(patch.reshape(-1, 3) / 255.0))
    known = np.array(IRISES)
    if not seen or not len(seen[0]):
        return known[1]
    pixels = np.concatenate(seen)
    dark = np.median(pixels[pixels.sum(1) <= np.percentile(pixels.sum(1), 60)], axis=0)
    hue = np.log(known + 0.01) - np.log(dark + 0.01)
    return known[np.argmin(((hue - 0.6 * hue.mean(1, keepdims=True)) ** 2).sum(1))]


def hair_colour(anatomy: Anatomy, seen: Unwrapped) -> np.ndarray:
    """(3,) linear colour of what the photograph shows on the scalp; dark hair where it shows nothing."""
    weight = seen.weight * (anatomy.scalp_map > 1.0)
    if weight.sum() < 30:
        return DARK_HAIR
    colours = seen.albedo[weight > 0.3]
    return np.clip(np.median(colours, axis=0), 0.008, 0.6) if len(colours) else DARK_HAIR


def _measured(
    fitter: Fitter, atlas: Atlas, photos: Iterable[tuple[str, np.ndarray, Face]], size: int
) -> list[tuple[str, Photo, Unwrapped]]:
    """Fits and unwraps every photograph, as FFHQ crops of `size`."""
    from mattface.align import cut
    from mattface.pixels import to_pixels

    found = []
    for name, rgb, face in photos:
        crop = cut(rgb, face, "ffhq", size)
        if crop.mesh is None:
            raise InputError(f"{name}: expected a face with dense landmarks; got none.")
        pixels = to_pixels(crop.pixels, np.uint8)
        fit = fitter(crop.mesh, pixels)
        found.append((name, Photo(pixels, fit), unwrap(atlas, fit, pixels)))
    return found


def build(
    photos: Iterable[tuple[str, np.ndarray, Face]], model: FaceModel | None = None, size: int = 768, side: int = SIDE
) -> Studio:
    """Makes people out of photographs; give photographs of training people only.

    Args:
        photos: (name, (H, W, 3) uint8 picture, face with mesh).
        model: the face model; None takes the card's.
        size: side of the FFHQ crops that are kept.
        side: texels of a texture layer.
    """
    model = load_model() if model is None else model
    atlas = Atlas(model, side)
    anatomy, fitter = Anatomy(atlas), Fitter(model)
    measured = _measured(fitter, atlas, photos, size)
    if not measured:
        raise InputError("expected at least one photograph with a face; got none.")
    mean = symmetric(mean_albedo([seen for _, _, seen in measured]))
    people = []
    for name, photo, seen in measured:
        albedo = completed(atlas, seen, mean)
        hair, iris = hair_colour(anatomy, seen), iris_colour(model, photo.fit, photo.pixels)
        people.append(Person(name, photo.fit.identity, packed(albedo), iris, hair, photo))
    return Studio(model, atlas, anatomy, tuple(people), mean)


def mixed(studio: Studio, rng: np.random.Generator) -> Person:
    """A new person: shape between two people and a third, stretched; skin of one or a mixture of two."""
    count = len(studio.people)
    a, b = (studio.people[int(k)] for k in rng.choice(count, 2, replace=count < 2))
    share = rng.uniform(0, 1)
    noise = rng.standard_normal(len(a.identity)) * 0.5
    identity = share * a.identity + (1 - share) * b.identity
    identity = np.clip(identity * rng.uniform(0.9, 1.15) + noise, -3, 3).astype(np.float32)
    if rng.random() < 0.5:
        return replace(a, name=f"{a.name} reshaped", identity=identity, photo=None)
    skin = rng.uniform(0.25, 0.75)
    logs = [np.log(p.linear() + 0.002) for p in (a, b)]
    albedo = np.exp(logs[0] * skin + logs[1] * (1 - skin)) - 0.002
    nearer = a if skin > 0.5 else b
    return Person(f"{a.name} + {b.name}", identity, packed(albedo), nearer.iris, nearer.hair)
