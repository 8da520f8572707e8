"""``train-potential info``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser


def parser() -> Parser:
    """Options of ``info``."""
    made = Parser(usage="train-potential info MODEL.safetensors")
    made.add_argument("model", type=str, help="model file, or universal")
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Show the card of a model; returns 0."""
    from rich.table import Table

    from tesseral.deploy.modelfile import describe, read_card

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in describe(read_card(values["model"])):
        table.add_row(name, value)
    console.print(table)
    return 0
