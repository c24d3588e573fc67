"""How tables look in the terminal."""

import shutil

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves the closed pipe of `mtorl info data | head` to the command; rich would exit with code 1."""
        raise BrokenPipeError


def table(title: str, first: str, *columns: str) -> Table:
    """An empty table.

    Args:
        title: Above it.
        first: Heading of the first column, of words.
        columns: Headings of the others, of numbers.
    """
    made = Table(title=title, title_justify="left", header_style="bold")
    made.add_column(first, no_wrap=True)
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def show(filled: Table, wrap: bool = False) -> None:
    """Prints a table, not narrower than it needs: a number that is cut off is worse than a long line.

    Args:
        filled: The table.
        wrap: Let its text take several lines.
    """
    wide = _Console(width=1000)
    needed = Measurement.get(wide, wide.options, filled).maximum
    _Console(width=max(shutil.get_terminal_size().columns, 110 if wrap else needed)).print(filled)
