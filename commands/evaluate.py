"""``train-potential evaluate``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.process import keep_freed_memory
from tesseral.training.evaluate import EvaluateConfig, evaluate_file


def parser() -> Parser:
    """Options of ``evaluate``."""
    made = Parser(usage="train-potential evaluate MODEL.safetensors SET.h5 [options]")
    add_fields(made, EvaluateConfig, positional={"model": None, "data": None})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Compare a model with a dataset; returns 0."""
    from rich.progress import Progress

    from tesseral.training.display import error_table

    config = build(EvaluateConfig, values)
    keep_freed_memory()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("structures")
        errors = evaluate_file(config, lambda done, n: bar.update(task, completed=done, total=n))
    console.print(error_table(errors, f"{config.model} on {config.data}"))
    for name in (config.json, config.plots):
        if name is not None:
            console.print(f"written: {name}", highlight=False, soft_wrap=True)
    return 0
