"""Weight cards: what a weight is, where it comes from, what its file must hash to, and where it lies on this machine.

A card is data (cards/*.toml); this module reads cards and looks for files. Fetching is `mattface.weights.fetch`.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mattface.errors import UsageError, WeightsError
from mattface.weights.folders import home, pinned, search_path

CARDS = Path(__file__).parent / "cards"
BUNDLED = Path(__file__).parent
KINDS = {
    "https": ("url",),
    "huggingface": ("repository", "path"),
    "gdrive": ("file_id",),
    "pypi": ("package", "version", "archive_sha256"),
    "folder": ("path",),
}
"""Kinds of sources and the fields each must have."""
ADOPTED = "adopted.json"
"""File in the cache folder that says where adopted weights lie: {name: {"path", "sha256", "size"}}."""


@dataclass(frozen=True)
class Source:
    """One place a weight can come from.

    Attributes:
        kind: "https" (a file), "huggingface" (a file of a repository), "gdrive" (a file on Google Drive), "pypi" (a
            member of a package archive, or the whole archive) or "folder" (only looked at, never fetched).
        package, version: the archive on the user's package index.
        member: the file inside an archive. Any fetched kind may have one: what is fetched is then a zip or tar archive.
            Of a folder: the file's name there, where it is another than the card's.
        archive_sha256: hash of that archive; only "pypi" must state it.
        url: address of the file.
        repository, revision: "owner/name" and the branch, tag or commit.
        file_id: what Google Drive calls the file.
        path: the file in the repository; or a folder on this machine, where "~" and environment variables are expanded
            and "{bundled}" is the folder of the weights that come with this package.
    """

    kind: str
    package: str = ""
    version: str = ""
    archive_sha256: str = ""
    member: str = ""
    url: str = ""
    repository: str = ""
    revision: str = "main"
    file_id: str = ""
    path: str = ""

    def __str__(self) -> str:
        """One line for people."""
        member = f", member {self.member}" if self.member else ""
        return {
            "https": self.url,
            "huggingface": f"{self.repository} on Hugging Face ({self.revision}), {self.path}",
            "gdrive": f"Google Drive, file {self.file_id}",
            "pypi": f"{self.package}=={self.version} on the package index",
            "folder": self.path,
        }[self.kind] + member


@dataclass(frozen=True)
class Card:
    """Everything worth knowing about one weight file.

    Attributes:
        name: what commands and loaders call it.
        purpose: what it is for, in a few words.
        file: file name it is stored under.
        sha256: hash of the file in lower-case hex; empty when the file is supplied by the user and has no published
            hash that we could confirm, or is made anew by training.
        size: bytes, or 0 when unknown.
        licence: its licence, as its makers state it.
        commercial_use: whether that licence allows commercial use.
        origin: who made it and from what.
        how: what to type or do to get it, a full sentence.
        groups: names that stand for several weights ("embedded").
        aliases: other file names it is accepted under.
        sources: in the order they are tried.
        layout: how the file names its tensors (`mattface.weights.layouts.known`), or what kind of graph or arrays it
            is; empty for files that only their hash tells.
        needs: other weights that are of use only together with this one.
        members: of an archive that is kept whole, path inside -> SHA-256 of what is read from there.
        conventions: input size, colour order, range, crop template and the like.
    """

    name: str
    purpose: str
    file: str
    licence: str
    commercial_use: bool
    origin: str
    how: str
    sha256: str = ""
    size: int = 0
    groups: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    layout: str = ""
    needs: tuple[str, ...] = ()
    members: dict[str, str] = field(default_factory=dict)
    conventions: dict[str, Any] = field(default_factory=dict)


def _card(path: Path) -> Card:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    for source in data.get("sources", []):
        kind = source.get("kind")
        missing = [key for key in KINDS.get(kind, ()) if not source.get(key)]
        if kind not in KINDS or missing:
            raise WeightsError(
                f"card {path.name}: a source needs kind {' | '.join(KINDS)} and its fields; "
                f"got kind {kind!r}, missing {missing}. Correct the card."
            )
    lists = {key: tuple(data.pop(key, ())) for key in ("groups", "aliases", "needs")}
    card = Card(**{**data, **lists, "sources": tuple(Source(**s) for s in data.get("sources", ()))})
    if card.file in ("", "..") or Path(card.file).name != card.file:
        raise WeightsError(f"card {path.name}: expected a file name without folders; got {card.file!r}. Correct it.")
    if card.name != path.stem:
        raise WeightsError(f"card {path.name}: expected name {path.stem!r}; got {card.name!r}. Rename one of them.")
    return card


@functools.cache
def cards() -> dict[str, Card]:
    """All cards by name, in alphabetical order."""
    return {path.stem: _card(path) for path in sorted(CARDS.glob("*.toml"))}


def card(name: str) -> Card:
    """The card called `name`.

    Raises:
        UsageError: there is no such card.
    """
    if name not in cards():
        near = difflib.get_close_matches(name, cards(), cutoff=0.4)
        hint = f"Near: {', '.join(near)}. " if near else ""
        raise UsageError(f"expected a weight name; got {name!r}. {hint}All names: mattface weights list")
    return cards()[name]


def expand(names: list[str] | tuple[str, ...]) -> list[str]:
    """Weight names with group names ("embedded", "all") replaced by their members; each name once, order kept."""
    out: dict[str, None] = {}
    for name in names:
        members = [n for n, c in cards().items() if name in c.groups or name == "all"]
        for member in members or [card(name).name]:
            out[member] = None
    return list(out)


def adopted() -> dict[str, dict[str, Any]]:
    """Weights that were adopted where they lie: name -> {"path", "sha256", "size"}; a damaged record holds none."""
    try:
        found = json.loads((home() / ADOPTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and isinstance(entry.get("path"), str)}


def candidate_paths(name: str) -> list[Path]:
    """Every path `find` looks at for this weight, in order; what was adopted comes first."""
    item = card(name)
    names = (item.file, *item.aliases)
    out = [Path(entry["path"]) for known, entry in adopted().items() if known == name]
    out += [folder / n for folder in search_path() for n in names]
    for source in item.sources:
        if source.kind == "folder":
            folder = Path(os.path.expandvars(source.path.replace("{bundled}", str(BUNDLED)))).expanduser()
            out += [folder / n for n in ((source.member,) if source.member else names)]
    return out


def find(name: str) -> Path:
    """Path of a weight on this machine. Looks, never fetches; checks the size, not the hash (see `verify`).

    Raises:
        UsageError: unknown name.
        WeightsError: the file is not here, or has another size than its card says.
    """
    item = card(name)
    for path in candidate_paths(name):
        if not path.is_file():
            continue
        size, wanted = path.stat().st_size, _adoption(name, path).get("size") or item.size
        if wanted and size != wanted:
            raise WeightsError(
                f"weights {name!r}: expected {wanted} bytes in {path}; got {size}. "
                f"Remove that file, then get it again: {item.how}"
            )
        return path
    raise WeightsError(f"weights {name!r} ({item.purpose}): expected {home() / item.file}; no such file. {item.how}")


def _adoption(name: str, path: Path) -> dict[str, Any]:
    """The adoption of a weight if it lies at `path`, else an empty one."""
    entry = adopted().get(name, {})
    return entry if entry.get("path") == str(path) else {}


def fetchable(name: str) -> bool:
    """Whether a weight has a source that `pull` can fetch from; others are supplied by the user."""
    return any(source.kind != "folder" for source in card(name).sources)


def present(name: str) -> bool:
    """Whether a file for this weight lies on this machine (whatever its state)."""
    return any(path.is_file() for path in candidate_paths(name))


def status(name: str) -> dict[str, Any]:
    """What `doctor` and `weights list` say: {"name", "purpose", "present", "path", "bytes", "licence",
    "commercial_use", "groups", "card_bytes" (the published size, None when unknown), "adopted", "note"}.

    "note" is empty for a usable file, otherwise what is wrong and what to do.
    """
    item = card(name)
    out: dict[str, Any] = {"name": name, "purpose": item.purpose, "present": present(name), "path": None, "bytes": None}
    out |= {"licence": item.licence, "commercial_use": item.commercial_use, "groups": list(item.groups), "note": ""}
    out |= {"card_bytes": item.size or None, "adopted": False}
    try:
        path = find(name)
        out |= {"path": str(path), "bytes": path.stat().st_size, "adopted": bool(_adoption(name, path))}
    except WeightsError as error:
        out["note"] = str(error)
    return out


def expected_hash(name: str, path: Path) -> str:
    """SHA-256 that a weight's file at `path` must have: what was adopted, what the card states, or what was pinned at
    the first download; empty when none is known."""
    return _adoption(name, path).get("sha256", "") or card(name).sha256 or pinned(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(names: list[str] | tuple[str, ...] = ()) -> dict[str, str]:
    """Hashes weights again.

    Args:
        names: weights or groups; empty for every weight that is on this machine.

    Returns:
        name -> "ok" for the published file; otherwise "as adopted: ", "as pinned: " (at the first download) or
        "no hash on the card: ", and the file's own hash.

    Raises:
        WeightsError: a named weight is missing, or any hash differs.
    """
    chosen = expand(names) if names else [name for name in cards() if present(name)]
    out = {}
    for name in chosen:
        item, path = card(name), find(name)
        got, wanted = sha256_of(path), expected_hash(name, path)
        if got != (wanted or got):
            raise WeightsError(
                f"weights {name!r}: expected SHA-256 {wanted} for {path}; got {got}. "
                f"Remove that file, then get it again: {item.how}"
            )
        kind = "as adopted" if _adoption(name, path) else "as pinned" if wanted else "no hash on the card"
        out[name] = "ok" if got == item.sha256 else f"{kind}: {got}"
    return out
