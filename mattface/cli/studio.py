"""mattface studio: triplets whose perfect swap is known, drawn with a linear face model.

The face model is not part of this package: `mattface weights show ict-face-model` says where to get it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from mattface.training.studio.people import Studio
    from mattface.training.studio.triplet import Triplet
    from mattface.training.studio.triplets import TripletMaker
    from mattface.vocabulary import Face

EPILOG = """examples:
  mattface studio convert FaceXModel ict_face_model.npz
  mattface studio people --portraits photos --out people.npz
  mattface studio sheet --people people.npz --out sheet.png
  mattface studio render --people people.npz --out pictures --count 4 --size 512
  mattface studio shards --people people.npz --out shards --count 10000

Photographs whose name says that they are for evaluation are never used.
"""
COLUMNS = ("source", "target", "swap", "source carried by the flow", "matte", "target's face")


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "studio", help="render triplets with ground truth", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    turn = actions.add_parser("convert", help="turn the ICT face model into the file that the studio reads")
    turn.add_argument("source", type=Path, metavar="FILE", help="its folder FaceXModel, or an .npz of its arrays")
    turn.add_argument("out", type=Path, metavar="OUT.npz")
    turn.set_defaults(run=convert)
    fit = actions.add_parser("people", help="fit the face model to photographs")
    fit.add_argument("--portraits", type=Path, required=True, metavar="DIR", help="photographs, one person each")
    fit.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    fit.add_argument("--most", type=int, metavar="N", help="use the first N photographs only")
    fit.set_defaults(run=people)
    _add_triplets(actions, "sheet", "a contact sheet of triplets", "FILE.png", 8, sheet)
    _add_triplets(actions, "render", "triplets as separate pictures", "DIR", 4, render)
    shards_parser = _add_triplets(actions, "shards", "triplets as WebDataset shards", "DIR", 1000, shards)
    shards_parser.add_argument("--per-shard", type=int, default=500, metavar="N", help="default: 500")


def _add_triplets(actions: Any, name: str, purpose: str, out: str, count: int, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=purpose)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--people", type=Path, metavar="FILE.npz", help="made by: mattface studio people")
    who.add_argument("--portraits", type=Path, metavar="DIR", help="photographs, fitted now")
    parser.add_argument("--out", type=Path, required=True, metavar=out)
    parser.add_argument("--count", type=int, default=count, metavar="N", help=f"triplets (default: {count})")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the pictures (default: 256)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first triplet (default: 0)")
    parser.add_argument("--kind", choices=["head", "photo", "inexact"], help="default: a mixture")
    parser.add_argument("--occluded", type=float, default=0.5, metavar="0..1", help="how often things lie before faces")
    parser.add_argument("--wide", type=float, default=0.35, metavar="0..1", help="share of drawn heads turned anywhere")
    parser.add_argument("--renderer", choices=["cpu", "torch"], default="cpu", help="default: cpu")
    parser.set_defaults(run=run)
    return parser


def convert(args: argparse.Namespace) -> None:
    """Writes the face model."""
    from mattface.training.studio import face_model

    model = face_model.convert(args.source)
    face_model.save_model(model, args.out)
    print(f"{args.out}: {len(model.neutral)} vertices, {len(model.expression_names)} expressions")


def people(args: argparse.Namespace) -> None:
    """Fits photographs and says how well."""
    import numpy as np

    from mattface.training.studio.studio_file import save_studio

    studio = fitted(args.portraits, args.most)
    save_studio(studio, args.out)
    errors = np.array([p.photo.fit.errors / len(p.photo.pixels) for p in studio.people if p.photo is not None])
    median, tail = np.percentile(errors, [50, 95]) * 100
    print(f"{args.out}: {len(studio.people)} people; landmarks off by {median:.2f} % of the crop (95th: {tail:.2f} %)")


def fitted(folder: Path, most: int | None = None) -> Studio:
    """The people of a folder of photographs, those for evaluation left out."""
    from mattface.training.data.portraits import training_portraits
    from mattface.training.studio.people import build

    if not folder.is_dir():
        raise InputError(f"expected a folder of photographs; {folder} is none.")
    return build(faces(training_portraits(folder)[:most]))


def faces(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray, Face]]:
    """Name, picture and largest face of every photograph that shows one, one after the other."""
    from tqdm import tqdm

    from mattface import perception, picture_io

    find, measure = perception.load("detector"), perception.load("landmarks")
    for path in tqdm(paths, desc="fitting", disable=None):
        pixels = picture_io.read(path).pixels
        found = find(pixels)
        if found:
            yield path.name, pixels, measure(pixels, found[0])


def maker(args: argparse.Namespace) -> TripletMaker:
    """Who makes the triplets that the arguments ask for."""
    from mattface.training.studio.render import Renderer
    from mattface.training.studio.shots import KINDS, Config
    from mattface.training.studio.studio_file import load_studio
    from mattface.training.studio.triplets import TripletMaker

    if args.count < 1:
        raise InputError(f"expected at least one triplet; got --count {args.count}.")
    for name in ("occluded", "wide"):
        if not 0 <= getattr(args, name) <= 1:
            raise InputError(f"expected --{name} between 0 and 1; got {getattr(args, name)}.")
    studio = load_studio(args.people) if args.people else fitted(args.portraits)
    shares = Config.kinds if args.kind is None else tuple(float(args.kind == kind) for kind in KINDS)
    config = Config(args.size, shares, wide=args.wide, occluded=args.occluded)  # type: ignore[arg-type]
    return TripletMaker(studio, config, Renderer(studio.model, args.renderer))


def sheet(args: argparse.Namespace) -> None:
    """One row a triplet."""
    from mattface import picture_io

    make = maker(args)
    rows = [tiles(make(args.seed + k)) for k in range(args.count)]
    picture_io.write(picture_io.read(stacked(rows)), args.out, overwrite=True)
    print(f"{args.out}: {', '.join(COLUMNS)}")


def tiles(triplet: Triplet) -> list[np.ndarray]:
    """(S, S, 3) uint8 pictures of one row, in the order of `COLUMNS`."""
    import numpy as np

    from mattface.training.studio.texture import sample_image

    carried = sample_image(triplet.source, triplet.flow) * triplet.visible[..., None]
    masks = [np.repeat(m[..., None] * 255, 3, 2) for m in (triplet.matte, triplet.mask)]
    return [triplet.source, triplet.target, triplet.swap, *(np.asarray(x).astype(np.uint8) for x in (carried, *masks))]


def stacked(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Rows of pictures as one picture."""
    import numpy as np

    return np.vstack([np.hstack(row) for row in rows])


def render(args: argparse.Namespace) -> None:
    """Three pictures and a matte for every triplet."""
    from mattface import picture_io

    make = maker(args)
    args.out.mkdir(parents=True, exist_ok=True)
    for k in range(args.seed, args.seed + args.count):
        for name, image in zip(("source", "target", "swap", None, "matte"), tiles(make(k)), strict=False):
            if name is not None:
                picture_io.write(picture_io.read(image), args.out / f"{k:08d}-{name}.png", overwrite=True)
    print(f"{args.out}: {args.count} triplets")


def shards(args: argparse.Namespace) -> None:
    """WebDataset shards; those that are there already are kept."""
    from mattface.training.studio.stream import write_shards

    for path in write_shards(maker(args), args.out, args.count, args.per_shard, args.seed):
        print(path)
