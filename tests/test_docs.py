"""README and docs/: links lead somewhere, commands parse, Python runs, and tables agree with the code."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, folders

from mattface import errors, weights
from mattface.cli import parser
from mattface.methods import METHODS

README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
SHELL, PYTHON, OTHER = "sh", "python", ("bibtex",)
CODE = (*folders().values(), "setup.py", "tests/conftest.py")
HANDED_OVER = {"train": "mattface.training.launch", "quality": "mattface.benchmarks.quality",
               "triplets": "mattface.benchmarks.cases", "provenance": "mattface.benchmarks.provenance"}  # fmt: skip
"""Command -> module whose `add_arguments` reads the rest of its line."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the file.
        line: number of its first line.
        language: after the fence.
        text: what is inside.
        needs: packages and weights named by a comment `<!-- needs: ... -->` before it.
    """

    page: Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"((?:^<!--[^\n]*-->\n)*)^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        needs = re.findall(r"<!-- needs: (.*?) -->", found[1])
        line = text.count("\n", 0, found.start(3)) + 1
        yield Block(page, line, found[2], found[3], tuple(" ".join(needs).split()))


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands() -> Iterator[Any]:
    for block in BLOCKS:
        if block.language == SHELL:
            for text in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(text, comments=True)
                if words:
                    yield pytest.param(words, id=f"{block.page.name}: {shlex.join(words)}")


def table(page: Path, name: str) -> dict[str, list[str]]:
    """First column, in backquotes, -> the other columns, of all rows below a header that begins with `name`."""
    section = page.read_text(encoding="utf-8").split(f"\n| {name} |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in section.splitlines()[2:]]
    return {key.strip("`"): rest for first, *rest in rows for key in re.findall(r"`[^`]+`", first) or [first]}


def complete(words: list[str]) -> None:
    """Parses a `mattface` command as the command line does."""
    args = parser().parse_args(words)
    rest = getattr(args, "arguments", None)
    if rest is None or words[1] == "list":
        return
    inner = argparse.ArgumentParser()
    module = importlib.import_module(HANDED_OVER[words[0] if words[0] == "train" else words[1]])
    module.add_arguments(inner)
    inner.parse_args(words[1:] if words[0] == "train" else rest)


def check_module(words: list[str]) -> None:
    """`python -m MODULE ...`: the module is there and names every option."""
    module, *rest = words
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None and spec.origin, f"no module {module}"
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert [word for word in rest if word.startswith("--") and f'"{word}"' not in source] == []


def check_pip(words: list[str]) -> None:
    extras = re.findall(r"\[(.*?)\]", words[-1])
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[0] == "install" and set(",".join(extras).split(",")) - {""} <= set(known)


def check_make(words: list[str]) -> None:
    for target in words:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"


@pytest.mark.parametrize("words", list(commands()))
def test_shell_lines_parse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    program, *rest = words
    try:
        if program == "mattface":
            complete(rest)
        elif program == "torchrun":
            complete(["train", *rest[rest.index("mattface.training") + 1 :]])
        elif program == "python":
            assert rest[0] == "-m"
            check_module(rest[1:])
        elif program == "export":
            assert rest[0].split("=")[0] in table(DOCS / "deployment.md", "variable")
        else:
            {"pip": check_pip, "make": check_make}[program](rest)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def options(top: argparse.ArgumentParser) -> Iterator[str]:
    for action in top._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)


def test_options_that_are_mentioned_exist() -> None:
    top = parser()
    for module in HANDED_OVER.values():
        inner = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        importlib.import_module(module).add_arguments(inner)
        top._actions += [action for action in inner._actions if action.option_strings]
    mentioned = {
        option
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
    }
    assert sorted(mentioned - set(options(top))) == []


def test_subcommands_that_are_mentioned_exist() -> None:
    known = next(a.choices for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    mentioned = {word for page in PAGES for word in re.findall(r"`mattface ([a-z]+)", page.read_text(encoding="utf-8"))}
    assert mentioned and mentioned <= set(known)


def test_blocks_are_of_a_kind_that_is_checked() -> None:
    assert [f"{b} {b.language}" for b in BLOCKS if b.language not in (SHELL, PYTHON, *OTHER)] == []


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of; the people in them are drawn by the bundled generator."""
    from PIL import Image

    import mattface

    folder = tmp_path_factory.mktemp("pictures")
    drawn = mattface.sample(7, 2, "mattface-demo", device="cpu")
    people = [Image.fromarray(pixels).resize((384, 384)) for pixels in drawn]
    for name, person in {"alice.jpg": 0, "alice2.jpg": 0, "portrait.jpg": 1}.items():
        people[person].save(folder / name, quality=95)
    if importlib.util.find_spec("av"):
        draw_clip(folder / "clip.mp4", people[1])
    return folder


def draw_clip(path: Path, image: Any) -> None:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *image.size, "yuv420p"
        for frame in [av.VideoFrame.from_image(image)] * 2:
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def stories() -> Iterator[Any]:
    """Every page's blocks without needs, and for every block with needs, those before it and itself."""
    for page in PAGES:
        python = [block for block in BLOCKS if block.page == page and block.language == PYTHON]
        plain = [block for block in python if not block.needs]
        if plain:
            yield pytest.param(plain, id=str(page.relative_to(ROOT)))
        for block in python:
            if block.needs:
                yield pytest.param([b for b in plain if b.line < block.line] + [block], id=str(block))


@pytest.mark.parametrize("story", list(stories()))
def test_python_blocks_run(
    story: list[Block], drawn_folder: Path, need: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in {name for block in story for name in block.needs}:
        if name in weights.cards():
            need(name)
        else:
            pytest.importorskip(name)
    if any("mattface.load(" in block.text for block in story):
        need("centerface", "face-mesh")
    for file in drawn_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in story:
        exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), names)


def links() -> Iterator[tuple[Path, str]]:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            yield page, target


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings as Python-Markdown and GitHub write them, and its API entries."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [unicodedata.normalize("NFKD", t).encode("ascii", "ignore").decode() for t in titles]
    slugs = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain}
    return slugs | set(entries(page))


def test_links_resolve() -> None:
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        inside = page == README or ROOT / "docs" not in page.parents or DOCS in file.parents
        if target.startswith(("http://", "https://")):
            continue
        if not file.is_file() or not inside or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def entries(page: Path) -> list[str]:
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", [name for page in PAGES for name in entries(page)])
def test_reference_names_what_is_there(name: str) -> None:
    module, _, last = name.rpartition(".")
    if importlib.util.find_spec(module) and hasattr(importlib.import_module(module), last):
        assert inspect.getdoc(getattr(importlib.import_module(module), last))
    else:
        assert importlib.util.find_spec(name), f"no module {name}"


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_every_environment_variable_stands_in_the_table() -> None:
    files = [f for part in CODE for f in ([ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py"))]
    read = {name for file in files for name in re.findall(r"""["'](MATTFACE_[A-Z_]+)["']""", file.read_text("utf-8"))}
    assert read == set(re.findall(r"^\| `(MATTFACE_\w+)`", (DOCS / "deployment.md").read_text("utf-8"), re.MULTILINE))


def test_exit_codes_are_those_of_the_errors() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.MattfaceError)]
    stated = {int(code) for code in table(DOCS / "deployment.md", "code")}
    assert stated == {0, 143} | {kind.exit_code for kind in kinds}


def test_licences_are_those_of_the_cards() -> None:
    stated = {name: (licence, use) for name, (_, licence, use) in table(DOCS / "safety.md", "weight").items()}
    cards = {c.name: (c.licence, "yes" if c.commercial_use else "no") for c in weights.cards().values()}
    assert stated == cards


@pytest.mark.parametrize(("page", "header"), [(README, "method"), (DOCS / "methods.md", "name")])
def test_method_tables_name_every_method(page: Path, header: str) -> None:
    assert set(table(page, header)) == set(METHODS)


def test_shared_entries_of_docstrings_are_split() -> None:
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("split_names", DOCS / "split_names.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Draws.\n\nArgs:\n    a, b: both,\n        at once.\n    c: one."
    assert module.split(text) == (
        "Draws.\n\nArgs:\n    a: both,\n        at once.\n    b: both,\n        at once.\n    c: one."
    )
