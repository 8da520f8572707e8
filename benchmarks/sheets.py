"""Tables of results for the terminal and for Markdown, and their files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Sheet:
    """A table of texts; the first column is the name of the row."""

    title: str
    columns: Sequence[str]
    legend: str = ""  # explanation of the columns
    rows: list[Sequence[str]] = field(default_factory=list)

    def table(self) -> Table:
        """Table for the terminal."""
        table = Table(title=self.title, caption=self.legend or None)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Table as Markdown."""
        lines = [
            f"**{self.title}**\n",
            "| " + " | ".join(self.columns) + " |",
            "|" + "|".join(" --: " if number else " :-- " for number in range(len(self.columns))),
        ]
        lines[-1] += "|"
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        lines += [f"\n{self.legend}"] if self.legend else []
        return "\n".join(lines)


def console() -> Console:
    """Console with the width of the terminal, or wide enough for the tables without one."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def report(
    sheets: Sequence[Sheet],
    facts: Mapping[str, str],
    command: Sequence[str],
    terminal: Console,
    markdown: Path | None,
) -> None:
    """Print the tables and the description of the machine; write them as Markdown on request."""
    if markdown is not None:
        parts = [f"```\n{shlex.join(command)}\n```"]
        parts += ["\n".join(f"- {name}: {text}" for name, text in facts.items())]
        parts += [sheet.markdown() for sheet in sheets]
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    for sheet in sheets:
        terminal.print(sheet.table())
    for name, text in facts.items():
        terminal.print(f"{name}: {text}", highlight=False, soft_wrap=True)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write the numbers behind the tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cell(value: float | None, digits: int = 3) -> str:
    """A number with the given significant digits, or a dash."""
    if value is None:
        return "–"
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
