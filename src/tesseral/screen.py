"""Progress bars and tables on the screen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from textwrap import wrap
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

FACTS = 26  # characters of the names of facts
GAP = 2  # spaces between columns
LEAST = 12  # characters of names


class Show(Protocol):
    """Function that shows the progress of a task."""

    def __call__(self, done: float, total: float, description: str = "") -> None:
        """Show the amount done and the total; an empty description keeps the last one."""


def progress_bar(console: Console | None) -> Progress:
    """Progress bars for several tasks, with the time left; without a console nothing is shown."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )


@contextmanager
def progress_line(console: Console | None, description: str = "") -> Iterator[Show]:
    """Progress bar that disappears at the end; shown in terminals only.

    Args:
        console: console to draw on; nothing is shown without one.
        description: description of the task.

    Yields:
        The function that updates the bar.
    """
    columns = (
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    hidden = console is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(description, total=None)

        def show(done: float, total: float, description: str = "") -> None:
            progress.update(task, completed=done, total=total, description=description or None)

        yield show


def print_written(console: Console, *paths: str | PathLike[str] | None) -> None:
    """Print the names of the files that were written, one per line."""
    for path in paths:
        if path is not None:
            console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


class Columns:
    """Table with a column of names and columns of values that are never cut.

    If it is wider than the terminal, it is continued below with the remaining columns, each part
    with the names.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        title: str = "",
        sections: Collection[int] = (),
    ) -> None:
        """Keep the content.

        Args:
            columns: heads; lines are separated by newlines.
            rows: text of each cell, in the order of the columns.
            title: line above the table.
            sections: numbers of rows that are preceded by a blank line.
        """
        self.columns, self.rows, self.title = columns, rows, title
        self.sections = frozenset(sections)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts of the table for the width of the terminal."""
        widths = [
            max(cell_len(line) for text in texts for line in text.split("\n"))
            for texts in zip(self.columns, *self.rows, strict=True)
        ]
        names = min(widths[0], max(LEAST, options.max_width - GAP - max(widths[1:], default=0)))
        widths[0] = names = min(names, max(LEAST, options.max_width // 3))
        parts: list[list[int]] = [[]]
        for number, width in enumerate(widths[1:], 1):
            used = names + sum(GAP + widths[column] for column in parts[-1])
            if parts[-1] and used + GAP + width > options.max_width:
                parts.append([])
            parts[-1].append(number)
        if self.title:
            yield Text(self.title)
        for part in parts:
            yield self._part(part, names)

    def _part(self, chosen: Sequence[int], names: int) -> Table:
        """The names and some columns."""
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        table.add_column(Text(self.columns[0]), max_width=names, overflow="fold")
        for number in chosen:
            table.add_column(Text(self.columns[number]), justify="right", no_wrap=True)
        for index, row in enumerate(self.rows):
            if index in self.sections:
                table.add_row()
            table.add_row(Text(row[0]), *(Text(row[number]) for number in chosen))
        return table


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print names with values that may be long; lines are broken between words only."""
    for name, value in facts:
        room = console.width - FACTS
        below = cell_len(name) > FACTS - GAP or max(map(cell_len, value.split()), default=0) > room
        indent = 2 * GAP if below else FACTS
        lines = wrap(value, max(LEAST, console.width - indent), break_long_words=False) or [""]
        head = f"{name}\n{'':{indent}}" if below else f"{name:{FACTS}}"
        text = Text.assemble((head, "bold"), f"\n{'':{indent}}".join(lines))
        console.print(text, soft_wrap=True)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table, names left-aligned and values right-aligned."""
    console.print(Columns(columns, rows))
