"""The site: its pages hold together, show everything that is public, and what they tell people to type is run."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pages import DOCS, ROOT, blocks, commands, name_of, pages

from mtorl.arguments import Parser
from mtorl.commands.main import COMMANDS, main
from mtorl.families import FAMILIES, classes

EXTENDING = sorted((DOCS / "extend").glob("*.md"))
FACES = {"mtorl", "mtorl.datasets", "mtorl.envs", *(module for module, _, _ in FAMILIES.values())}
OF_RUNS = ["export", "--format"]
"""What looks into the folder of a run before it looks at options."""
needs_mkdocs = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")


def _hook(name: str) -> ModuleType:
    sys.path.insert(0, str(DOCS / "hooks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "hooks"))


def _navigation() -> list[str]:
    """All pages of the navigation, in its order."""

    def leaves(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:  # type: ignore[attr-defined]
                yield from leaves(inner)

    return [*leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]), *_hook("site_pages").guides(DOCS)]


def test_every_page_is_in_the_navigation() -> None:
    assert sorted(_navigation()) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"https?://|mailto:", target):
            assert (page.parent / target).exists(), target


def test_every_command_and_family_has_a_page() -> None:
    asked = {found for page in pages() for found in re.findall(r"^<!-- (\w+: [\w .]+) -->$", page.read_text(), re.M)}
    assert {f"family: {name}" for name in FAMILIES} <= asked
    assert {f"public: {face}" for face in FACES} <= asked
    simple = {name for name in COMMANDS if name not in ("import", "export")}
    assert {f"command: {name}" for name in simple} <= asked
    kinds = {"import": "importers", "export": "exporters"}
    assert {
        f"command: {name} {kind.__name__.lower()}" for name, family in kinds.items() for kind in classes(family)
    } <= asked


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_of_a_family_shows_all_of_it(family: str) -> None:
    text = _hook("family_pages").page(family)
    for kind in classes(family):
        section = text.split(f"## {kind.__name__} {{")[1].split("\n## ")[0]
        options = [it.name for it in _hook("family_pages").parameters(kind)]
        for option in options:
            row = re.search(rf"^\| `{option}` \|.*\| (.*) \|$", section, re.MULTILINE)
            assert row and row[1], f"{kind.__name__}.{option} is not explained"
        header = f"{kind.__doc__}\n\n{sys.modules[kind.__module__].__doc__}"
        assert len(section.splitlines()[2]) > 20
        assert ("Source:" not in str(kind.__doc__)) or "**Paper:**" in section
        assert not re.search(r"^ *Deviations?\b.*:", header, re.MULTILINE) or "**Deviations" in section


def test_docstrings_are_taken_apart() -> None:
    found = _hook("docstrings").parse(
        """A method.

        More of it,
        in two lines.

        Deviations from the paper:
        1. One
           goes on.
        2. Two.

        Source: Somebody, Something, 2020,
        equation 1.

        Args:
            rate: How fast,
                in steps.
            **options: Of others.

        Raises:
            InputError: Wrong.
        """
    )
    assert (found.summary, found.body) == ("A method.", ["More of it,\nin two lines."])
    assert found.paper == "Somebody, Something, 2020, equation 1."
    assert found.deviations == ["One goes on.", "Two."]
    assert found.arguments == {"rate": "How fast, in steps.", "options": "Of others."}


def _documented(face: str, name: str) -> bool:
    value = getattr(importlib.import_module(face), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return bool(value.__doc__)
    home = importlib.import_module(_hook("family_pages")._homes(face)[name])  # an alias: what stands below it
    return bool(re.search(rf'^{name}\b[^\n]*= .*\n"""', str(Path(str(home.__file__)).read_text()), re.MULTILINE))


@pytest.mark.parametrize("face", sorted(FACES))
def test_public_names_are_documented_and_shown(face: str) -> None:
    shown = _hook("family_pages").public(face)
    module = importlib.import_module(face)
    members = [kind for family in FAMILIES for kind in classes(family)]
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.ismodule(value):
            assert _documented(face, name), f"{face}.{name} has no docstring"
            assert value in members or f"## {name}\n" in shown, f"{face}.{name} is not shown"


class _UnderstoodError(Exception):
    """A command line was understood; nothing is done."""


def _typed(page: Path) -> list[list[str]]:
    """The arguments of `mtorl` in all command lines of a page."""
    launched = [words[words.index("mtorl") + 1 :] for words in commands(page, "torchrun")]
    return [*commands(page), *launched]


def _place(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a folder the current one, with the files that a page shows."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "configs").symlink_to(ROOT / "configs")
    for block in blocks(page):
        if block.title:
            monkeypatch.delitem(sys.modules, Path(block.title).stem, raising=False)
            (folder / block.title).write_text(block.code)


@pytest.mark.parametrize("page", [page for page in pages() if _typed(page)], ids=name_of)
def test_commands_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    parse, inside = Parser.parse_args, []

    def only_parse(parser: Parser, *arguments: Any, **options: Any) -> Any:
        inside.append(parser)
        found = parse(parser, *arguments, **options)
        inside.pop()
        if not inside:
            raise _UnderstoodError
        return found

    _place(page, tmp_path, monkeypatch)
    (tmp_path / "my_package.py").write_text("")
    monkeypatch.setattr(Parser, "parse_args", only_parse)
    for words in _typed(page):
        if "--config" in words and not Path(words[words.index("--config") + 1]).exists():  # of a run
            file = Path(words[words.index("--config") + 1])
            file.parent.mkdir(parents=True)
            file.write_text((ROOT / "configs/bc_mt10.yaml").read_text())
        if "--resume" in words or any(word.endswith("help") for word in words) or words[:1] + words[2:3] == OF_RUNS:
            assert words[0] in COMMANDS
            continue
        inside.clear()
        with contextlib.suppress(_UnderstoodError):
            code = main(words)
            assert code == 0, f"mtorl {' '.join(words)}: {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in EXTENDING if len(blocks(page)) > 1], ids=name_of)
def test_examples_of_extensions_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _place(page, tmp_path, monkeypatch)
    for block in blocks(page):
        for line in block.code.splitlines() if not block.language else ():
            program, *words = shlex.split(line, comments=True)
            if program == "make":
                continue
            if program == "python":
                runpy.run_path(words[0], run_name="__main__")
            else:
                quiet = ["--quiet", "true", "--workers", "0"] if words[0] in ("collect", "train", "evaluate") else []
                assert main([*words, *quiet]) == 0, capsys.readouterr().err


@needs_mkdocs
@pytest.mark.slow
def test_the_site_builds_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    text = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', text), (
        "loads something from elsewhere"
    )
    for family in FAMILIES:
        for kind in classes(family):
            assert f'id="{kind.__name__.lower()}"' in text


@pytest.mark.slow
@pytest.mark.training
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tour = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(tour, timeout=600, kernel_name="python3").execute()
    printed = "".join(output.text for cell in tour.cells for output in cell.get("outputs", []) if "text" in output)
    assert "mean of 6 tasks" in printed and "HardFirst" in printed and "report.html" in printed
