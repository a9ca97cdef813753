"""Video file -> its frames in order, and everything about it that has to be kept."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mattface.errors import InputError
from mattface.realtime.loop import Box

if TYPE_CHECKING:
    import av

PLANAR = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")
"""Pixel formats that frames are held and encoded in."""
DEEPEST = 10
SWS_SPACES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""ITU-T H.273 matrix coefficients -> swscale's numbers."""
UNSPECIFIED = 2
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2


@dataclass(frozen=True)
class Orientation:
    """How stored frames are turned for showing: transposed first, then mirrored; quarter turns and mirrors only.

    Attributes:
        matrix: nine numbers of the container's display matrix, or None.
    """

    matrix: tuple[int, ...] | None = None
    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, matrix: tuple[int, ...] | None) -> Orientation:
        """Reads a display matrix (ISO/IEC 14496-12: a b u, c d v, x y w; shown = (a x + c y, b x + d y))."""
        if matrix is None:
            return cls()
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        if a == d == 0 and b and c:
            return cls(matrix, True, c < 0, b < 0)
        if b == c == 0 and a and d:
            return cls(matrix, False, a < 0, d < 0)
        raise InputError(f"expected a video turned by quarters; its display matrix is {matrix}. Turn it upright first.")

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Stored (H, W, C) as it is to be shown; contiguous."""
        turned = pixels.transpose(1, 0, 2) if self.transposed else pixels
        return np.ascontiguousarray(turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def stored(self, pixels: np.ndarray) -> np.ndarray:
        """The way back: shown (H, W, C) as it is stored; a view."""
        turned = pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return turned.transpose(1, 0, 2) if self.transposed else turned

    def stored_box(self, box: Box, size: tuple[int, int]) -> Box:
        """A box of the shown picture of `size` (width, height) in stored pixels."""
        left, top, right, bottom = box
        if self.mirror_x:
            left, right = size[0] - right, size[0] - left
        if self.mirror_y:
            top, bottom = size[1] - bottom, size[1] - top
        return (top, left, bottom, right) if self.transposed else (left, top, right, bottom)


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as far as it has to be kept.

    Attributes:
        width, height: stored size in pixels.
        format: one of `PLANAR`: what frames are held in.
        time_base: seconds per tick of timestamps.
        rate: average frames per second, or None.
        orientation: how frames are turned for showing.
        colour: (range, primaries, transfer, matrix), ITU-T H.273 numbers; 2 is unspecified (range: 0).
        aspect: shape of a pixel, or None.
        codec: name of its codec.
        frames: number of frames as the file states it; 0 when it does not.
        hdr: "master-display" and "max-cll" as x265 wants them, where the file has them.
        notes: sentences worth telling the user.
    """

    width: int
    height: int
    format: str
    time_base: Fraction
    rate: Fraction | None
    orientation: Orientation = field(default_factory=Orientation)
    colour: tuple[int, int, int, int] = (0, UNSPECIFIED, UNSPECIFIED, UNSPECIFIED)
    aspect: Fraction | None = None
    codec: str = ""
    frames: int = 0
    hdr: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def deep(self) -> bool:
        """Whether frames have more than eight bits."""
        return self.format.endswith("10le")

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) upright."""
        return (self.height, self.width) if self.orientation.transposed else (self.width, self.height)

    @property
    def sws(self) -> tuple[int, int]:
        """swscale's colour space and range; unspecified ones by the usual guess (large pictures are BT.709)."""
        guess = 1 if self.height >= 720 or self.width >= 1280 else 5
        return SWS_SPACES.get(self.colour[3], guess), self.colour[0] or LIMITED


class VideoReader:
    """Reads the frames of a video file in order. Use as a context manager, iterate once.

    Damaged packets and frames are left out and counted; timestamps are the file's own and always grow.

    Attributes:
        info: what the video is.
        skipped: damaged packets and frames left out so far.
        cut_short: the file ended in an error, or with fewer frames than it states (known at the end).
    """

    def __init__(self, path: str | Path) -> None:
        """Opens a video.

        Raises:
            InputError: no such file, an empty one, no video in it, a format that cannot be kept.
        """
        import av

        self.path = str(path)
        self.skipped, self.cut_short, self.read = 0, False, 0
        self._broken: type[Exception] = av.error.FFmpegError
        self.container = open_input(self.path)
        try:
            self.stream = self._video_stream()
            self._frames = self._decoded()
            first = next(self._frames, None)
            if first is None:
                raise InputError(f"{self.path}: expected frames; none can be decoded. The file is empty or damaged.")
            self._first: Any = first
            self.info = described(self.stream, first, self.path)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Frames in the format `info.format`, with growing `pts` in `info.time_base`."""
        last: int | None = None
        step = round(1 / (self.info.rate or Fraction(30)) / self.info.time_base) or 1
        frame = self._first
        while frame is not None:
            kept = as_described(frame, self.info)
            pts = kept.pts if kept.pts is not None else (0 if last is None else last + step)
            kept.pts = pts if last is None else max(pts, last + 1)
            kept.time_base = self.info.time_base
            last = kept.pts
            self.read += 1
            yield kept
            frame = next(self._frames, None)
        self.cut_short = self.cut_short or self.read + self.skipped < self.info.frames

    def _video_stream(self) -> Any:
        for stream in self.container.streams.video:
            if not stream.disposition & 1024:  # a cover picture
                stream.thread_type = "AUTO"
                return stream
        raise InputError(f"{self.path}: expected a video; it has no moving picture. Use mattface swap for pictures.")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except self._broken:
                self.cut_short = True
                packet = None
            try:
                frames = self.stream.codec_context.decode(packet)
            except self._broken:
                self.skipped += packet is not None
                frames = []
            for frame in frames:
                if frame.is_corrupt:
                    self.skipped += 1
                else:
                    yield frame
            if packet is None or packet.size == 0:
                return


def open_input(path: str) -> Any:
    """An open container.

    Raises:
        InputError: it is missing, empty or no video file.
    """
    import av

    if os.path.exists(path) and os.path.getsize(path) == 0:
        raise InputError(f"{path}: expected a video; the file is empty (zero bytes). Copy or record it again.")
    try:
        return av.open(path, metadata_errors="replace")
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a video file; there is none of that name. Check the path.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path}: expected a video file; it cannot be opened ({getattr(error, 'strerror', None) or error}). "
            "If a recording was cut off, its index may be missing: repair or record it again."
        ) from error


def described(stream: Any, frame: av.VideoFrame, path: str) -> VideoInfo:
    """Everything about a video that has to be kept, from its stream and first frame."""
    context, notes = stream.codec_context, []
    name, said = working_format(frame, path)
    notes += said
    carried: Any = frame.side_data  # iterates over items, whatever its stubs say
    side = {item.type.name: bytes(item) for item in carried}
    matrix = side.get("DISPLAYMATRIX")
    span = FULL if frame.format.name.startswith("yuvj") else int(frame.color_range or context.color_range)
    colour = (span, int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace))
    if frame.format.is_rgb:
        colour = (LIMITED, colour[1], colour[2], UNSPECIFIED)
        notes.append(f"RGB frames are written as {name}")
    if colour[2] in (PQ, HLG):
        notes.append("HDR: the swap works on the coded values, and the brightness mapping is kept")
    if {"DYNAMIC_HDR_PLUS", "DOVI_METADATA", "DOVI_RPU_BUFFER"} & set(side):
        notes.append("dynamic HDR data (HDR10+ or Dolby Vision) is left out; the static HDR data is kept")
    if frame.interlaced_frame:
        notes.append("interlaced: frames are swapped whole and written as progressive ones")
    return VideoInfo(
        width=frame.width,
        height=frame.height,
        format=name,
        time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate,
        orientation=Orientation.of(None if matrix is None else struct.unpack("=9i", matrix[:36])),
        colour=colour,
        aspect=stream.sample_aspect_ratio or None,
        codec=context.name,
        frames=stream.frames,
        hdr=static_hdr(side),
        notes=tuple(notes),
    )


def working_format(frame: av.VideoFrame, path: str) -> tuple[str, list[str]]:
    """The planar format that loses nothing of the frame's own, and what is worth saying about it.

    Raises:
        InputError: more than ten bits.
    """
    shape, notes = frame.format, []
    bits = max(component.bits for component in shape.components)
    if bits > DEEPEST:
        raise InputError(
            f"{path}: expected at most {DEEPEST} bits per channel; got {bits} ({shape.name}). "
            "Convert it to 10 bits first, or swap its frames as 16-bit pictures."
        )
    if len(shape.components) in (2, 4):
        notes.append("transparency is not kept")
    across, down = (2 if shape.chroma_width(16) < 16 else 1), (2 if shape.chroma_height(16) < 16 else 1)
    if len(shape.components) < 3:
        across = down = 2
    if (across == 2 and frame.width % 2) or (down == 2 and frame.height % 2):
        across = down = 1
        notes.append(f"odd size {frame.width}x{frame.height}: written with full colour resolution (yuv444p)")
    name = {(1, 1): "yuv444p", (2, 1): "yuv422p", (2, 2): "yuv420p", (1, 2): "yuv444p"}[across, down]
    return name + ("10le" if bits > 8 else ""), notes


def static_hdr(side: dict[str, bytes]) -> dict[str, str]:
    """Mastering display and content light level out of a frame's side data, in x265's words."""
    found = {}
    mastering, light = side.get("MASTERING_DISPLAY_METADATA"), side.get("CONTENT_LIGHT_LEVEL")
    if mastering is not None and len(mastering) >= 88:
        numbers = struct.unpack("=22i", mastering[:88])
        value = [Fraction(n, d) if d else Fraction(0) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        xy = [round(v * 50000) for v in value[:8]]  # red, green, blue, white
        low, high = round(value[8] * 10000), round(value[9] * 10000)
        if numbers[20] and numbers[21]:
            found["master-display"] = (
                f"G({xy[2]},{xy[3]})B({xy[4]},{xy[5]})R({xy[0]},{xy[1]})WP({xy[6]},{xy[7]})L({high},{low})"
            )
    if light is not None and len(light) >= 8:
        found["max-cll"] = "{},{}".format(*struct.unpack("=2I", light[:8]))
    return found


def as_described(frame: av.VideoFrame, info: VideoInfo) -> av.VideoFrame:
    """The frame in the video's working format and size."""
    if frame.format.name == info.format and (frame.width, frame.height) == (info.width, info.height):
        return frame
    space, span = info.sws
    source = FULL if frame.format.name.startswith("yuvj") else span
    out = frame.reformat(
        info.width, info.height, info.format, src_colorspace=space, dst_colorspace=space,
        src_color_range=source, dst_color_range=span, threads=1,
    )  # fmt: skip
    out.pts, out.time_base = frame.pts, frame.time_base
    return out
