"""mattface doctor: what is installed, what is missing, and what to type to get it."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Any

from mattface import __version__

PACKAGES = (
    "torch", "numpy", "pillow", "imagecodecs", "tifffile", "opencv-python-headless", "safetensors", "ninja",
    "onnxruntime", "ai-edge-litert", "c2pa-python", "cryptography", "insightface", "face-alignment",
    "matplotlib", "scikit-image",
)  # fmt: skip
OPTIONAL = {
    "insightface": "pip install 'mattface[perception]'",
    "face-alignment": "pip install 'mattface[perception]'",
    "matplotlib": "pip install 'mattface[demo]'",
    "scikit-image": "pip install 'mattface[demo]'",
}
SLOW_BF16 = "slower than fp32 (this processor lacks AVX-512 and AVX-NE-CONVERT)"
STAGES = {
    "detection": "mattface.detect",
    "landmarks": "mattface.landmarks",
    "identity": "mattface.embed",
    "parsing": "mattface.parse",
    "estimation": "mattface.estimate",
}
COMMERCIAL, MISSING = "commercial", "weights missing, see below"
NEEDED = ("detection", "landmarks")
"""Stages without which no method swaps; identity is measured, parsing and the default method come with the package."""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("doctor", help="what is installed, what is missing", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints the examination."""
    found = examine()
    if args.json:
        from mattface.cli.swap import plain

        print(json.dumps(plain(found), indent=2))
    else:
        print("\n".join(lines(found)))


def examine() -> dict[str, Any]:
    """Everything the command reports.

    Returns:
        "obstacles": why no face can be swapped here, a sentence each, none when it can;
        "mattface", "python", "platform": text; "packages": name -> version or None; "devices": list;
        "commercial_only": what MATTFACE_COMMERCIAL says; "ops": op -> {"chosen", "missing"}; "parts": stage ->
        [{"part", "usable", "note", "commercial"}], the first usable one runs; "methods": name -> {"commercial",
        "licence"}; "weights": states as `mattface.weights.status` gives them, each with "how".
    """
    from mattface import cuda_ops, weights
    from mattface.methods import METHODS
    from mattface.weights.licences import commercial_only

    found = {
        "mattface": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commercial_only": commercial_only(),
        "devices": devices(),
        "ops": cuda_ops.available(),
        "parts": {stage: _parts(module) for stage, module in STAGES.items() if importlib.util.find_spec(module)},
        "methods": {
            name: {"commercial": METHODS[name].commercial, "licence": METHODS[name].licence} for name in sorted(METHODS)
        },
        "weights": [{**weights.status(name), "how": card.how} for name, card in weights.cards().items()],
    }
    return {"obstacles": obstacles(found), **found}


def obstacles(found: dict[str, Any]) -> list[str]:
    """What has to be mended before a face can be swapped: a package or a part that is missing."""
    packages = [name for name, version in found["packages"].items() if version is None and name not in OPTIONAL]
    said = [f"the package {name} is missing{_advice(None)}" for name in packages]
    only = found["commercial_only"]
    usable = {s: any(p["usable"] and (p["commercial"] or not only) for p in ps) for s, ps in found["parts"].items()}
    stages = [stage for stage in NEEDED if not usable[stage]]
    if stages:
        said.append(f"no weights for {' and '.join(stages)}. Type: mattface weights pull embedded")
    return said


def verdict(found: dict[str, Any]) -> str:
    """Ready or not, in one line."""
    if found["obstacles"]:
        return f"Not ready: {'; '.join(found['obstacles'])}"
    where = found["devices"][-1]["device"]
    slow = " (slowly: kernels are not built, see ops)" if _plain_ops(found) else ""
    return f"Ready: mattface swap works on {where}{slow}. Whatever is missing below is optional."


def _plain_ops(found: dict[str, Any]) -> bool:
    return any(state["chosen"] == "reference" for state in found["ops"].values())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> list[dict[str, Any]]:
    """The processor and every CUDA device."""
    import torch

    from mattface.cuda_ops.precision import multiplies_bf16

    cpu = {"device": "cpu", "name": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    return [cpu | {"threads": torch.get_num_threads(), "bf16": "yes" if multiplies_bf16() else SLOW_BF16}] + [
        {
            "device": f"cuda:{index}",
            "name": torch.cuda.get_device_name(index),
            "memory_gb": round(torch.cuda.get_device_properties(index).total_memory / 1e9, 1),
        }
        for index in range(torch.cuda.device_count())
    ]


def _parts(module: str) -> list[dict[str, Any]]:
    found = importlib.import_module(module).available()
    return [
        {"part": one.part, "usable": one.usable, "note": one.note, "commercial": not one.restriction} for one in found
    ]


def lines(found: dict[str, Any]) -> list[str]:
    """The examination for people."""
    versions = f"mattface {found['mattface']}, Python {found['python']}, {found['platform']}"
    out = [verdict(found), "", versions, "", "devices"]
    out += ["  " + ", ".join(f"{k} {v}" if k != "device" else str(v) for k, v in d.items()) for d in found["devices"]]
    if len(found["devices"]) == 1:
        out.append("  no CUDA device is visible to torch; everything runs on the CPU")
    out += ["", "packages"]
    for name, version in found["packages"].items():
        out.append(f"  {name:24} {version or 'missing' + _advice(OPTIONAL.get(name))}")
    out += ["", "ops"]
    for op, state in found["ops"].items():
        missing = "; ".join(f"{name}: {reason}" for name, reason in state["missing"].items())
        out.append(f"  {op:24} {state['chosen']}" + (f" ({missing})" if missing else ""))
    allowed = ", if it allows commercial use: MATTFACE_COMMERCIAL=1" if found["commercial_only"] else ""
    out += ["", f"parts (the first usable one runs{allowed})", f"  {'stage':12} {'part':23} {COMMERCIAL} state"]
    for stage, parts in found["parts"].items():
        out += [f"  {stage:12} {p['part']:23} {_use(p)} {'usable' if p['usable'] else MISSING}" for p in parts]
    out += ["", "methods", f"  {'name':36} {COMMERCIAL} licence"]
    out += [f"  {name:36} {_use(method)} {method['licence']}" for name, method in found["methods"].items()]
    return [*out, "", "weights", *_weight_lines(found["weights"])]


def _use(part: dict[str, Any]) -> str:
    """An entry of the column of commercial use."""
    return f"{'yes' if part['commercial'] else 'no':{len(COMMERCIAL)}}"


def _weight_lines(states: list[dict[str, Any]]) -> list[str]:
    from mattface.cli.weights import here

    out = []
    for state in states:
        advice = "" if here(state) == "here" else f". {state['how'] if here(state) == 'missing' else state['note']}"
        out.append(f"  {state['name']:24} {here(state)}{advice}")
    return out


def _advice(command: str | None) -> str:
    return f" (optional). Type: {command}" if command else ". Type: pip install mattface"
