"""Progress bars and tables on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Protocol

from rich.console import Console
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


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table, names left-aligned and values right-aligned."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
