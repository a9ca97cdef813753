"""Frames -> encoded video, and the last step of a file: parts joined, sound and tags of the original beside them."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import InputError, UsageError
from mattface.picture_io.files import FULL as FULL_DISK
from mattface.realtime.video import VideoInfo, open_input

if TYPE_CHECKING:
    import av

CODECS = {"h264": "libx264", "hevc": "libx265"}
CONTAINERS = (".mp4", ".mov", ".mkv")
OWN_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION")
"""Container tags that a muxer writes by itself."""


@dataclass(frozen=True)
class Encoding:
    """How results are encoded.

    Attributes:
        codec: "h264", "hevc", or "auto": HEVC for HEVC and for more than eight bits, else H.264.
        quality: constant rate factor; less is better. 16 is hard to tell from the original.
        preset: of the encoder; a slow one makes smaller files.
        live: no delay inside the encoder.
    """

    codec: str = "auto"
    quality: int = 16
    preset: str = "medium"
    live: bool = False

    def encoder(self, info: VideoInfo) -> str:
        """Name of FFmpeg's encoder for a video.

        Raises:
            UsageError: no such codec.
        """
        name = self.codec
        if name == "auto":
            name = "hevc" if info.deep or info.codec == "hevc" else "h264"
        if name not in CODECS:
            raise UsageError(f"expected a codec auto, {', '.join(CODECS)}; got {name!r}.")
        return CODECS[name]

    def options(self, name: str, info: VideoInfo) -> dict[str, str]:
        """Options of that encoder."""
        found = {"crf": str(self.quality), "preset": self.preset}
        if self.live:
            found["tune"] = "zerolatency"
        if name == "libx265":
            found["x265-params"] = ":".join(["log-level=error", *(f"{k}={v}" for k, v in info.hdr.items())])
        return found


class Encoder:
    """Encodes frames of one video into an open container."""

    def __init__(self, container: Any, info: VideoInfo, encoding: Encoding) -> None:
        self.container, self.info = container, info
        name = encoding.encoder(info)
        rate = info.rate or Fraction(30)
        self.stream = container.add_stream(name, rate=rate, options=encoding.options(name, info))
        self.stream.width, self.stream.height, self.stream.pix_fmt = info.width, info.height, info.format
        context = self.stream.codec_context
        context.time_base = self.stream.time_base = info.time_base
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = info.colour
        if info.aspect:
            context.sample_aspect_ratio = info.aspect
        if info.orientation.matrix is not None:
            self.stream.set_display_matrix(info.orientation.matrix)

    def write(self, frame: av.VideoFrame) -> None:
        """Encodes one frame with its timestamp."""
        frame.time_base = self.info.time_base
        frame.pict_type = 0  # the decoder's choice of key frames is not the encoder's
        frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = self.info.colour
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Writes what the encoder still holds, and the end of the file."""
        self.container.mux(self.stream.encode(None))
        self.container.close()


def no_space(error: Exception, path: str | Path, advice: str) -> InputError | None:
    """The sentence for an error of a full disk; None for other errors."""
    code = getattr(error, "errno", None) or 0
    reason = FULL_DISK.get(abs(code))
    if reason is None:
        return None
    return InputError(f"{path}: could not be written on: {reason}. {advice}")


def check_container(path: str | Path) -> None:
    """Rejects endings that are no container of ours.

    Raises:
        InputError: another ending.
    """
    if Path(path).suffix.lower() not in CONTAINERS:
        raise InputError(f"{path}: expected a name ending in {', '.join(CONTAINERS)}. Choose one of them.")


def check_sound(source: str | Path, output: str | Path, scratch: Path) -> list[str]:
    """Tries whether the output's container takes the input's sound as it is.

    Args:
        source: video file.
        output: its ending says which container.
        scratch: a name that may be written and removed.

    Returns:
        Notes on streams that are left out.

    Raises:
        InputError: it does not.
    """
    with open_input(str(source)) as original:
        audio = list(original.streams.audio)
        rest = [s for s in original.streams if s.type not in ("video", "audio")]
        notes = [f"{len(rest)} stream(s) of subtitles or data are left out"] if rest else []
        if _takes(audio, Path(output).suffix, scratch):
            return notes
        names = ", ".join(sorted({s.codec_context.name for s in audio}))
        others = [ending for ending in CONTAINERS if _takes(audio, ending, scratch)]
    advice = f"Use a name ending in {' or '.join(others)}." if others else "Convert the sound first, to AAC say."
    raise InputError(
        f"{output}: expected a container that takes the sound as it is ({names}); {Path(output).suffix} does not. "
        f"{advice}"
    )


def _takes(sound: list[Any], ending: str, scratch: Path) -> bool:
    """Whether a container takes these streams; found out by trying."""
    import av

    try:
        with av.open(str(scratch), "w", format=_format(f"x{ending}")) as trial:
            for stream in sound:
                trial.add_stream_from_template(stream)
            if sound:
                trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()
    return True


def _format(path: str | Path) -> str:
    return {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}[Path(path).suffix.lower()]


def join(
    parts: Sequence[Path], source: str | Path, target: Path, info: VideoInfo, whole: bool, mark: dict[str, str]
) -> None:
    """Puts encoded parts, the original's sound and its tags into one file. Nothing is encoded again.

    Args:
        parts: files of one video stream each, in order, with timestamps on the original's clock.
        source: the original.
        target: file to write; its ending says which container.
        info: of the video.
        whole: False ends the sound with the picture (an interrupted run).
        mark: tags of the origin, empty for none.

    Raises:
        InputError: the disk is full.
    """
    import av

    options = {"movflags": "use_metadata_tags+faststart"} if target.suffix.lower() != ".mkv" else {}
    try:
        with open_input(str(source)) as original, av.open(str(target), "w", options=options) as out:
            with av.open(str(parts[0])) as first:
                encoded = first.streams.video[0]
                picture = out.add_stream_from_template(encoded)
                if encoded.codec_context.name == "hevc" and target.suffix.lower() != ".mkv":
                    picture.codec_tag = "hvc1"  # what Apple's players look for
            _tag(out, picture, original, info, mark)
            sound = {s.index: out.add_stream_from_template(s) for s in original.streams.audio}
            for index, stream in sound.items():
                stream.metadata.update(original.streams[index].metadata)
                stream.disposition = original.streams[index].disposition
            shift, stamps = _order(parts, info)
            end = None if whole else (max(stamps) + 1) * info.time_base
            streams = [_pictures(parts, picture, stamps, shift, info), _sounds(original, sound, end)]
            for _, packet in heapq.merge(*streams, key=lambda pair: pair[0]):
                out.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        full = no_space(error, target, "Free some space and run again with --resume; nothing done so far is lost.")
        if full is None:
            raise
        raise full from error


def _tag(out: Any, picture: Any, original: Any, info: VideoInfo, mark: dict[str, str]) -> None:
    """Colour, rotation and tags of the original, and the origin mark."""
    picture.time_base = info.time_base
    if info.orientation.matrix is not None:
        picture.set_display_matrix(info.orientation.matrix)
    for key, value in original.metadata.items():
        if key not in OWN_TAGS:
            out.metadata[key] = value
    out.metadata.update(mark)


PART_OPTIONS = {"avoid_negative_ts": "disabled"}
"""Of the muxer of parts: their timestamps stay as they are."""


def _order(parts: Sequence[Path], info: VideoInfo) -> tuple[int, list[int]]:
    """All presentation times in growing order, and by how much decoding times must lie before them."""
    shift, stamps = 0, []
    for path in parts:
        shown = [packet.pts for packet in _packets(path, info)]
        ordered = sorted(shown)
        shift = max(shift, *(decode - show for decode, show in zip(ordered, shown, strict=True)))
        stamps += ordered
    return shift, stamps


def _packets(path: Path, info: VideoInfo) -> Iterator[Any]:
    """Packets of a part, their presentation time in the video's ticks."""
    import av

    with av.open(str(path)) as part:
        for packet in part.demux(part.streams.video[0]):
            if packet.size and packet.pts is not None:
                pts = round(packet.pts * packet.time_base / info.time_base)
                packet.time_base, packet.pts = info.time_base, pts
                yield packet


def _pictures(
    parts: Sequence[Path], stream: Any, stamps: list[int], shift: int, info: VideoInfo
) -> Iterator[tuple[Fraction, Any]]:
    """(decoding time in seconds, packet) of all parts; the n-th packet is decoded at the n-th time shown."""
    number = 0
    for path in parts:
        for packet in _packets(path, info):
            packet.stream = stream
            packet.dts = stamps[number] - shift
            if number + 1 < len(stamps):
                packet.duration = stamps[number + 1] - stamps[number]
            number += 1
            yield packet.dts * info.time_base, packet


def _sounds(original: Any, streams: dict[int, Any], end: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
    """(time in seconds, packet) of all sound."""
    import av

    if not streams:
        return
    packets = original.demux([original.streams[index] for index in streams])
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # a cut-off file; the picture's reader has counted it
            return
        if packet is None:
            return
        if packet.dts is None or not packet.size:
            continue
        moment = packet.dts * packet.time_base
        if end is None or moment < end:
            packet.stream = streams[packet.stream.index]
            yield moment, packet


def write_synced(path: Path) -> None:
    """Forces a finished file to the disk."""
    import os

    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


Say = Callable[[str], None]
"""Takes one sentence for the user."""
