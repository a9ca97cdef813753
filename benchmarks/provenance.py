"""mattface bench provenance: what the imperceptible mark survives, what it costs, and whether manifests notice changes.

    mattface bench provenance --portraits DIR --pairs 200 --out report.json

Portraits of the evaluation people are swapped, marked, attacked and read again by the public detector; an answer counts
only when all 48 bits are right. Every portrait of the folder, as it is and attacked, is searched for marks that nobody
put there.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mattface import __version__, load, picture_io, provenance, verification
from mattface.benchmarks.attacks import ATTACKS
from mattface.benchmarks.cases import evaluation_portraits
from mattface.benchmarks.common import save
from mattface.benchmarks.portraits import choose_pairs
from mattface.errors import MattfaceError, UsageError
from mattface.landmarks import five_points
from mattface.provenance import manifest, watermark
from mattface.provenance.laying import Laying, settled
from mattface.vocabulary import Face

CLIP = 8
"""Frames of a clip."""
RATE = {"crf": "23", "preset": "veryfast"}
"""Of its H.264 encoder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("--portraits", type=Path, required=True, metavar="DIR", help="folder of portraits")
    parser.add_argument("--method", default="mesh", help="swapping method (default: mesh)")
    parser.add_argument("--pairs", type=int, default=200, metavar="N", help="swaps (default: 200)")
    parser.add_argument("--clips", type=int, default=20, metavar="N", help="of them as H.264 clips (default: 20)")
    parser.add_argument("--untouched", type=int, default=1000, metavar="N", help="unmarked pictures (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of pairs and noise (default: 1)")
    parser.add_argument("--show", type=Path, metavar="DIR", help="write pictures before and after, side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/provenance.json"), metavar="FILE.json")


def run(args: argparse.Namespace) -> None:
    """Measures, prints and saves."""
    if min(args.pairs, args.clips + 1, args.untouched + 1) < 1:
        raise UsageError("expected --pairs of at least 1, --clips and --untouched of at least 0.")
    cv2.setNumThreads(1)
    rng = np.random.default_rng(args.seed)
    rows: list[dict[str, Any]] = []
    clips: list[bool] = []
    for number, (swapped, record) in enumerate(swaps(args)):
        rows.append(one(swapped, record, rng))
        if args.show:
            show(swapped, rows[-1].pop("marked"), record.matte, args.show / f"{number:03d}.png")
        rows[-1].pop("marked", None)
        if number < args.clips:
            clips.append(clip(swapped, record, rng))
        save({"attacks": survived(rows, clips), "cost": cost(rows), "rows": rows}, args.out)  # what an end would lose
    numbers = {"attacks": survived(rows, clips), "cost": cost(rows), "manifests": manifests(args.portraits)}
    numbers["untouched"] = untouched(args.portraits, args.untouched, rng)
    tell(numbers)
    save({**numbers, "rows": rows}, args.out)


def swaps(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, provenance.Swapped]]:
    """Swapped pictures with what they know of themselves."""
    from tqdm import tqdm

    people, swapper = evaluation_portraits(args.portraits), load(args.method)
    pairs = choose_pairs(len(people), args.pairs, args.seed)
    for source, target in tqdm(pairs, desc="swaps", disable=None):
        try:
            picture = swapper.swap(str(people[source]), str(people[target]), measure=False).picture
        except MattfaceError as error:
            print(f"{people[source].name} on {people[target].name} is left out: {error}")
            continue
        yield picture.pixels, picture.metadata[provenance.RECORD]


def one(swapped: np.ndarray, record: provenance.Swapped, rng: np.random.Generator) -> dict[str, Any]:
    """Marks a picture, attacks it in every way and reads it."""
    payload = secrets.randbits(48)
    start = time.process_time()
    marked = watermark.embed(swapped, record.matte, record.meshes, payload)
    embedded = time.process_time() - start
    inside = record.matte > 0
    if not np.array_equal(marked[~inside], swapped[~inside]):
        raise MattfaceError("a pixel outside the matte was changed.")
    error = float(((marked.astype(float) - swapped)[inside] ** 2).mean())
    row: dict[str, Any] = {"psnr": 10 * np.log10(255**2 / max(error, 1e-12)), "embed": embedded, "marked": marked}
    for name, (attack, _) in ATTACKS.items():
        start = time.process_time()
        seen = verification.look(attack(marked, rng))
        row[name] = any(found.payload == payload for found in seen)
        row[f"{name} wrong"] = any(found.payload not in (None, payload) for found in seen)
        row[f"{name} correlation"] = max((found.correlation for found in seen), default=0.0)
        row[f"{name} seconds"] = time.process_time() - start
    return row


def clip(swapped: np.ndarray, record: provenance.Swapped, rng: np.random.Generator) -> bool:
    """Whether a slow camera move over a picture, marked frame by frame, is read back from H.264."""
    import av

    payload, drift = secrets.randbits(48), rng.uniform(-3, 3, 2)
    _, locate = verification.parts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w") as file:
            height, width = (n & ~1 for n in swapped.shape[:2])
            stream = file.add_stream("libx264", rate=25, options=RATE)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for k in range(CLIP):
                zoom = 1 + 0.004 * k
                move = np.array([[zoom, 0, drift[0] * k], [0, zoom, drift[1] * k]])
                still, matte = (cv2.warpAffine(p, move, (width, height)) for p in (swapped, record.matte))
                meshes = [np.c_[mesh[:, :2] @ move[:, :2].T + move[:, 2], mesh[:, 2]] for mesh in record.meshes]
                frame = watermark.embed(still, matte, [settled(locate, still, known(mesh)) for mesh in meshes], payload)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            file.mux(stream.encode(None))
        told = verification.verify(path)
    return bool(told["layers"]["mark"].get("id") == f"{payload:012x}")


def known(mesh: np.ndarray) -> Face:
    """A face whose mesh is known."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    return Face(np.concatenate([low, high]), 1.0, five_points(mesh), mesh, 1.0)


def untouched(folder: Path, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """How many unmarked pictures are said to be marked: portraits as they are, then attacked."""
    from tqdm import tqdm

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    ways = [attack for attack, _ in ATTACKS.values()]
    highest, seen, false = 0.0, 0, 0
    for k in tqdm(range(count), desc="untouched", disable=None):
        rgb = picture_io.read(paths[k % len(paths)]).pixels
        for found in verification.look(ways[k // len(paths) % len(ways)](rgb, rng)):
            seen += 1
            false += found.payload is not None
            highest = max(highest, found.correlation)
    least = watermark.code.threshold(watermark.TRIALS, watermark.FALSE_POSITIVES)
    return {"pictures": count, "portraits": min(count, len(paths)), "faces": seen, "false": false,
            "highest correlation": highest, "threshold": least, "bound": watermark.FALSE_POSITIVES}  # fmt: skip


def manifests(folder: Path) -> dict[str, Any]:
    """What happens to a manifest in every format: states, bytes and seconds."""
    people = evaluation_portraits(folder)
    pixels, other = (picture_io.read(path).pixels for path in people[:2])
    record = provenance.Swapped(np.zeros((0, 0), np.float32), (), people[0], provenance.hash_of(people[0]))
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for ending in (".png", ".jpg", ".webp", ".tif"):
            plain, second = (Path(place) / f"{name}{ending}" for name in ("plain", "second"))
            picture_io.write(picture_io.read(pixels), plain, mark="xmp")
            picture_io.write(picture_io.read(other), second, mark="none")
            start = time.perf_counter()
            laying = Laying(provenance.Settings(), record)
            data = laying.sign(plain.read_bytes(), plain, __version__)
            seconds = time.perf_counter() - start
            table[ending] = {
                "written": manifest.read_bytes(data, ending).state,
                "pixel byte changed": manifest.read_bytes(flipped(data, len(data) * 3 // 4), ending).state,
                "metadata byte changed": manifest.read_bytes(flipped(data, data.find(b"AISystemUsed")), ending).state,
                "moved to another picture": moved(data, second.read_bytes()) if ending == ".png" else "not tried",
                "bytes added": len(data) - plain.stat().st_size,
                "seconds": round(seconds, 3),
            }
    return table


def flipped(data: bytes, at: int) -> bytes:
    """Bytes with the lowest bit of one changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def moved(signed: bytes, other: bytes) -> str:
    """State of another PNG that the chunk with the manifest was copied into."""
    start = signed.find(b"caBX") - 4
    chunk = signed[start : start + 12 + int.from_bytes(signed[start : start + 4], "big")]
    return manifest.read_bytes(other[:start] + chunk + other[start:], ".png").state


def survived(rows: list[dict[str, Any]], clips: list[bool]) -> dict[str, dict[str, Any]]:
    """Attack -> percentage read, goal, number, wrong ids, median correlation."""
    table = {
        name: {
            "read": 100 * float(np.mean([row[name] for row in rows])),
            "goal": goal,
            "of": len(rows),
            "wrong": int(sum(row[f"{name} wrong"] for row in rows)),
            "correlation": float(np.median([row[f"{name} correlation"] for row in rows])),
        }
        for name, (_, goal) in ATTACKS.items()
    }
    if clips:
        table["H.264 clip"] = {"read": 100 * float(np.mean(clips)), "goal": 95, "of": len(clips)}
    return table


def cost(rows: list[dict[str, Any]]) -> dict[str, float]:
    """PSNR inside the matte in dB, and seconds of one CPU core."""
    psnr = [row["psnr"] for row in rows]
    return {
        "PSNR, median": float(np.median(psnr)),
        "PSNR, lowest": float(np.min(psnr)),
        "seconds to embed": float(np.median([row["embed"] for row in rows])),
        "seconds to read, faces found": float(np.median([row["none, PNG, TIFF seconds"] for row in rows])),
    }


def show(before: np.ndarray, after: np.ndarray, matte: np.ndarray, path: Path) -> None:
    """Writes the face before and after, side by side at 1:1."""
    rows, columns = np.flatnonzero((matte > 0).any(1)), np.flatnonzero((matte > 0).any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack([before[box], after[box]])).save(path)


def tell(numbers: dict[str, Any]) -> None:
    """Prints the tables."""
    for name, row in numbers["attacks"].items():
        goal = "" if row["goal"] is None else f"  goal {row['goal']}"
        print(f"{name:32}{row['read']:6.1f} % of {row['of']}{goal}")
    for part in ("cost", "untouched"):
        print(", ".join(f"{k} {v:.4g}" for k, v in numbers[part].items()))
    for ending, row in numbers["manifests"].items():
        print(ending, ", ".join(f"{k}: {v}" for k, v in row.items()))
