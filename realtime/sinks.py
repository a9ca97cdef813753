"""Where live frames go: a window, a video file, a virtual camera."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mattface import __version__
from mattface.errors import DeviceError, InputError
from mattface.picture_io.files import check_target
from mattface.pixels import eight_bit
from mattface.provenance import C2PA, MARK, XMP, Settings
from mattface.provenance.laying import NO_FACE, Laying, seal, tags
from mattface.realtime.encoding import Encoder, Encoding, check_container, no_space, write_synced
from mattface.realtime.loop import Shot
from mattface.realtime.planes import Origin, repaint, to_planes
from mattface.realtime.video import VideoInfo

TICKS = Fraction(1, 90000)
"""Time base of live files."""


class Window:
    """Shows frames in a window; q, Escape or closing it ends the loop.

    Args:
        stop: set when the user closes the window.
        title: of the window.
    """

    def __init__(self, stop: threading.Event, title: str = "mattface live") -> None:
        """Opens the window.

        Raises:
            DeviceError: there is no display, or Python came without tkinter.
        """
        try:
            import tkinter

            self.root: Any = tkinter.Tk()
        except ImportError as error:
            raise DeviceError(f"a window needs tkinter ({error}). Install python3-tk, or use --output FILE.") from error
        except tkinter.TclError as error:
            raise DeviceError(f"expected a display for the window; {error}. Use --output FILE or v4l2:DEV.") from error
        self.stop, self._photo = stop, tkinter.PhotoImage
        self.root.title(title)
        self.label = tkinter.Label(self.root, borderwidth=0)
        self.label.pack()
        self.root.protocol("WM_DELETE_WINDOW", stop.set)
        for key in ("q", "<Escape>"):
            self.root.bind(key, lambda _event: stop.set())
        self._shown: Any = None

    def show(self, shot: Shot) -> None:
        """Shows one frame and handles the user's keys."""
        pixels = eight_bit(shot.pixels)
        height, width = pixels.shape[:2]
        data = b"P6 %d %d 255 " % (width, height) + pixels.tobytes()
        self._shown = self._photo(data=data, format="PPM")  # tkinter forgets pictures that nobody holds
        self.label.configure(image=self._shown)
        self.root.update()

    def set_title(self, text: str) -> None:
        """Shows a line in the title."""
        self.root.title(text)

    def close(self) -> None:
        """Closes the window."""
        root, self.root = self.root, None
        if root is not None:
            root.destroy()


class VideoFile:
    """Writes live frames to a file at the times they were captured. Sound is not recorded.

    The file has its name once it is finished; until then it is a playable fragmented one with a hidden name beside it.

    Args:
        path: ends in .mp4, .mov or .mkv.
        encoding: how to encode.
        rate: expected frames per second.
        overwrite: the file may exist.
        laying: provenance of the file; None for all layers that need no face.
    """

    def __init__(
        self, path: str | Path, encoding: Encoding, rate: float = 30, overwrite: bool = False,
        laying: Laying | None = None,
    ) -> None:  # fmt: skip
        """Checks that the file can be written.

        Raises:
            InputError: another ending, or the file cannot be written there.
        """
        check_container(path)
        self.path, self.encoding, self.rate = check_target(path, overwrite), encoding, rate
        self.laying = laying or Laying(Settings((XMP, C2PA)))
        self.temporary = self.path.with_name(f".mattface-{secrets.token_hex(6)}{self.path.suffix}")
        self._encoder: Encoder | None = None
        self._last, self._faces = -1, False

    def show(self, shot: Shot) -> None:
        """Encodes one frame.

        Raises:
            InputError: the disk is full.
        """
        import av

        try:
            if self._encoder is None:
                self._encoder = self._opened(shot)
            info = self._encoder.info
            if isinstance(shot.origin, Origin):
                frame = repaint(shot.origin, shot.pixels, shot.boxes)
            else:
                frame = to_planes(shot.pixels, info)
            self._last = max(self._last + 1, round(shot.time / TICKS))
            frame.pts = self._last
            self._faces |= bool(shot.boxes)
            self._encoder.write(frame)
        except (av.error.FFmpegError, OSError) as error:
            full = no_space(error, self.path, f"What was recorded so far is in {self.temporary}.")
            self._encoder = None
            if full is None:
                raise
            raise full from error

    def close(self) -> None:
        """Finishes the file and gives it its name."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        encoder.finish()
        if self.laying.wants(MARK) and not self._faces:
            self.laying.absent(MARK, NO_FACE)
        seal(self.temporary, self.path, self.laying, __version__)
        write_synced(self.temporary)
        os.replace(self.temporary, self.path)
        self.laying.done(str(self.path))

    def _opened(self, shot: Shot) -> Encoder:
        import av

        if isinstance(shot.origin, Origin):
            info = replace(shot.origin.info, time_base=TICKS)
        else:
            height, width = shot.pixels.shape[:2]
            shape = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            space = 1 if height >= 720 else 6
            info = VideoInfo(width, height, shape, TICKS, Fraction(self.rate), colour=(1, space, space, space))
        fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags"}
        options = {} if self.path.suffix.lower() == ".mkv" else fragments
        container = av.open(str(self.temporary), "w", options=options)
        container.metadata.update(tags(self.laying.settings.layers, __version__))
        return Encoder(container, info, self.encoding)


class VirtualCamera:
    """Feeds a Linux video loopback device, so that other programs see the result as a camera.

    Args:
        device: such as /dev/video2, made by the v4l2loopback module.
        rate: frames per second it announces.
    """

    FORMAT = "yuyv422"

    def __init__(self, device: str, rate: float = 30, container: str = "v4l2") -> None:
        """Checks that the device is there.

        Raises:
            InputError: it is not, or may not be written.
        """
        if not os.path.exists(device) or not os.access(device, os.W_OK):
            raise InputError(
                f"{device}: expected a video loopback device that may be written. Load the kernel module v4l2loopback "
                "(modprobe v4l2loopback), and see which number it got."
            )
        self.device, self.rate, self.container = device, Fraction(rate), container
        self._out: Any = None
        self._stream: Any = None
        self._size = (0, 0)

    def show(self, shot: Shot) -> None:
        """Writes one frame; frames of another size than the first are scaled to it.

        Raises:
            InputError: the device rejects it.
        """
        import av

        pixels = np.ascontiguousarray(eight_bit(shot.pixels))
        try:
            if self._out is None:
                self._open((pixels.shape[1] & ~1, pixels.shape[0]))
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(*self._size, format=self.FORMAT, dst_color_range=1, threads=1)
            frame.pts = None
            self._out.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.device}: expected a video loopback device; it takes no frames ({error}). "
                "Does another program use it?"
            ) from error

    def _open(self, size: tuple[int, int]) -> None:
        import av

        self._size = size
        self._out = av.open(self.device, "w", format=self.container)
        self._stream = self._out.add_stream("rawvideo", rate=self.rate)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = self.FORMAT

    def close(self) -> None:
        """Lets the device go."""
        if self._out is not None:
            with suppress(OSError):
                self._out.close()
