"""mesh: dense correspondence, light matching and multi-band blending. Nothing is trained; any resolution.

The honest yardstick: the source's own pixels, moved onto the target's mesh. It fails where the source does not show
what the target needs (a face turned far away, hands or hair over the face, glasses in one of the two photos).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch

from mattface import light, mesh, perception
from mattface.errors import UsageError
from mattface.matte import MatteConfig, MatteStage, Visibility, face_height, resized
from mattface.mesh.regions import Regions
from mattface.methods.contract import CropSpec, Description
from mattface.multiband import multiband, reached_box
from mattface.parse import Parser
from mattface.vocabulary import Crop, MatteFilter, Swap

MATTE = MatteConfig(hidden=0.03, opening_heights=0.008, opening_sides=0.0)


@dataclass(frozen=True)
class Config:
    """Every number of the method.

    Attributes:
        light_radius: radius of the local light estimate, in face heights.
        local_light: largest local departure from the overall change of light, natural logarithm.
        hair: skin distance (see `light.skin_distance`) from which something covers the face.
        bands: smallest side of the blending pyramid in pixels.
        coarse: the mesh is drawn at one `coarse`-th of the crop's resolution; more is faster (video).
        light_side: side in pixels at which light is measured; less is faster (video).
        largest: largest side of a crop in pixels; None for 4096.
        fill: softness, in face heights, of the border between several pictures of the source.
        matte: what is replaced, see there.
    """

    light_radius: float = 0.10
    local_light: float = 0.9
    hair: float = 1.2
    bands: int = 32
    coarse: float = 1.0
    light_side: int = light.WORK_SIDE
    largest: int | None = None
    fill: float = 0.02
    matte: MatteConfig = MATTE


@dataclass(frozen=True)
class Encoded:
    """The source as the method keeps it.

    Attributes:
        pixels: (S, S, 3) float32 RGB in [0, 1].
        mesh: (468, 3) in pixels of the crop.
        visible: (468,) of `mesh.self_visibility`.
        seen: (s, s) float32 in [0, 1], how far the crop shows the face itself and not what lies before it.
        others: further pictures of the person, for what this one does not show.
    """

    pixels: np.ndarray
    mesh: np.ndarray
    visible: np.ndarray
    seen: np.ndarray
    others: tuple[Encoded, ...] = ()


class MeshMethod:
    """mesh behind the method contract."""

    name = "mesh"

    def __init__(self, config: Config, parser: Parser, device: torch.device) -> None:
        self.config = config
        self.crop = CropSpec("ffhq", None, config.largest)
        self.matte = MatteStage(parser, config.matte)
        self.device = device

    def encode(self, source: Crop) -> Encoded:
        """Keeps the source's pixels and mesh.

        Raises:
            UsageError: the crop has no mesh.
        """
        points = required_mesh(source, "source")
        return Encoded(to_array(source), points, mesh.self_visibility(points), self.matte.source(source))

    def merge(self, encoded: Sequence[Encoded]) -> Encoded:
        """The first, with the others for what it does not show."""
        return replace(encoded[0], others=tuple(encoded[1:]))

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, None, self.matte.parser.name)

    def swap(self, encoded: Encoded, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop.

        Args:
            encoded: from `encode`.
            target: crop with a mesh.
            matte_filter: filters the matte over time, before anything is blended by it.

        Returns:
            Swap with extras "flow" (1, 2, S, S), source position in [-1, 1] over the source crop, and "visibility"
            (1, 1, S, S) in [0, 1].

        Raises:
            UsageError: the crop has no mesh.
        """
        part, window = crop_around_face(target)
        size, rest = target.size, cv2.BORDER_REPLICATE
        pixels, matte, flow, visibility = self.swap_part(encoded, part, window, size, matte_filter)
        whole = to_array(target)
        whole[window] = pixels
        flow = bordered(flow, window, size, rest) * (2 / encoded.pixels.shape[0]) - 1
        return Swap(
            self.tensor(whole * 2 - 1),
            self.tensor(bordered(matte, window, size)[..., None]),
            {"flow": self.tensor(flow), "visibility": self.tensor(bordered(visibility, window, size)[..., None])},
        )

    def swap_part(
        self,
        encoded: Encoded,
        target: Crop,
        window: tuple[slice, slice],
        whole: int,
        matte_filter: MatteFilter | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Swaps the part of a crop that holds the face.

        Args:
            encoded: from `encode`.
            target: square part of the crop.
            window: where it lies in the crop (rows, columns).
            whole: side of the crop.
            matte_filter: see `swap`.

        Returns:
            Pixels (P, P, 3) in [0, 1], matte (P, P), flow (P, P, 2) in source pixels, visibility (P, P).
        """
        points, pixels, size = required_mesh(target, "target"), to_array(target), target.size
        coarse = max(1, round(size / self.config.coarse))
        drawn_at = points * (coarse / size)
        drawing = mesh.Drawing.of(drawn_at, coarse)
        regions, height = Regions.draw(drawing), face_height(drawn_at)
        flow, warped, visibility = warp_source(encoded, drawn_at, drawing, regions, size)
        for other in encoded.others:
            _, more, shown = warp_source(other, drawn_at, drawing, regions, size)
            warped, visibility = fill(warped, visibility, more, shown, self.config.fill * height)
        fine = resized(visibility, size)
        side = max(1, round(min(self.config.light_side, whole) * size / whole))
        own, new, covered = self.match(warped, pixels, regions, visibility, height, side)
        inner = self.matte.inner(target, matte_filter, coarse, height)
        matte = Visibility(inner, fine, self.matte.openings(encoded.mesh, points, size, regions), covered).matte()
        if matte_filter is not None:
            matte = matte_filter(bordered(matte, window, whole))[window]
        reach = reached_box(matte)  # beyond it everything is the target's
        matched = pixels.copy()
        own, new = (resized(one, size, cv2.INTER_CUBIC) for one in (own, new))
        matched[reach] = light.relight_skin(warped[reach], own[reach], new[reach])
        return multiband(matched, pixels, matte, self.config.bands), matte, flow, fine

    def match(
        self, warped: np.ndarray, pixels: np.ndarray, regions: Regions, visibility: np.ndarray, height: float, side: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Light of the warped source and light it shall have, (side, side, 3), and where hair covers either face.

        Args:
            warped, pixels: (P, P, 3) warped source and target.
            regions, visibility: (C, C) at the drawing's size.
            height: of the face at that size.
            side: at which light is measured.
        """
        config, size = self.config, len(visibility)
        skin, face, border = regions.skin * visibility, regions.face, regions.border
        small = [light.shrink(m, side) for m in (warped, pixels)]
        side = len(small[0])
        skin, face = (resized(m, side) for m in (skin * (1 - 0.95 * border), face))
        sigma = config.light_radius * height * side / size
        source, target = (light.measure_light(p, skin, sigma) for p in small)
        wanted = light.limit_change(source.colour, target.colour, skin * source.trust, config.local_light)
        cover = np.zeros_like(skin)
        for one in (source, target):
            found = light.reach_from_outside(one.outlier, face, config.hair, 0.8 * sigma)
            cover = np.maximum(cover, found)
        cover = cv2.resize(light.blur(cover.astype(np.float32), 1.5), (size, size)) * border
        return source.colour, wanted, cover

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """(S, S, C) to (1, C, S, S) on the method's device."""
        planes = np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)
        return torch.from_numpy(planes)[None].to(self.device)


ROOM = 0.05
"""Sides of the crop left around the mesh: what softens, and blends in wide bands, needs some."""


def crop_around_face(crop: Crop) -> tuple[Crop, tuple[slice, slice]]:
    """The square part of a crop that holds the whole mesh, or the crop itself; and where it lies (rows, columns)."""
    points, size = required_mesh(crop, "target")[:, :2], crop.size
    low = np.floor(points.min(0) - ROOM * size).astype(int)
    high = np.ceil(points.max(0) + ROOM * size).astype(int)
    side = int((np.minimum(high, size) - np.maximum(low, 0)).max(initial=0))
    if not 0 < side < 0.9 * size:
        return crop, (slice(0, size), slice(0, size))
    left, top = (int(n) for n in np.clip((np.clip(low, 0, size) + np.clip(high, 0, size) - side) // 2, 0, size - side))
    moved = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    window = slice(top, top + side), slice(left, left + side)
    pixels, corner = crop.pixels[:, :, window[0], window[1]], np.array([left, top, 0.0])
    part = Crop(pixels, moved @ crop.image_to_crop, np.asarray(crop.mesh) - corner, crop.points - corner[:2])
    return part, window


def bordered(
    values: np.ndarray, window: tuple[slice, slice], size: int, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """A map of a part, laid out over the whole crop: zeros around it, or as cv2's `border` says."""
    rows, columns = window
    return cv2.copyMakeBorder(values, rows.start, size - rows.stop, columns.start, size - columns.stop, border)


def to_array(crop: Crop) -> np.ndarray:
    """(S, S, 3) float32 in [0, 1]."""
    return np.ascontiguousarray(crop.pixels[0].permute(1, 2, 0).cpu().float().numpy()) * 0.5 + 0.5


def required_mesh(crop: Crop, who: str) -> np.ndarray:
    """The crop's mesh, or UsageError."""
    if crop.mesh is None:
        raise UsageError(f"mesh needs dense landmarks of the {who}; this crop has no mesh. Find landmarks first.")
    return np.asarray(crop.mesh, np.float64)


def warp_source(
    source: Encoded, points: np.ndarray, drawing: mesh.Drawing, regions: Regions, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture of the source on the target's mesh.

    Args:
        source: the picture.
        points: (468, 3) the target's mesh, at the drawing's size C.
        drawing, regions: of it.
        size: side P of the result.

    Returns:
        Flow (P, P, 2) in source pixels, warped pixels (P, P, 3), and (C, C) how well the source shows every pixel.
    """
    coarse = len(regions.face)
    flow, visibility = mesh.flow(source.mesh, points, coarse, source.visible, drawing)
    shown = sample_visibility(source.seen, flow / len(source.pixels))
    visibility *= np.maximum(shown, regions.border)  # hair at the border is found by its colour, see `match`
    flow = resized(flow, size, cv2.INTER_CUBIC)
    return flow, resample(source.pixels, flow), visibility


def fill(
    warped: np.ndarray, visibility: np.ndarray, other: np.ndarray, shown: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """A warped source, with what it does not show from another picture of the same person.

    The other takes over where it shows a pixel well that the first shows badly. Its colour is brought to the first's by
    one factor per channel, measured where both show the face; what remains, the local matching of light takes away.

    Args:
        warped, other: (P, P, 3) in [0, 1].
        visibility, shown: (C, C) how well each shows the target's pixels.
        sigma: softness of the border in pixels of C.

    Returns:
        (P, P, 3) pixels and (C, C) visibility of both together.
    """
    size, coarse = len(warped), len(visibility)
    better = light.blur(mesh.ramp(shown - visibility, 0.2, 0.6).astype(np.float32), sigma)
    both = np.minimum(visibility, shown) + np.float32(1e-6)
    means = [light.weighted_mean(resized(p, coarse), both) + 1e-3 for p in (warped, other)]
    share = resized(better, size)[..., None]
    pixels = warped + share * (np.clip(other * (means[0] / means[1]).astype(np.float32), 0, 1) - warped)
    return pixels, visibility + better * np.maximum(shown - visibility, 0)


def sample_visibility(seen: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """(C, C) of a source's (s, s) map, where a flow (C, C, 2) of shares of its side points; the border repeats."""
    x, y = (np.ascontiguousarray(flow[..., k] * len(seen) - 0.5, np.float32) for k in range(2))
    return cv2.remap(seen, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def resample(pixels: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Samples (S, S, 3) at flow (H, W, 2): area average first where the source is finer, then bicubic; in [0, 1]."""
    across = np.linalg.norm(np.diff(flow[::8], axis=1)[:, ::8], axis=-1)
    shrink = float(np.median(across))
    if shrink > 1.2:
        side = max(1, round(pixels.shape[0] / shrink))
        flow = flow * (side / pixels.shape[0])
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    x, y = (np.ascontiguousarray(flow[..., k] - np.float32(0.5)) for k in range(2))
    sampled = cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.clip(sampled, 0, 1)


def build(
    weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
) -> MeshMethod:
    """Builds the method.

    Args:
        weights: must be None; the method has none.
        device: where the returned tensors lie (the work itself is done on the CPU).
        dtype: of the parser's network; there is no other.
        commercial: see the contract.
        options: fields of `Config` and of its `MatteConfig`.

    Raises:
        UsageError: weights were named, or an option is unknown.
    """
    if weights is not None:
        raise UsageError(f"mesh has no weights; got weights={weights!r}. Leave it out.")
    own, of_matte = Config.__dataclass_fields__.keys() - {"matte"}, MatteConfig.__dataclass_fields__.keys()
    if unknown := sorted(options.keys() - own - of_matte):
        raise UsageError(f"mesh options are {', '.join([*sorted(own), *of_matte])}; got {', '.join(unknown)}.")
    matte = replace(MATTE, **{name: value for name, value in options.items() if name in of_matte})
    config = Config(**{name: value for name, value in options.items() if name in own}, matte=matte)
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    return MeshMethod(config, parser, device)
