"""What tests of moving pictures share: clips made on the spot, and a swapper whose perception is told what to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mattface.landmarks import five_points
from mattface.mesh import topology
from mattface.methods import mesh as mesh_method
from mattface.parse import Parser
from mattface.pipeline import Swapper
from mattface.realtime.encoding import Encoding
from mattface.realtime.faces import Cast
from mattface.realtime.offline import Job, convert
from mattface.vocabulary import Face

SIZE = (160, 128)
TICK = Fraction(1, 12800)
ENCODING = Encoding(quality=8, preset="ultrafast")


def face_at(x: float, y: float, scale: float) -> Face:
    """A frontal face: the mean mesh at a place."""
    mesh = topology().mean * scale
    mesh[:, :2] += [x, y]
    return Face(np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]), 0.9, five_points(mesh), mesh, 0.99)


FACE = face_at(80, 64, 24)
"""The face in the middle of a clip."""


class Told:
    """Detector, landmarker and embedder that know where faces are: a list, or a function of the frame's number."""

    name = "told"

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)
        self.looked = self.measured = 0
        self.noise = 0.0
        self.rng = np.random.default_rng(0)

    def detect(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        self.looked += 1
        return [replace(f, mesh=None, presence=None) for f in self.faces]

    def measure(self, rgb: np.ndarray, face: Face, passes: int = 2) -> Face:
        """The told face nearest to the one asked for; none there gives a low presence."""
        self.measured += 1
        middle = (face.box[:2] + face.box[2:]) / 2
        near = [f for f in self.faces if np.abs((f.box[:2] + f.box[2:]) / 2 - middle).max() < 40]
        if not near:
            return replace(face, presence=0.01, mesh=face_at(*middle, 10).mesh)
        mesh = near[0].mesh + self.noise * self.rng.standard_normal((468, 3))
        return replace(near[0], mesh=mesh, points=five_points(mesh))

    def embed(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        """The mean colour around the middle of the face as identity."""
        x, y = ((face.box[:2] + face.box[2:]) / 2).astype(int)
        colour = rgb[max(0, y - 4) : y + 4, max(0, x - 4) : x + 4].reshape(-1, 3).mean(0) - 100
        return (colour / max(np.linalg.norm(colour), 1e-6)).astype(np.float32)


class Part:
    """A function with a name."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.name = work, "told"

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.work(*args, **options)


def swapper(told: Told, **config: Any) -> Swapper:
    """A swapper of the method mesh with told perception."""
    config = {"coarse": 2.0, "light_side": 64, **config}
    method = mesh_method.MeshMethod(mesh_method.Config(**config), Parser("mesh"), torch.device("cpu"))
    parts: Any = (method, Part(told.detect), Part(told.measure), Part(told.embed))
    return Swapper(*parts, torch.device("cpu"))


def run(source: Path, output: Path, told: Told | None = None, stop: Any = None, **options: Any) -> dict[str, Any]:
    """Converts a clip with told perception."""
    told = told or Told(FACE)
    ours = swapper(told)
    given = {"encoding": ENCODING, "part_frames": 5, **options}
    return convert(Job(str(source), str(output), **given), ours, Cast(ours, still(7)), stop)


def still(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8 smooth picture."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(60, 200, (6, 8, 3)).astype(np.float32)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def stamps(count: int, variable: bool = True) -> list[int]:
    """Presentation times in ticks of `TICK`, 25 frames a second, not quite even."""
    return [512 * k + (37 * (k % 3) if variable else 0) for k in range(count)]


def clip(
    path: Path | str,
    count: int = 20,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: str | None = "aac",
    options: dict[str, str] | None = None,
    matrix: tuple[int, ...] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    container: dict[str, str] | None = None,
    picture: Callable[[int], np.ndarray] | None = None,
) -> Path:
    """Writes a video file: a picture whose brightness changes slowly, and a tone."""
    import av

    picture = picture or (lambda k: np.clip(still(size=size) + np.uint8(k % 20), 0, 255))
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = TICK
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if colour is not None:
            context = stream.codec_context
            context.color_range, context.color_primaries, context.color_trc, context.colorspace = colour
        out.metadata["title"] = "a clip"
        tone: Any = None if sound is None else out.add_stream(sound, rate=44100, layout="mono")
        for k, stamp in enumerate(stamps(count)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(k)), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = stamp, TICK
            out.mux(stream.encode(frame))
            if tone is not None:
                wave = (0.2 * np.sin(2 * np.pi * 440 * np.arange(k * 1764, (k + 1) * 1764) / 44100)).astype(np.float32)
                heard: Any = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                heard.rate, heard.pts, heard.time_base = 44100, k * 1764, Fraction(1, 44100)
                out.mux(tone.encode(heard))
        for one in (stream, tone):
            if one is not None:
                out.mux(one.encode(None))
    return Path(path)


def frames(path: Path | str) -> list[tuple[float, np.ndarray]]:
    """(seconds, RGB as stored) of every frame."""
    import av

    with av.open(str(path)) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def sound_bytes(path: Path | str) -> list[bytes]:
    """The packets of the first sound stream."""
    import av

    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]
