"""Section: contents of the model card."""

from __future__ import annotations

from dataclasses import asdict

from tesseral.deploy.modelfile import describe
from tesseral.report.content import Section, Table
from tesseral.report.context import Context


def card(context: Context) -> Section:
    """The card as two tables: the main entries, and the others collapsed."""
    rows = describe(context.card)
    rest = [row for row in rows if row[0].startswith(("training: settings", "errors: "))]
    first = [row for row in rows if row not in rest]
    tables = [Table(("", "model card"), tuple(first), words=True)]
    if rest:
        tables.append(
            Table(
                ("", ""),
                tuple(rest),
                "Training settings and errors",
                folded=True,
                words=True,
            )
        )
    return Section(
        lead="Description of the model in its file: architecture, data, reference energies.",
        blocks=tuple(tables),
        numbers=asdict(context.card),
    )
