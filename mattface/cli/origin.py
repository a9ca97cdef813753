"""The options of all commands that write: which layers of provenance, who signs, what consent there is."""

from __future__ import annotations

import argparse
from typing import Any

from mattface.errors import UsageError
from mattface.provenance import LAYERS, Settings, Signing, consent_note


def add_options(parser: Any) -> None:
    """Adds the group."""
    group = parser.add_argument_group("provenance")
    group.add_argument("--provenance", metavar="all|none|LAYERS",
                       help=f"layers to lay, out of {','.join(LAYERS)} (default: all; the mark on float pixels only "
                            "when it is named)")  # fmt: skip
    group.add_argument("--no-mark", action="store_true", help="the same as --provenance none")
    group.add_argument("--sign", nargs=2, metavar=("CHAIN.pem", "KEY.pem"),
                       help="certificate chain and key of the C2PA manifest (default: this machine's own)")  # fmt: skip
    group.add_argument("--timestamp", metavar="URL", help="time stamp authority (RFC 3161) for the manifest")
    group.add_argument("--consent", metavar="TEXT|FILE",
                       help="note on consent in the manifest; of a file its name and hash")  # fmt: skip


def settings(args: argparse.Namespace) -> Settings:
    """The settings that the options ask for, checked before anything slow begins.

    Raises:
        UsageError: options that contradict each other, or an unknown layer.
        InputError: certificate, key or document will not do.
    """
    from mattface.provenance import signing

    if args.no_mark and args.provenance not in (None, "none"):
        raise UsageError("--no-mark leaves every layer out; expected no --provenance beside it.")
    wanted = Settings.of("none" if args.no_mark else args.provenance or True)
    chain, key = args.sign or (None, None)
    signer = Signing(chain, key, timestamp=args.timestamp)
    if args.sign and "c2pa" in wanted.layers:
        signing.check(signer)
    consent = consent_note(args.consent) if args.consent else None
    return Settings(wanted.layers, signer, consent, floats=wanted.floats)


def off(wanted: Settings) -> list[str]:
    """A sentence about layers that are switched off, if any are."""
    missing = [name for name in LAYERS if name not in wanted.layers]
    return [f"provenance: switched off: {', '.join(missing)}"] if missing else []
