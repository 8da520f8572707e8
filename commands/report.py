"""``train-potential report``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.process import keep_freed_memory
from tesseral.report.config import ReportConfig
from tesseral.screen import print_written, progress_line

EPILOG = """\
The folder receives report.html (opens in a browser without network access) and report.json. Each
claim is compared with a threshold: pass, warn, fail, or open if the data cannot decide. The exit
status is 1 if a claim fails and 0 otherwise. A full report of a small model takes a few minutes on
one core, --quick about one.
"""
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "open": "dim"}


def parser() -> Parser:
    """Options of ``report``."""
    made = Parser(
        usage="train-potential report MODEL [--data TEST.h5] -o FOLDER [options]",
        epilog=EPILOG,
    )
    add_fields(made, ReportConfig, positional={"model": None}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Check a model and show every verdict that is not a pass; returns 1 if a claim fails."""
    from rich.table import Table

    from tesseral.report.page.html import count, summary
    from tesseral.report.report import write_report

    keep_freed_memory()
    config = build(ReportConfig, values)
    with progress_line(console) as show:
        result = write_report(config, show)
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
    print_written(console, result.html, result.json)
    return int(result.failed)
