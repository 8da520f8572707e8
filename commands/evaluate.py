"""``train-potential evaluate``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.process import keep_freed_memory
from tesseral.screen import print_written, progress_line
from tesseral.training.evaluate import EvaluateConfig, evaluate_file


def parser() -> Parser:
    """Options of ``evaluate``."""
    made = Parser(usage="train-potential evaluate MODEL.safetensors SET.h5 [options]")
    add_fields(made, EvaluateConfig, positional={"model": None, "data": None})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Compare a model with a dataset; returns 0."""
    from tesseral.training.display import error_table

    config = build(EvaluateConfig, values)
    keep_freed_memory()
    with progress_line(console, "structures") as bar:
        errors = evaluate_file(config, bar)
    console.print(error_table(errors, f"{config.model} on {config.data}"))
    print_written(console, config.json, config.plots)
    return 0
