"""Writes the weights between two checkpoints of one network: the end of a training drawn back towards its start.

    python -m mattface.training.tools.interpolate_weights START END --ratio 0.6 --out FILE.safetensors

After a training that continued from START on other data, such weights often keep most of what both know (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mattface import weights as registry
from mattface.errors import MattfaceError, UsageError, WeightsError
from mattface.training.checkpoint import save_weights


def interpolate_weights(start: str, end: str, ratio: float, out: Path) -> None:
    """Writes (1 - ratio) START + ratio END; what END alone has, latents say, is END's.

    Args:
        start, end: name of weights, file or folder.
        ratio: 0 to 1.
        out: ends in .safetensors.

    Raises:
        UsageError: another ratio or file name.
        WeightsError: a file is missing or damaged, or END lacks a tensor of START or has it in another shape.
    """
    if not 0 <= ratio <= 1 or out.suffix != ".safetensors":
        raise UsageError(f"expected a ratio from 0 to 1 and --out FILE.safetensors; got {ratio} and {out}.")
    before, _ = registry.load_tensors(registry.checkpoint_in(start))
    after, metadata = registry.load_tensors(registry.checkpoint_in(end))
    for name, tensor in before.items():
        if name not in after or after[name].shape != tensor.shape:
            raise WeightsError(f"{start} and {end} must hold one network; {name} differs. Take checkpoints of one run.")
        if tensor.is_floating_point():
            after[name] = (1 - ratio) * tensor.float() + ratio * after[name].float()
    save_weights(out, after, metadata | {"training": f"{ratio:g} of {metadata.get('training', 'its training')}"})


def main() -> int:
    """Parses the command line and writes; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    name = "python -m mattface.training.tools.interpolate_weights"
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=raw)
    parser.add_argument("start", metavar="START", help="name of weights, .safetensors file, or its folder")
    parser.add_argument("end", metavar="END", help="the same, trained on from START")
    parser.add_argument("--ratio", type=float, default=0.5, help="of END, 0 to 1 (default: 0.5)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="replaced if it exists")
    args = parser.parse_args()
    try:
        interpolate_weights(args.start, args.end, args.ratio, args.out)
    except MattfaceError as error:
        print(f"mattface: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
