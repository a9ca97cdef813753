"""Frames of a video as upright RGB, and back: only what a swap changed is written into a decoded frame's planes.

What no face touches reaches the encoder bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mattface.errors import MattfaceError
from mattface.realtime.loop import Box
from mattface.realtime.video import FULL, VideoInfo

if TYPE_CHECKING:
    import av


def upright_rgb(frame: av.VideoFrame, info: VideoInfo) -> np.ndarray:
    """(H, W, 3) uint8 RGB, uint16 for deep video, as the video is to be shown."""
    space, span = info.sws
    rgb = frame.reformat(
        format="rgb48le" if info.deep else "rgb24", src_colorspace=space, src_color_range=span, dst_color_range=FULL,
        threads=1,
    )  # fmt: skip
    return info.orientation.upright(rgb.to_ndarray())


def to_planes(pixels: np.ndarray, info: VideoInfo) -> av.VideoFrame:
    """(H, W, 3) RGB stored pixels as a frame of the video's format."""
    import av

    space, span = info.sws
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb48le" if info.deep else "rgb24")
    return frame.reformat(
        format=info.format, dst_colorspace=space, src_color_range=FULL, dst_color_range=span, threads=1
    )


@dataclass(frozen=True)
class Origin:
    """What a `Shot` out of a video file carries along.

    Attributes:
        frame: the decoded frame.
        info: of its video.
        pixels: the upright RGB that was made of it, unchanged.
    """

    frame: av.VideoFrame
    info: VideoInfo
    pixels: np.ndarray


def repaint(origin: Origin, shown: np.ndarray, boxes: tuple[Box, ...]) -> av.VideoFrame:
    """Writes what changed into the planes of a decoded frame; the rest of it stays as it was, bit for bit.

    Both the picture before and the one after are converted, and their difference is added: rounding of the conversion
    cancels.

    Args:
        origin: the frame; changed in place.
        shown: (H, W, 3) upright RGB with swapped faces.
        boxes: where it may differ from `origin.pixels`.
    """
    frame, info = origin.frame, origin.info
    if not boxes:
        return frame
    if frame.format.name != info.format:
        raise MattfaceError(f"expected a frame in {info.format}; got {frame.format.name}. Read it with VideoReader.")
    frame.make_writable()  # the decoder may still need its copy
    after, before = (info.orientation.stored(p) for p in (shown, origin.pixels))
    planes, white = [plane_array(frame, k) for k in range(3)], 1023 if info.deep else 255
    stored = [even(info.orientation.stored_box(b, info.shown_size), info) for b in boxes]
    for left, top, right, bottom in merge_overlaps(stored):
        old, new = (to_planes(p[top:bottom, left:right], info) for p in (before, after))
        for k, plane in enumerate(planes):
            was, now = (plane_array(f, k).astype(np.int32) for f in (old, new))
            y, x = top * plane.shape[0] // info.height, left * plane.shape[1] // info.width
            part = plane[y : y + now.shape[0], x : x + now.shape[1]]
            part[...] = np.clip(part + now - was, 0, white)
    return frame


def merge_overlaps(boxes: list[Box]) -> list[Box]:
    """Boxes that do not overlap: those that do are joined."""
    done: list[Box] = []
    for box in boxes:
        while hit := next((d for d in done if _meet(box, d)), None):
            done.remove(hit)
            box = (min(box[0], hit[0]), min(box[1], hit[1]), max(box[2], hit[2]), max(box[3], hit[3]))
        done.append(box)
    return done


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def even(box: Box, info: VideoInfo) -> Box:
    """The box grown to whole chroma samples."""
    left, top, right, bottom = box
    return left & ~1, top & ~1, min(info.width, (right + 1) & ~1), min(info.height, (bottom + 1) & ~1)


def plane_array(frame: av.VideoFrame, index: int) -> np.ndarray:
    """(h, w) view of a plane of a planar frame, uint8 or uint16."""
    plane = frame.planes[index]
    kind = np.dtype("<u2") if frame.format.name.endswith("le") else np.dtype(np.uint8)
    memory: Any = plane  # supports the buffer protocol
    rows = np.frombuffer(memory, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    return rows.view(kind)[:, : plane.width]
