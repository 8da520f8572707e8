"""``train-potential info``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser
from tesseral.screen import print_facts


def parser() -> Parser:
    """Options of ``info``."""
    made = Parser(usage="train-potential info MODEL.safetensors")
    made.add_argument("model", type=str, help="model file, or universal")
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Show the card of a model; returns 0."""
    from tesseral.deploy.modelfile import describe, read_card

    print_facts(console, describe(read_card(values["model"])))
    return 0
