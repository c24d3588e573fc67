"""What pages for people show: the README and the site."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A block of code on a page."""

    language: str
    title: str
    """Name of the file that it stands for; empty without one."""
    code: str


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    found = re.findall(r'^```(\w*)(?: title="([^"]+)")?[^\n]*\n(.*?)^```$', page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(*parts) for parts in found]


def commands(page: Path, program: str = "mtorl") -> list[list[str]]:
    """The command lines of a page that begin with a program's name, as words; the program is left out."""
    lines = [line for block in blocks(page) if block.language in ("", "sh", "bash") for line in _joined(block.code)]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]
    return [words[1 : words.index(">") if ">" in words else None] for words in found]


def _joined(code: str) -> list[str]:
    """The lines of a block; those that end with a backslash go on in the next."""
    return re.sub(r"\\\n\s*", "", code).splitlines()
