"""Which part of every block a region of the picture needs, and cutting maps down to it.

A result at p depends on inputs up to one pixel beyond p / 2 through an up-convolution and its filter, and on its own
neighbours through the second convolution of a block.
"""

from __future__ import annotations

import torch

from mattface.errors import UsageError
from mattface.vocabulary import Box, GeneratorFeatures

REGION_FROM = 32
"""Blocks up to this resolution are always made whole: their time is small, and their weights are packed for it."""
Corner = tuple[int, int]
"""Row and column of a crop's first pixel in the whole map."""


def parts_of(region: Box, blocks: list[int]) -> dict[int, Box]:
    """Resolution of a block -> the part of its input, in the input's pixels, that `region` of the last block needs."""
    left, top, right, bottom = region
    side = blocks[-1]
    if not (0 <= left < right <= side and 0 <= top < bottom <= side):
        raise UsageError(f"region must be (left, top, right, bottom) within {side} pixels; got {region}.")
    low, high, parts = (left, top), (right, bottom), {}
    for r in reversed(blocks):
        if r > REGION_FROM:
            low = tuple(max(0, (a - 3) // 2) for a in low)  # type: ignore[assignment]
            high = tuple(min(r // 2, b // 2 + 2) for b in high)  # type: ignore[assignment]
            parts[r] = (*low, *high)
        else:
            parts[r] = (0, 0, r // 2, r // 2)
    return parts


def cropped(
    x: torch.Tensor, rgb: torch.Tensor, part: Box, corner: Corner
) -> tuple[tuple[torch.Tensor, torch.Tensor], Corner]:
    """That part of two maps which begin at `corner`, and the corner of what a block makes of it."""
    left, top, right, bottom = part
    rows, columns = slice(top - corner[0], bottom - corner[0]), slice(left - corner[1], right - corner[1])
    return (x[:, :, rows, columns], rgb[:, :, rows, columns]), (2 * top, 2 * left)


def only(made: GeneratorFeatures, region: Box, parts: dict[int, Box]) -> GeneratorFeatures:
    """Cuts what was made down to the region, at every resolution."""
    last, boxes, features = max(made.features), {}, {}
    for r, x in made.features.items():
        scale = last // r
        box = (region[0] // scale, region[1] // scale, -(-region[2] // scale), -(-region[3] // scale))
        left, top = (2 * parts[r][0], 2 * parts[r][1]) if r > REGION_FROM else (0, 0)
        boxes[r] = box
        cut = (slice(box[1] - top, box[3] - top), slice(box[0] - left, box[2] - left))
        features[r] = x[:, :, cut[0], cut[1]]
    image = made.image[:, :, cut[0], cut[1]] if made.image is not None else None
    return GeneratorFeatures(features, image, boxes)
