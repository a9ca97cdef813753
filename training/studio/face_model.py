"""A linear face model as arrays: neutral head, identity and expression offsets, surface, texture coordinates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mattface import weights
from mattface.errors import InputError
from mattface.weights.arrays import read_arrays

CARD = "ict-face-model"
FACE, HEAD, MOUTH, SOCKET, GUMS, TEETH, EYE, HIDDEN = range(8)
"""What a vertex belongs to. FACE: skin with ears and the front of the neck. HEAD: scalp and nape. MOUTH: inside of the
cheeks. SOCKET: around the eyeball. HIDDEN: lashes, tear film and the like, which are not drawn."""
ICT_STARTS = {FACE: 0, HEAD: 9409, MOUTH: 11248, SOCKET: 13294, GUMS: 14062, TEETH: 17039, EYE: 21451, HIDDEN: 24591}
"""First vertex of every part of the ICT model. Of an eyeball's two shells the outer one, with the cornea, is drawn."""
ICT_INNER_SHELLS = ((22221, 23021), (23791, 24591))
REQUIRED = ("neutral", "identity_deltas", "expression_deltas", "expression_names", "quads", "uv", "quad_uv")
KEYS = (*REQUIRED, "landmarks", "part")


@dataclass(frozen=True)
class FaceModel:
    """A linear model of heads: vertices = neutral + identity . identity_deltas + expression . expression_deltas.

    Attributes:
        neutral: (N, 3) float32 vertices of the mean head in centimetres: x right, y up, z towards the viewer.
        identity_deltas: (I, N, 3) float32; coefficients are standard normal in the population.
        expression_deltas: (E, N, 3) float32; coefficients lie in [0, 1].
        expression_names: (E,) names; those that the studio moves are ARKit's ("jawOpen", "eyeBlink_L", ...).
        quads: (Q, 4) int32 vertices of every face, counter-clockwise seen from outside; -1 last for a triangle.
        uv: (M, 2) float32 texture coordinates; the whole part of u is the number of the tile, v runs upwards.
        quad_uv: (Q, 4) int32 texture coordinates of every corner.
        landmarks: (68,) int32 vertices in the order of the iBUG layout.
        part: (N,) uint8, one of FACE ... HIDDEN.
    """

    neutral: np.ndarray
    identity_deltas: np.ndarray
    expression_deltas: np.ndarray
    expression_names: tuple[str, ...]
    quads: np.ndarray
    uv: np.ndarray
    quad_uv: np.ndarray
    landmarks: np.ndarray
    part: np.ndarray

    def vertices(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(N, 3) float32 head of (I,) and (E,) coefficients."""
        return self.neutral + self.offsets(self.identity_deltas, identity) + self.expressed(expression)

    def expressed(self, expression: np.ndarray) -> np.ndarray:
        """(N, 3) float32 what (E,) expression coefficients add."""
        return self.offsets(self.expression_deltas, expression)

    @staticmethod
    def offsets(deltas: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """(N, 3) float32 sum of deltas (K, N, 3) weighted by (K,) coefficients."""
        flat = coefficients.astype(np.float32) @ deltas.reshape(len(deltas), -1)
        return flat.reshape(deltas.shape[1:])

    def expression(self, **named: float) -> np.ndarray:
        """(E,) float32 coefficients out of names; "eyeBlink" stands for both sides, unknown names are errors."""
        out = np.zeros(len(self.expression_names), np.float32)
        for name, value in named.items():
            sides = [n for n in (name, f"{name}_L", f"{name}_R") if n in self.expression_names]
            if not sides:
                raise InputError(f"expected an expression of {', '.join(self.expression_names)}; got {name!r}.")
            for side in sides:
                out[self.expression_names.index(side)] = value
        return out

    @cached_property
    def triangles(self) -> np.ndarray:
        """(T, 3) int32: drawn quads as two triangles each."""
        return self._split(self.quads)

    @cached_property
    def triangle_uv(self) -> np.ndarray:
        """(T, 3, 2) float32 texture coordinates of the triangles' corners, within their tile, v downwards."""
        uv = self.uv[self._split(self.quad_uv)]
        tile = np.floor(uv.mean(1, keepdims=True))
        return np.ascontiguousarray(np.stack([uv[..., 0] - tile[..., 0], 1 - (uv[..., 1] - tile[..., 1])], -1))

    @cached_property
    def triangle_part(self) -> np.ndarray:
        """(T,) part of every triangle: the highest of its corners."""
        return self.part[self.triangles].max(1)

    def _split(self, quads: np.ndarray) -> np.ndarray:
        """Triangles of the drawn quads; `quads` is self.quads or self.quad_uv."""
        drawn = np.where(self.quads < 0, 0, self.part[self.quads]).max(1) != HIDDEN
        kept, four = quads[drawn], self.quads[drawn][:, 3] >= 0
        return np.concatenate([kept[:, :3], kept[four][:, [0, 2, 3]]]).astype(np.int32)

    @cached_property
    def mirror_sign(self) -> float:
        """1 when landmark 0 lies left of landmark 16 in a picture, as it must."""
        return float(np.sign(self.neutral[self.landmarks[16], 0] - self.neutral[self.landmarks[0], 0]))


def load_model(path: Path | str | None = None) -> FaceModel:
    """Reads a face model.

    Args:
        path: an .npz with the arrays of `FaceModel`; None takes the file that the card "ict-face-model" names.

    Raises:
        WeightsError: no path, and the card's file is not here; or not a whole file of arrays.
        InputError: arrays are missing or do not fit together.
    """
    path = weights.find(CARD) if path is None else Path(path)
    arrays = read_arrays(path)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        how = "Convert it: mattface studio convert FILE OUT.npz"
        raise InputError(f"face model {path}: expected the arrays {', '.join(KEYS)}; missing {missing}. {how}.")
    return check_model(from_arrays(arrays), str(path))


def from_arrays(arrays: dict[str, np.ndarray]) -> FaceModel:
    """A model out of arrays of any dtype."""
    floats = ("neutral", "identity_deltas", "expression_deltas", "uv")
    whole = ("quads", "quad_uv", "landmarks")
    return FaceModel(
        **{k: np.ascontiguousarray(arrays[k], np.float32) for k in floats},
        **{k: np.ascontiguousarray(arrays[k], np.int32) for k in whole},
        expression_names=tuple(str(n) for n in arrays["expression_names"]),
        part=np.ascontiguousarray(arrays["part"], np.uint8),
    )


def check_model(model: FaceModel, where: str) -> FaceModel:
    """The model, or InputError when its arrays do not fit together."""
    n = len(model.neutral)
    faults = {
        "identity_deltas": model.identity_deltas.shape[1:] != (n, 3),
        "expression_deltas": model.expression_deltas.shape[1:] != (n, 3),
        "expression_names": len(model.expression_names) != len(model.expression_deltas),
        "quads": model.quads.ndim != 2 or model.quads.shape[1] != 4 or model.quads.max() >= n,
        "quad_uv": model.quad_uv.shape != model.quads.shape or model.quad_uv.max() >= len(model.uv),
        "landmarks": model.landmarks.shape != (68,) or model.landmarks.max() >= n,
        "part": model.part.shape != (n,) or model.part.max() > HIDDEN,
        "neutral": not np.isfinite(model.neutral).all() or model.neutral.shape != (n, 3),
    }
    wrong = [name for name, fault in faults.items() if fault]
    if wrong or model.mirror_sign != 1:
        raise InputError(f"face model {where}: {', '.join(wrong) or 'left and right'} do not fit the other arrays.")
    return model


def save_model(model: FaceModel, path: Path) -> None:
    """Writes a model as `load_model` reads it, offsets in half precision."""
    arrays: dict[str, Any] = {key: np.asarray(getattr(model, key)) for key in KEYS}
    for key in ("identity_deltas", "expression_deltas"):
        arrays[key] = arrays[key].astype(np.float16)
    np.savez_compressed(path, **arrays)


def convert(source: Path) -> FaceModel:
    """The ICT-FaceKit light model out of its makers' files.

    Args:
        source: the folder FaceXModel of the project's repository (generic_neutral_mesh.obj, identityNNN.obj, one .obj
            for every expression, vertex_indices.json), or an .npz with the same vertices as arrays (neutral_vertices,
            identity_deltas, expression_deltas, expression_names, quads, uv, quad_uv) beside a JSON file whose name
            ends in vertex_indices.json.

    Raises:
        InputError: something is missing there.
    """
    folder = source if source.is_dir() else source.parent
    indices = sorted(folder.glob("*vertex_indices.json"))
    if not source.exists() or not indices:
        raise InputError(f"expected the ICT face model and vertex_indices.json in {folder}; see `load_model`.")
    landmarks = json.loads(indices[0].read_text(encoding="utf-8"))["idx_to_landmark_verts"]
    arrays = read_objects(source) if source.is_dir() else read_packed(source)
    return check_model(from_arrays({**arrays, "landmarks": np.array(landmarks), "part": ict_parts()}), str(source))


def ict_parts() -> np.ndarray:
    """(26719,) part of every vertex of the ICT model."""
    part = np.full(26719, HIDDEN, np.uint8)
    for name, start in sorted(ICT_STARTS.items()):
        part[start:] = name
    for low, high in ICT_INNER_SHELLS:
        part[low:high] = HIDDEN
    return part


def read_packed(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz of the ICT model."""
    arrays = {("neutral" if key == "neutral_vertices" else key): value for key, value in read_arrays(path).items()}
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{path}: expected {', '.join(REQUIRED)}; missing {missing}.")
    return {key: arrays[key] for key in REQUIRED}


def read_objects(folder: Path) -> dict[str, np.ndarray]:
    """Arrays out of a folder of Wavefront files."""
    neutral, uv, quads, quad_uv = read_object(folder / "generic_neutral_mesh.obj")
    others = sorted(p for p in folder.glob("*.obj") if p.name != "generic_neutral_mesh.obj")
    identities = [p for p in others if p.stem.startswith("identity")]
    expressions = [p for p in others if p not in identities]
    deltas = {k: [read_object(p)[0] - neutral for p in v] for k, v in (("i", identities), ("e", expressions))}
    if not identities or not expressions:
        raise InputError(f"{folder}: expected identityNNN.obj and expression files; found {len(others)} other meshes.")
    return {
        "neutral": neutral,
        "identity_deltas": np.stack(deltas["i"]),
        "expression_deltas": np.stack(deltas["e"]),
        "expression_names": np.array([p.stem for p in expressions]),
        "quads": quads,
        "uv": uv,
        "quad_uv": quad_uv,
    }


def read_object(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N, 3), texture coordinates (M, 2), quads (Q, 4), their texture corners (Q, 4) of a Wavefront file."""
    rows: dict[str, list[list[str]]] = {"v": [], "vt": [], "f": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(" ")
        if kind in rows:
            rows[kind].append(rest.split())
    corners = [[[int(n) - 1 for n in c.split("/")[:2]] for c in face] for face in rows["f"]]
    padded = np.array([face + [[-1, -1]] * (4 - len(face)) for face in corners], np.int32).reshape(-1, 4, 2)
    uv = np.array([r[:2] for r in rows["vt"]], np.float32).reshape(-1, 2)
    vertices = np.array([r[:3] for r in rows["v"]], np.float32)
    return vertices, uv, padded[..., 0], padded[..., 1] if len(uv) else np.zeros_like(padded[..., 0])
