"""python -m mattface.training.drawn PEOPLE --count N --out DIR: draws people and fits what learns from them.

PEOPLE is a folder that grows: an interrupted run goes on where it was, and a larger --count draws more. Written are
ffhq-directions, ffhq-encoder and mattface-ffhq. The first 300 people are left out of every fit; what is explained of
their codes is printed. Two to five people are drawn a second on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from mattface.code_heads import flatten_features
from mattface.edit import load_directions
from mattface.errors import UsageError
from mattface.generate.named import EMBEDDED, load_generator
from mattface.mesh.attributes import NAMES
from mattface.methods.fixed_chain import CHAIN, FIXED, GENERATOR
from mattface.training.drawn.directions import fit_directions, write_directions
from mattface.training.drawn.heads import explained, fit_heads
from mattface.training.drawn.people import Artist
from mattface.training.drawn.store import Store, extend, open_store
from mattface.training.drawn.swaps import KnownPeople, fit_swap_heads, train_transfer
from mattface.transfer.recognition import RecognitionTransfer

LEFT_OUT = 300
BASIS = 8000
"""Styles that say how W varies."""
CROSSING = 7
"""Directions are found on people whose styles are alike up to this one."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("mattface.training.drawn", description=__doc__, formatter_class=raw)
    parser.add_argument("people", type=Path, metavar="PEOPLE", help="folder of drawn people")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="people to have")
    parser.add_argument("--capacity", type=int, default=30_000, metavar="N", help="of a new folder (default: 30000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of a new folder (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for weights; without it people are only drawn")
    parser.add_argument("--pairs", type=int, default=8000, metavar="N", help="of the closed-form heads (default: 8000)")
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="of descent on transfer and heads")
    return parser


def main() -> None:
    """Draws, fits, writes."""
    args = arguments().parse_args()
    if args.out is not None and args.count <= 2 * LEFT_OUT:
        raise UsageError(f"fits need more than {2 * LEFT_OUT} people; got --count {args.count}.")
    store = open_store(args.people, args.seed, args.capacity)
    if store.count < args.count:
        store = extend(store, Artist(load_generator(EMBEDDED)), args.count)
    known = KnownPeople.read(store)
    print(f"{store.count} people of seed {store.seed}, {store.count - len(known.usable)} without a face that was found")
    if args.out is None:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    find_directions(store, known, args.out / "ffhq-directions.safetensors")
    find_encoder(store, known, args.out / "ffhq-encoder.safetensors")
    train_swaps(known, args.out, args.pairs, args.steps)


def find_directions(store: Store, known: KnownPeople, path: Path) -> None:
    """Directions from people left in, written."""
    mapping = load_generator(EMBEDDED).mapping
    average = mapping.w_avg.numpy()
    z = torch.randn(BASIS, mapping.z_dim, generator=torch.Generator().manual_seed(1))
    basis = mapping.style(z).numpy() - average
    among = known.usable[known.usable >= LEFT_OUT]
    codes = known.codes[among]
    alike = (codes[:, 0] - codes[:, CROSSING]).abs().amax(1) < 1e-3
    chosen = among[alike]
    values = known.attributes[chosen].numpy()
    found = fit_directions(codes[alike][:, 0].numpy() - average, values, store.array("identity")[chosen.numpy()], basis)
    write_directions(path, found, values.std(0), len(chosen))
    print(f"{path}: {', '.join(NAMES)} from {len(chosen)} people")


def find_encoder(store: Store, known: KnownPeople, path: Path) -> None:
    """Heads for inversion, written."""
    seen = torch.cat([flatten_features(store.features(part)) for part in torch.arange(store.count).split(500)])
    average = load_generator(EMBEDDED).mapping.w_avg
    heads = fit_heads(seen[LEFT_OUT:], known.codes[LEFT_OUT:], average)
    share = explained(heads, seen[:LEFT_OUT], known.codes[:LEFT_OUT])
    save_file({k: v.half().contiguous() for k, v in heads.state_dict().items()}, path)
    print(f"{path}: explains {np.round(share.numpy(), 3).tolist()} of the styles of {LEFT_OUT} people left out")


def train_swaps(known: KnownPeople, folder: Path, pairs: int, steps: int) -> None:
    """Transfer and heads for swaps, written."""
    directions = load_directions(str(folder / "ffhq-directions.safetensors"))
    torch.manual_seed(0)
    transfer = RecognitionTransfer()
    transfer.begin_beside()
    trained_on = known.without(LEFT_OUT)
    heads = fit_swap_heads(trained_on, transfer, directions, pairs, torch.Generator().manual_seed(0))
    print(f"closed form: explains {known.explained(transfer, heads, directions, LEFT_OUT):.3f} of swaps left out")
    with tqdm(total=steps, unit="step") as bar:
        train_transfer(trained_on, transfer, heads, directions, steps, report=lambda step, loss: bar.update())
    print(f"trained: explains {known.explained(transfer, heads, directions, LEFT_OUT):.3f}")
    state = {f"transfer.{k}": v for k, v in transfer.state_dict().items()}
    state |= {f"heads.{k}": v for k, v in heads.state_dict().items()}
    path = folder / "mattface-ffhq.safetensors"
    save_file({k: v.half().contiguous() for k, v in state.items()}, path, {CHAIN: FIXED, GENERATOR: EMBEDDED})
    print(path)


if __name__ == "__main__":
    main()
