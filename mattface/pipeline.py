"""The whole walk: read, detect, align, swap, paste. `load` builds a `Swapper` from a method's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from mattface import (
    align,
    cuda_ops,
    detect,
    embed,
    grain,
    landmarks,
    paste,
    perception,
    picture_io,
    pixels,
    provenance,
)
from mattface.choose import as_face, choose, remarks, without_doubtful
from mattface.devices import DTYPES, Stopwatch, resolve_device, resolve_dtype
from mattface.errors import NoFaceError, UsageError, WeightsError
from mattface.geometry import to_opencv
from mattface.mesh.pose import by_pose
from mattface.methods import entry, require_commercial
from mattface.methods.contract import Method
from mattface.vocabulary import Crop, Face, Identity, MatteFilter, Picture, Swap, SwappedFace, SwapResult
from mattface.weights.licences import commercial_only


def load(
    method: str = "mattface",
    weights: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    grain: float = 1.0,
    commercial: bool | None = None,
    **options: Any,
) -> Swapper:
    """Builds a ready swapper with the strongest perception parts that are here.

    Args:
        method: name in `mattface.methods.METHODS`.
        weights: name or path of the method's weights; None takes its default.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        dtype: "fp32" (default), "bf16" or "fp16" (CUDA only): the dtype in which the method's networks multiply.
        grain: how far `Swapper.swap` gives faces the sharpness and grain of the picture, from 0 (or False) to 1.
        commercial: pick only parts whose licences allow commercial use, and name in the report's notes what is left
            out; None: as $MATTFACE_COMMERCIAL says.
        options: of the method's builder.

    Raises:
        UsageError: unknown method, device, dtype or option, a grain beyond [0, 1], or a method or weights that forbid
            the commercial use that is asked for.
        DeviceError: the device or the dtype is not available here.
        WeightsError: weights are missing; the message says what to type.
    """
    found = entry(method)
    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    only = commercial_only(commercial)
    notes = [*require_commercial(method, weights), perception.left_out()] if only else []
    built = found.builder()(weights, where, kind, only, **options)
    detector = perception.load("detector", device=where, commercial=only)
    landmarker = perception.load("landmarks", device=where, commercial=only)
    known = perception.usable("identity", only)
    embedder = perception.load("identity", device=where, commercial=only) if known else None
    notes += built.describe().notes
    if where.type == "cuda" and detector.device.type == "cpu":
        notes.append("faces are detected on the CPU: for CUDA, install onnxruntime-gpu in place of onnxruntime")
    return Swapper(built, detector, landmarker, embedder, where, kind, grain, notes)


class Swapper:
    """Swaps faces in pictures. Build one with `mattface.load`, or hand it parts of your own.

    Holds no state between calls: prepare a source once, swap it as often as you like, from any thread.

    Attributes:
        method: the swapping method.
        detector, landmarker: perception parts.
        embedder: identity network, or None; needed only for several sources and for the identity cosine.
        device, dtype: where and in which dtype the method's networks run.
        grain: how far faces in stills get the sharpness and grain of the picture, in [0, 1], see `mattface.grain`.
        notes: sentences for every report.

    Raises:
        UsageError: a grain beyond [0, 1].
    """

    def __init__(
        self,
        method: Method,
        detector: detect.Detector,
        landmarker: landmarks.Landmarker,
        embedder: embed.Embedder | None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        grain: float = 1.0,
        notes: Sequence[str] = (),
    ) -> None:
        if not 0 <= grain <= 1:
            raise UsageError(f"grain must be between 0 (off) and 1 (the picture's own); got {grain!r}.")
        self.method = method
        self.detector = detector
        self.landmarker = landmarker
        self.embedder = embedder
        self.device, self.dtype = device, dtype
        self.grain = float(grain)
        self.notes = tuple(notes)

    @torch.inference_mode()
    def prepare(self, source: Any) -> Identity:
        """Encodes a source person once. The largest face of every picture is used.

        Args:
            source: path, PIL image, (H, W, 3/4) RGB array or Picture; or a list of them, all of one person. Of several,
                the embeddings are averaged and normalised again. Every target face is then swapped from the picture
                whose head looks most nearly where the target's does; `mesh` fills what that one does not show from the
                next ones, and methods whose source is an identity code average the codes.

        Raises:
            NoFaceError: no face in one of them.
            WeightsError: several sources, and no identity network is here.
            InputError: a picture cannot be read.
        """
        sources = list(source) if isinstance(source, list | tuple) else [source]
        if not sources:
            raise UsageError("expected at least one source picture; got none.")
        if len(sources) > 1 and self.embedder is None:
            raise WeightsError(
                f"averaging {len(sources)} sources needs an identity network; none is here. "
                "Run: mattface weights pull identity-resnet, or pass one source."
            )
        crops, embeddings = [], []
        for index, one in enumerate(sources):
            picture = picture_io.read(one)
            eight = pixels.eight_bit(picture.pixels)
            name = f"source {index + 1}" if len(sources) > 1 else "source"
            face = self.landmarker(eight, self._faces(eight, name)[0])
            spec = self.method.crop
            crops.append(align.cut(picture.pixels, face, spec.template, spec.side(face)))
            if self.embedder is not None:
                embeddings.append(self.embedder(eight, face))
        mean, primary = embed.mean_identity(embeddings)
        encoded = tuple(map(self.method.encode, crops))
        hashes = tuple(known for one in sources if (known := provenance.hash_of(one)))
        return Identity(self.method.name, tuple(crops), primary, mean, encoded, hashes)

    @torch.inference_mode()
    def swap(self, source: Any, target: Any, face: str | int = "largest", measure: bool = True) -> SwapResult:
        """Puts the source's face onto one or all faces of the target.

        Args:
            source: an `Identity` from `prepare`, or whatever `prepare` takes.
            target: path, PIL image, (H, W, 3/4) RGB array (uint8, uint16, float32 in [0, 1]) or Picture.
            face: "largest", "all", or the index of a face, largest first.
            measure: report each face's identity cosine to the source where an identity network is here.

        Returns:
            The result in the target's own type, size and depth; outside the matte it equals the target bit for bit.

        Raises:
            NoFaceError: no face, or no face of that index, in a picture.
            InputError: a picture cannot be read.
            UsageError: an identity of another method, or an unknown choice of face.
        """
        watch = Stopwatch(self.device)
        with watch.stage("prepare"):
            identity = self._identity(source)
        with watch.stage("read"):
            picture = picture_io.read(target)
            eight = pixels.eight_bit(picture.pixels)
        with watch.stage("detect"):
            found = choose(self._faces(eight, "target"), face)
        with watch.stage("landmarks"):
            found = [(index, self.landmarker(eight, one)) for index, one in found]
        result, matte = picture, np.zeros(picture.pixels.shape[:2], np.float32)
        swapped: list[SwappedFace] = []
        notes = [*self.notes, *picture.notes]
        if face == "all":
            found, dropped = without_doubtful(found)
            notes += dropped
        for index, one in found:
            notes += remarks(index, one, picture.size)
            result, covered, done = self._one(result, index, one, identity, watch)
            matte = np.maximum(matte, covered)
            swapped.append(done)
        if measure and identity.embedding is not None and self.embedder is not None:
            with watch.stage("measure"):
                after = pixels.eight_bit(result.pixels)
                for done in swapped:
                    done.report["identity_cosine"] = float(self.embedder(after, done.face) @ identity.embedding)
                    done.report["identity_cosine_before"] = float(self.embedder(eight, done.face) @ identity.embedding)
        with watch.stage("origin"):
            result = self._with_origin(result, matte, swapped, identity, target)
        report = self._report(watch, notes, swapped)
        return SwapResult(picture_io.to_caller(result, target), matte, tuple(swapped), report, result)

    def _with_origin(
        self, result: Picture, matte: np.ndarray, swapped: Sequence[SwappedFace], identity: Identity, target: Any
    ) -> Picture:
        """The result with what whoever writes it says about its origin; pixels stay as they are."""
        from mattface.provenance.laying import settled

        seen = pixels.eight_bit(result.pixels)
        made = provenance.Swapped(
            matte,
            tuple(settled(self.landmarker, seen, one.face) for one in swapped),
            provenance.file_of(target),
            provenance.hash_of(target),
            identity.hashes,
            self.method.name,
            self.method.describe().weights,
        )
        before = result.metadata.get(provenance.RECORD)
        return replace(result, metadata={**result.metadata, provenance.RECORD: made.over(before)})

    @torch.inference_mode()
    def get(self, image_bgr: np.ndarray, target_face: Any, source_face: Identity, paste_back: bool = True) -> Any:
        """The calling habit of insightface's swapper.

        Args:
            image_bgr: (H, W, 3) uint8 BGR.
            target_face: an insightface face (`.bbox`, `.kps`, `.det_score`) or a `Face` of ours, in this image.
            source_face: an `Identity` from `prepare`. An insightface source face holds an embedding, no pixels, and
                these methods need the pixels.
            paste_back: False returns the crop instead of the picture.

        Returns:
            (H, W, 3) uint8 BGR; or, without paste_back, the (S, S, 3) uint8 BGR crop and the (2, 3) matrix from image
            to crop in cv2's convention (centre of the first pixel at 0).

        Raises:
            UsageError: other types.
        """
        if not isinstance(source_face, Identity):
            raise UsageError(
                f"source_face must be an Identity; got {type(source_face).__name__}. Call prepare(picture) once and "
                "pass what it returns: an embedding alone holds no pixels to swap."
            )
        if not isinstance(image_bgr, np.ndarray) or image_bgr.dtype != np.uint8 or image_bgr.shape[2:] != (3,):
            raise UsageError("image_bgr must be an HxWx3 uint8 array. Read it with cv2.imread.")
        rgb = np.ascontiguousarray(image_bgr[..., ::-1])
        face = self.landmarker(rgb, as_face(target_face))
        watch = Stopwatch(self.device)
        result, _, done = self._one(Picture(rgb), 0, face, self._identity(source_face), watch)
        if paste_back:
            return np.ascontiguousarray(result.pixels[..., ::-1])
        return np.ascontiguousarray(done.crop[..., ::-1]), to_opencv(done.image_to_crop)

    def _identity(self, source: Any) -> Identity:
        identity = source if isinstance(source, Identity) else self.prepare(source)
        if identity.method != self.method.name:
            raise UsageError(
                f"this identity was prepared by {identity.method}; expected one of {self.method.name}. Prepare again."
            )
        return identity

    def _source(self, identity: Identity, target: Crop) -> Any:
        """What the method gets for a target: the only picture's, or all of them merged, nearest pose first."""
        if len(identity.encoded) == 1:
            return identity.encoded[0]
        meshes = [crop.mesh for crop in identity.crops]
        order = [identity.primary, *(k for k in range(len(meshes)) if k != identity.primary)]
        if target.mesh is not None and all(mesh is not None for mesh in meshes):
            order = [order[k] for k in by_pose([np.asarray(meshes[k]) for k in order], target.mesh)]
        return self.method.merge([identity.encoded[k] for k in order])

    def _faces(self, rgb: np.ndarray, who: str) -> list[Face]:
        found = self.detector(rgb)
        if not found:
            height, width = rgb.shape[:2]
            raise NoFaceError(
                f"expected a face in the {who}; {self.detector.name} found none in {width}x{height} pixels. "
                "Use a picture where both eyes and the mouth show and the face is at least 20 pixels wide."
            )
        return found

    def _one(
        self, picture: Picture, index: int, face: Face, identity: Identity, watch: Stopwatch
    ) -> tuple[Picture, np.ndarray, SwappedFace]:
        """One face, with all that a result says about it."""
        crop, swap, pasted = self.swap_face(picture, face, identity, watch, strength=self.grain)
        matte = pasted.whole_matte()
        report = {
            "crop_size": crop.size,
            "face_width": float(face.box[2] - face.box[0]),
            "presence": face.presence,
            "matte_share": float((matte > 0).mean()),
        }
        swapped = pixels.to_pixels(paste.onto_crop(swap, crop), np.uint8)
        return pasted.picture, matte, SwappedFace(index, face, crop.image_to_crop, swapped, report)

    @torch.inference_mode()
    def swap_face(
        self,
        picture: Picture,
        face: Face,
        identity: Identity,
        watch: Stopwatch,
        size: int | None = None,
        matte_filter: MatteFilter | None = None,
        strength: float = 0.0,
    ) -> tuple[Crop, Swap, paste.Pasted]:
        """One face whose landmarks are known: align, swap, paste. Stills and video both go this way.

        Args:
            picture: what the face is in.
            face: with a mesh.
            identity: from `prepare`.
            watch: gets the seconds of "align", "swap" and "paste".
            size: side of the crop; None for what the method wants.
            matte_filter: of this face, in moving pictures.
            strength: of the matching of grain; 0 in moving pictures, where gains found anew in every frame flicker.

        Returns:
            The target's crop, the swapped crop, and the picture with it.
        """
        spec = self.method.crop
        with watch.stage("align"):
            crop = align.cut(picture.pixels, face, spec.template, size or spec.side(face))
        with watch.stage("swap"):
            swap = self.method.swap(self._source(identity, crop), crop, matte_filter=matte_filter)
        with watch.stage("paste"):
            finish = partial(grain.match, strength=strength) if strength > 0 else None
            pasted = paste.paste_part(picture, swap, crop.image_to_crop, finish)
        return crop, swap, pasted

    def _report(self, watch: Stopwatch, notes: Sequence[str], swapped: Sequence[SwappedFace]) -> dict[str, Any]:
        return {
            **self.describe(),
            "grain": self.grain,
            "ops": {op: state["chosen"] for op, state in cuda_ops.available().items()},
            "seconds": {name: round(value, 4) for name, value in watch.seconds.items()},
            "faces": [one.report for one in swapped],
            "notes": list(dict.fromkeys(notes)),
        }

    def describe(self) -> dict[str, Any]:
        """Method, device, dtype, engine and parts, as reports name them."""
        described = self.method.describe()
        return {
            "method": described.name,
            "weights": described.weights,
            "device": str(self.device),
            "dtype": next(name for name, kind in DTYPES.items() if kind == self.dtype),
            "engine": described.engine,
            "parts": {
                "detector": self.detector.name,
                "landmarks": self.landmarker.name,
                "identity": None if self.embedder is None else self.embedder.name,
                "parser": described.parser,
            },
        }
