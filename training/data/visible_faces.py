"""Faces of the studio's triplets as `mattface.parse.visible` sees them, with what of them is visible; augmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mattface import perception
from mattface.errors import InputError
from mattface.landmarks import Landmarker
from mattface.parse import visible
from mattface.training.data.augment import affine_matrices, blob, colour_curve, recolour, resample, uniform
from mattface.training.data.shards import index_shards, read_bytes
from mattface.training.data.studio_triplets import find_mesh
from mattface.training.randomness import shuffled_index, torch_generator
from mattface.training.studio.stream import decode_triplet
from mattface.training.studio.triplet import Triplet
from mattface.training.task import Batch

KEPT = 192
"""Size of the kept squares: they show a little more than the network sees, for the augmentation to move in."""
GUESSED = 0.15
"""Weight of pixels of which only an estimate says that they are hidden."""
LIPS = slice(60, 68)
"""Inner lips among the 68 landmarks."""
BLOBS, PLAIN, BLURRED, NOISE = 0.3, 0.4, 0.3, 0.04
"""Ratio of faces that get a further cover, of covers in one colour, of faces that are blurred; largest noise."""
CLEAR = 0.75
"""Part of a pixel that must be seen face; what is less, and its neighbours, is to be hidden: frames are thin."""


def read_square(triplet: Triplet, picture: str, locate: Landmarker) -> np.ndarray | None:
    """A picture of a triplet: RGB, the maps of `visible.expected`, what of the face is seen, how sure that is.

    An open mouth is part of the face. What is half hidden counts as hidden, and so does what lies beside it. What an
    estimate alone calls hidden, hair and cloth in a photograph, weighs `GUESSED`: it errs on dark foreheads.

    Args:
        triplet: any.
        picture: "target" or "swap".
        locate: finds the landmarks, as for a user's picture.

    Returns:
        (7, KEPT, KEPT) uint8, the weight behind them; None where no face is found.
    """
    pixels, marks = getattr(triplet, picture), triplet.landmarks[picture]
    mesh = find_mesh(pixels, marks, locate)
    if mesh is None:
        return None
    mouth = np.zeros(triplet.matte.shape, np.uint8)
    cv2.fillPoly(mouth, [np.rint(marks[LIPS, :2] - 0.5).astype(np.int32)], 1)
    label = np.maximum(triplet.matte, mouth * (1 - triplet.occluder)).astype(np.float32)
    matrix = visible.square(mesh, KEPT, visible.ROOM * KEPT / visible.SIDE)
    clear = cv2.erode((label >= CLEAR).astype(np.uint8) * 255, np.ones((3, 3), np.uint8))
    known = (triplet.kind == "head") | (clear > 0) | (cv2.dilate(triplet.occluder, np.ones((5, 5))) > 0.1)
    weight = np.where(known, 255, round(255 * GUESSED)).astype(np.uint8)
    seen = [visible.crop_aligned(m, matrix, KEPT) for m in (pixels, clear, weight)]
    maps = [seen[0].transpose(2, 0, 1), visible.expected(mesh, matrix, KEPT), seen[1][None], seen[2][None]]
    return np.concatenate(maps)


def read_squares(shards: Sequence[Path]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """(N, 7, KEPT, KEPT) uint8 of `read_square`, target and swap of every triplet; and what was left out.

    Raises:
        InputError: no triplet shows a face.
    """
    samples, notes = index_shards(shards)
    locate, found, missed = perception.load("landmarks"), [], 0
    for _, members in tqdm(sorted(samples.items()), desc="faces", disable=None):
        triplet = decode_triplet({name: read_bytes(member) for name, member in members.items()})
        for picture in ("target", "swap"):
            made = read_square(triplet, picture, locate)
            missed += made is None
            found += [] if made is None else [torch.from_numpy(made)]
    if not found:
        raise InputError(f"expected triplets that show faces in {len(shards)} shards; found none.")
    return torch.stack(found), (*notes, f"{len(found)} faces; {missed} more were not found")


class VisibleFaceSamples:
    """Augmented squares in an order that changes with every epoch; the same positions always give the same batch.

    Args:
        maps: from `read_squares`.
        seed: of order and augmentation.
    """

    def __init__(self, maps: torch.Tensor, seed: int) -> None:
        self.maps, self.seed = maps, seed

    def batch(self, positions: Sequence[int]) -> Batch:
        """ "input" (B, 5, S, S) of `visible.VisibleFace`; "seen" and its weight "sure", (B, 1, S, S) in [0, 1]."""
        index = [shuffled_index(position, len(self.maps), self.seed) for position in positions]
        return augment_squares(self.maps[index].float() / 255, torch_generator(self.seed, positions[0]))

    def describe(self) -> dict[str, int]:
        """Number of faces."""
        return {"faces": len(self.maps)}


def augment_squares(maps: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Moves, mirrors, recolours, blurs and covers (B, 7, KEPT, KEPT) in [0, 1] and cuts what the network sees."""
    count, side = len(maps), visible.SIDE
    maps = torch.where((torch.rand(count, generator=rng) < 0.5)[:, None, None, None], maps.flip(-1), maps)
    matrix = affine_matrices(count, 15, 1.12, 0.06, rng) * (side / KEPT)
    grid = F.affine_grid(matrix, [count, 7, side, side], align_corners=False)
    maps = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    image, expected, seen, sure = maps[:, :3] * 2 - 1, maps[:, 3:5], maps[:, 5:6], maps[:, 6:]
    cover = blob(count, side, rng) * (torch.rand((count, 1, 1, 1), generator=rng) < BLOBS)
    texture = resample(image.roll(1, 0).flip(-2), affine_matrices(count, 180, 2.0, 0.6, rng))
    plain = (torch.rand((count, 1, 1, 1), generator=rng) < PLAIN).float()
    paint = image[:, :, side // 2, side // 2, None, None] * uniform(0, 1, (count, 1, 1, 1), rng)  # skin to grey,
    paint = paint + uniform(-0.8, 0.9, (count, 1, 1, 1), rng) + uniform(-0.1, 0.1, (count, 3, 1, 1), rng)  # any shade
    texture = texture * (1 - plain) + (paint.clamp(-1, 1) + 0.05 * texture) * plain
    texture = recolour(texture, *colour_curve(count, 0.4, rng))
    image, seen = image * (1 - cover) + texture * cover, seen * (1 - cover)
    sure = torch.maximum(sure, cover)
    image = recolour(image, *colour_curve(count, 0.35, rng))
    soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
    image = torch.where((torch.rand(count, generator=rng) < BLURRED)[:, None, None, None], soft, image)
    image = image + torch.randn(image.shape, generator=rng) * uniform(0, NOISE, (count, 1, 1, 1), rng)
    return {"input": torch.cat([image.clamp(-1, 1), expected], 1), "seen": seen, "sure": sure}
