"""The command `train-potential`: fit, evaluate, info, export, data import."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from rich.console import Console

from tesseral.training.options import (
    COMMANDS,
    Parser,
    make_parser,
)

__all__ = ["COMMANDS", "Parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        0; 1 where training diverged; 2 where something given is wrong; 130 or 143 where training
        was stopped by a signal.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        arguments = ["--help"]
    _let_idle_threads_sleep()
    parser = make_parser(arguments)
    options = parser.parse_args(arguments).as_dict()
    command = options["command"]
    values = options[command]
    console = Console()
    try:
        if command == "fit":
            return _fit(values, console)
        if command == "evaluate":
            _evaluate(values, console)
        elif command == "info":
            _info(values, console)
        elif command == "export":
            _export(values, console)
        else:
            _import(values[values["command"]])
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _let_idle_threads_sleep() -> None:
    """Keep threads that wait for each other from spinning; must precede the import of torch.

    Where other programs use the cores too, a spinning thread holds up the very one that it waits
    for: training on two threads beside two busy processes came to a standstill (2 steps in 25 s;
    215 with sleeping threads). On an idle machine it makes no difference that can be measured.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def build(kind: type[Any], values: dict[str, Any]) -> Any:
    """A dataclass, with its inner dataclasses, from nested plain values."""
    hints = get_type_hints(kind)
    parts = {}
    for item in fields(kind):
        value = values[item.name]
        inner = hints[item.name]
        nested = isinstance(inner, type) and is_dataclass(inner)
        parts[item.name] = build(inner, value) if nested else value
    return kind(**parts)


def _complain(message: str) -> int:
    """One sentence on the error stream."""
    sys.stderr.write(f"train-potential: {message}\n")
    return 2


def _fit(values: dict[str, Any], console: Console) -> int:
    from tesseral.training.config import FitConfig
    from tesseral.training.fit import fit
    from tesseral.training.module import DivergenceError
    from tesseral.training.system import keep_freed_memory

    config = build(FitConfig, values)
    keep_freed_memory()
    try:
        result = fit(config, console)
    except DivergenceError as error:
        _complain(str(error))
        return 1
    # Rank 0 alone tells: Lightning kills the whole group if another rank fails.
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    return 0 if result.signal is None or not first else 128 + result.signal


def _evaluate(values: dict[str, Any], console: Console) -> None:
    from rich.progress import Progress

    from tesseral.training.evaluate import EvaluateConfig, evaluate
    from tesseral.training.report import error_table
    from tesseral.training.system import keep_freed_memory

    config = build(EvaluateConfig, values)
    keep_freed_memory()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("structures")
        errors = evaluate(config, lambda done, n: bar.update(task, completed=done, total=n))
    console.print(error_table(errors, f"{config.model} on {config.data}"))
    for name in (config.json, config.plots):
        if name is not None:
            console.print(f"written: {name}", highlight=False, soft_wrap=True)


def _info(values: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    from tesseral.deploy.modelfile import describe, read_card

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in describe(read_card(values["model"])):
        table.add_row(name, value)
    console.print(table)


def _export(values: dict[str, Any], console: Console) -> None:
    from tesseral.deploy.export import export_model

    export_model(values["model"], values["output"], dtype=values["dtype"])
    console.print(f"written: {values['output']}", highlight=False, soft_wrap=True)


def _import(values: dict[str, Any]) -> None:
    from tesseral.data.importer import ImportConfig, import_command

    import_command(build(ImportConfig, values))


if __name__ == "__main__":
    sys.exit(main())
