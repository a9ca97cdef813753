"""What of a target's face is replaced: the one stage of the methods that make their own matte (`mesh`, `mattface`).

Five things decide: the parser (what belongs to the inner face and is not covered), how well the source shows it, mouth
and eyes that do not fit, what a method finds out by itself (hair of another colour), and steadiness over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from mattface.errors import UsageError
from mattface.gaussian import blur
from mattface.mesh import Drawing
from mattface.mesh.openings import fitting
from mattface.mesh.regions import Regions
from mattface.parse import FEATHER, Parser
from mattface.vocabulary import Crop, MatteFilter


@dataclass(frozen=True)
class MatteConfig:
    """Every number of the stage; part of a method's configuration and of its checkpoints.

    Attributes:
        edge: width of the soft edge of the inner face, over the face's own size (`mattface.parse.inner_face`).
        hidden: softness, inwards only, of the border of what lies before the face, in face heights; 0 keeps it.
        opening_heights, opening_sides: softness of mouth and eyes that do not fit, in face heights and over the crop's
            side; they add up.
        opening_side: side in pixels at which mouth and eyes are drawn where a method draws nothing itself.
        mouth_open: opening of the mouth, in mouth widths between the inner lips, from which its inside is visible.
        floor: matte of a network up to which it becomes exactly 0.
        look_every: frames of a moving picture from one look at what lies before a face to the next; more is faster.
    """

    edge: float = FEATHER
    hidden: float = 0.0
    opening_heights: float = 0.0
    opening_sides: float = 1 / 128
    opening_side: int = 256
    mouth_open: float = 0.115
    floor: float = 0.02
    look_every: int = 1

    def __post_init__(self) -> None:
        if self.look_every < 1:
            raise UsageError(f"look_every must be 1 frame or more; got {self.look_every}.")


@dataclass(frozen=True)
class Visibility:
    """Why a face is replaced where it is: maps in [0, 1], each of its own resolution, and their product.

    Attributes:
        inner: (S, S) of the inner face that is not covered in the target.
        source: (S, S) how well the source shows it.
        openings: (C, C) mouth and eyes that fit.
        covered: (C, C) what a method found to be covered otherwise.
    """

    inner: np.ndarray
    source: np.ndarray
    openings: np.ndarray
    covered: np.ndarray

    def matte(self) -> np.ndarray:
        """(S, S) the product of everything."""
        free = np.clip(1 - self.covered, 0, 1) * self.openings
        return self.inner * self.source * resized(free, len(self.inner))


class MatteStage:
    """Parser and settings together. Keeps nothing between calls.

    Args:
        parser: finds the inner face.
        config: see there.
    """

    def __init__(self, parser: Parser, config: MatteConfig) -> None:
        self.parser, self.config = parser, config

    def source(self, crop: Crop) -> np.ndarray:
        """(s, s) how far a source shows its face, and not what lies before it."""
        seen: np.ndarray = self.parser.seen(crop)[0, 0].numpy()
        return seen

    def inner(
        self, target: Crop, matte_filter: MatteFilter | None = None, side: int = 0, height: float = 0.0
    ) -> np.ndarray:
        """(S, S) what the parser lets through, fading towards what lies before the face.

        Args:
            target: crop with a mesh.
            matte_filter: may remember an earlier look.
            side: at which it is softened; not read without `hidden`.
            height: of the face at that side.
        """
        reuse = None if matte_filter is None else partial(matte_filter.visible, self.config.look_every)
        seen: np.ndarray = self.parser(target, self.config.edge, reuse)[0, 0].numpy()
        if not self.config.hidden:
            return seen
        around = blur(resized(seen, side), self.config.hidden * height)
        return np.minimum(seen, resized(around, target.size))

    def openings(
        self, source: np.ndarray, target: np.ndarray, size: int, regions: Regions | None = None
    ) -> np.ndarray:
        """(C, C) less where mouth and eyes of the source do not fit into the openings of the target.

        Args:
            source: (468, 3) mesh in pixels of its crop.
            target: (468, 3) mesh in pixels of a crop of `size`.
            size: see there.
            regions: of the target, (C, C), where they are drawn already; else C is `opening_side`.
        """
        config = self.config
        side = config.opening_side if regions is None else len(regions.face)
        drawn = target * (side / size)
        if regions is None:
            regions = Regions.draw(Drawing.of(drawn, side))
        sigma = config.opening_heights * face_height(drawn) + config.opening_sides * side
        return fitting(source, drawn, regions, sigma, config.mouth_open)


def face_height(points: np.ndarray) -> float:
    """Pixels from the top of the oval to the chin of a (468, 3) mesh."""
    return float(np.linalg.norm(points[10, :2] - points[152, :2]))


def resized(values: np.ndarray, side: int, up: int = cv2.INTER_LINEAR) -> np.ndarray:
    """A square map at another side: area means down, `up` to a larger one."""
    if len(values) == side:
        return values
    return cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA if side < len(values) else up)
