"""python -m mattface.training RECIPE --portraits DIR --out DIR: trains a recipe from a folder of portraits."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

from mattface.training.checkpoint import load_state, save_state
from mattface.training.loop import refine, train
from mattface.training.pairs import PairStore, Teacher, crops_of, make_pairs, training_portraits


def main() -> None:
    """Parses the command line, makes the pairs, trains both stages."""
    parser = argparse.ArgumentParser(prog="python -m mattface.training", description=__doc__)
    parser.add_argument("recipe", choices=["mattface-demo"])
    parser.add_argument("--portraits", type=Path, required=True, help="folder of portraits, one person each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run continues")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    recipe = importlib.import_module(f"mattface.training.recipes.{arguments.recipe.replace('-', '_')}").recipe()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(arguments.device)
    paths = training_portraits(arguments.portraits)
    maps = load_state(arguments.out / "pairs.pt")
    if maps is None:
        teacher = Teacher(crops_of(paths, 2 * recipe.size))
        maps = make_pairs(teacher, recipe.size, recipe.pairs, recipe.same, recipe.seed).maps
        save_state(arguments.out / "pairs.pt", maps)
    store = PairStore(maps)
    network = train(recipe, store, arguments.out, device)
    refine(recipe, network, Teacher(crops_of(paths, recipe.config.resolution)), arguments.out, device)


if __name__ == "__main__":
    main()
