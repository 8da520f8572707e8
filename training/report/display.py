"""What the terminal shows of a report."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tesseral.training.report.html import count, summary
from tesseral.training.report.run import Report

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}


def show_result(result: Report, console: Console) -> None:
    """Every verdict that is not a pass, the counts, and where the page is."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for verdict in result.verdicts:
        if verdict.level != "pass":
            claim = f"{verdict.claim} {verdict.subject}".strip()
            style = STYLES[verdict.level]
            table.add_row(f"[{style}]{verdict.level}[/{style}]", claim, verdict.shown)
    if table.row_count:
        console.print(table)
    counts = count(result.verdicts)
    numbers = ", ".join(f"{number} {level}" for level, number in counts.items())
    console.print(f"{summary(counts)} ({numbers}, {result.seconds:.0f} s)", highlight=False)
    for path in (result.html, result.json):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
