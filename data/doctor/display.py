"""Display of check-ups in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tesseral.data.doctor.checkup import Checkup
from tesseral.data.doctor.findings import Finding, count, rows_text

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
LINES = 4  # in the short form


def checkup_table(checkup: Checkup) -> Group:
    """Table of the findings and measurements of one dataset."""
    part = "" if checkup.checked == checkup.structures else f" (a sample of {checkup.checked})"
    title = Text(f"{checkup.file}: {count(checkup.structures)}{part}", style="bold")
    table = Table(show_header=False, pad_edge=False, padding=(0, 1, 1, 0), box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in checkup.findings:
        text = Text(f"{finding.check}: {finding.found}")
        if finding.rows:
            text.append(f"\nstructures {rows_text(finding.rows)}", "dim")
        text.append(f"\n→ {finding.advice}")
        table.add_row(Text(finding.severity, STYLES[finding.severity]), text)
    if not checkup.findings:
        table.add_row(Text("fine", "green"), "nothing was found")
    lines = [Text(f"{name}: {value}", "dim") for name, value in checkup.measured.items()]
    return Group(title, table, *lines, Text(""))


def short_form(findings: Sequence[Finding], file: str) -> list[Text]:
    """The most important findings in a few lines."""
    lines = []
    for finding in findings[:LINES]:
        line = Text(f"data {finding.severity}: ", STYLES[finding.severity])
        line.append(finding.found, "not bold default")
        if finding.rows:
            line.append(f" ({rows_text(finding.rows)})", "not bold dim")
        lines.append(line)
    if findings:
        more = f"{len(findings) - LINES} more findings; " if len(findings) > LINES else ""
        lines.append(Text(f"{more}train-potential data check {file} shows what to do", "dim"))
    return lines
