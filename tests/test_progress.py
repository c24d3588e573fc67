import io

import pytest

from mtorl import progress
from mtorl.progress import Progress


def test_plain_lines_where_the_output_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Progress("counting", 10, "sheep", start=2) as shown:
        shown.advance(3, "asleep soon")
        assert shown.rate > 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("counting: 5/10 sheep, ") and lines[0].endswith("s left, asleep soon")
    assert len(lines) == 2


def test_nothing_when_quiet(capsys: pytest.CaptureFixture) -> None:
    with Progress("counting", 10, "sheep", quiet=True) as shown:
        shown.advance(10)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    with Progress("counting", 10, "sheep") as shown:
        shown.advance(10, "all of them")
    assert all(words in terminal.getvalue() for words in ("counting", "100%", "sheep/s", "all of them"))
