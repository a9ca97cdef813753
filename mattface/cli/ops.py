"""mattface ops: which kernels run, and building faster ones."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mattface.errors import MattfaceError, UsageError


def add_parser(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("ops", help="which kernels run; build native ones", description=__doc__)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("show", help="which implementation of every op runs, and why").set_defaults(run=show)
    build = actions.add_parser("build", help="compile kernels for this machine or others")
    build.add_argument(
        "--arch",
        nargs="+",
        metavar="ARCH",
        help="cpu (or native), sm_75 ... sm_121, or all; without it what this machine can use",
    )
    build.add_argument("--force", action="store_true", help="compile again what is there")
    build.add_argument("--if-possible", action="store_true", help="without a compiler say so and succeed")
    build.set_defaults(run=build_named)


def show(_: argparse.Namespace) -> None:
    """One line per op."""
    from mattface import cuda_ops

    for op, state in cuda_ops.available().items():
        print(f"{op}: {state['chosen']}")
        for name, reason in state["missing"].items():
            print(f"  {name}: {reason}")


def build_named(args: argparse.Namespace) -> None:
    """Compiles and says where the libraries lie."""
    from mattface.cuda_ops import _build

    for name in _names(args.arch):
        try:
            _build_one(_build.Target(name), args.force)
        except _build.BuildError as error:
            # A CUDA toolkit that rejects the machine's compiler is as common as none.
            optional = isinstance(error, _build.NoToolsError) or name != "cpu"
            if not (args.if_possible and optional):
                raise MattfaceError(str(error)) from None
            print(f"{name}: left out, {error} Everything runs without it, more slowly.")


def _names(stated: list[str] | None) -> list[str]:
    """Targets that --arch names, each once; "all" are those that the compilers here can do."""
    from mattface.cuda_ops import _build, _implementations

    if stated is None:
        return _implementations.targets()
    valid = (*_build.TARGETS, "native", "all")
    unknown = [name for name in stated if name not in valid]
    if unknown:
        raise UsageError(f"--arch must be of {', '.join(valid)}; got {', '.join(unknown)}.")
    names = ["cpu" if name == "native" else name for name in stated]
    if "all" in names:
        try:
            archs = _build.compiled_archs(_build.compiler(_build.Target(_build.ARCHS[0])))
        except _build.BuildError as error:
            raise MattfaceError(str(error)) from None
        names = ["cpu", *archs]
    return list(dict.fromkeys(names))


def _build_one(target: Any, force: bool) -> None:
    from mattface.cuda_ops import _build

    print(f"{target.name}: compiling where needed ...", flush=True)
    start = time.perf_counter()
    library, compiled = _build.build(target, force)
    done = f"compiled in {time.perf_counter() - start:.1f} s" if compiled else "was there"
    print(f"{target.name}: {done}: {library}")
