"""mattface data: prepares photos for training, and reports what a folder holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mattface.errors import UsageError

LAYOUT = "folder, identities, nested, vggface2, ffhq, celebamask-hq, triplets or shards (default: recognised)"


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("data", help="prepare training data", description=__doc__)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = actions.add_parser("prepare", help="photos to aligned, masked, captioned faces; continues where it stopped")
    make.add_argument("photos", type=Path, metavar="DIR", help="a data set as it is unpacked, or a folder of photos")
    make.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    make.add_argument("--layout", default="auto", metavar="NAME", help=LAYOUT)
    make.add_argument("--split", choices=("mattface",), help="CelebAMask-HQ: 28 000 pictures to train, 2 000 to test")
    make.add_argument("--size", type=int, default=512, help="side of the crops (default: 512)")
    make.add_argument("--template", default="ffhq", choices=("ffhq", "arcface"), help="framing (default: ffhq)")
    make.add_argument("--smallest", type=int, default=0, metavar="PIXELS", help="least side of the face's square")
    make.add_argument("--keep-duplicates", action="store_true", help="keep pictures that look alike")
    make.add_argument("--captions", type=Path, metavar="FILE", help="JSON {NAME: TEXT} or lines NAME<tab>TEXT")
    make.add_argument("--caption-url", metavar="URL", help="OpenAI-compatible vision model: http://localhost:8000/v1")
    make.add_argument("--caption-model", default="default", metavar="NAME", help="its name there")
    make.add_argument("--words", type=int, default=70, help="longer captions are rejected (default: 70)")
    make.add_argument("--caption-prompt", default="alphaface", metavar="PAPER", help="alphaface or facechanger")
    make.set_defaults(run=prepare)
    show = actions.add_parser("show", help="what training would find in a folder")
    show.add_argument("folder", type=Path, metavar="DIR")
    show.add_argument("--layout", default="auto", metavar="NAME", help=LAYOUT)
    show.set_defaults(run=describe)


def prepare(args: argparse.Namespace) -> None:
    """Prepares photos and prints the report."""
    from mattface.training.data import captions
    from mattface.training.data import prepare as work
    from mattface.training.data.catalogue import catalogue
    from mattface.training.data.report import describe_work

    if args.captions and args.caption_url:
        raise UsageError("captions come from a file or from a URL; got both. Leave one out.")
    if args.size < 32 or args.words < 1:
        raise UsageError(f"expected --size of at least 32 and --words of at least 1; got {args.size}, {args.words}.")
    captioner: captions.Captioner | None = None
    if args.captions:
        captioner = captions.from_file(args.captions, args.words)
    elif args.caption_url:
        captioner = captions.Service(args.caption_url, args.caption_model, args.words, prompt=args.caption_prompt)
    settings = work.Settings(args.size, args.template, args.smallest, args.keep_duplicates)
    photos = catalogue(args.photos, args.layout)
    if args.split:
        photos = photos.divided()
    print("\n".join([photos.summary(), *(f"  {note}" for note in photos.notes)]), flush=True)
    print(describe_work(work.prepare(photos, args.out, settings, captioner), args.out))


def describe(args: argparse.Namespace) -> None:
    """Prints layout, counts and what is left out."""
    from mattface.training.data.catalogue import catalogue

    found = catalogue(args.folder, args.layout)
    records = found.records
    print(f"{found.root}: {found.summary()}")
    for what, count in (
        ("masks", sum(bool(r.masks) for r in records)),
        ("captions", sum(r.caption is not None for r in records)),
        ("landmarks", sum(r.mesh is not None for r in records)),
    ):
        print(f"  {what}: {count}")
    for note in found.notes:
        print(f"  {note}")
