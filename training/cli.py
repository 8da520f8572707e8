"""The command `train-potential`; what it can do stands in ``options.COMMANDS``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console

from tesseral.training.options import (
    COMMANDS,
    Parser,
    parse,
)

__all__ = ["COMMANDS", "Parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        0; 1 where training diverged, a claim of a report fails, LAMMPS differs from Python, a
        dataset has errors or a structure could not be relaxed or run; 2 where something given is
        wrong; 3 where another process of the training was lost; 128 + n where training was stopped
        by signal n (130 for Ctrl-C, 138 for USR1, 143 for TERM).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        arguments = ["--help"]
    _let_waiting_threads_sleep()
    options = parse(arguments)
    command = options["command"]
    values = options[command]
    console = Console()
    try:
        if command == "fit":
            return _fit(values, console)
        if command == "evaluate":
            _evaluate(values, console)
        elif command == "report":
            return _report(values, console)
        elif command == "info":
            _info(values, console)
        elif command == "symmetry":
            _symmetry(values, console)
        elif command == "export":
            _export(values, console)
        elif command in ("relax", "md"):
            return _structures(command, values, console)
        elif command == "convert":
            _convert(values, console)
        elif command == "lammps":
            from tesseral.deploy.lammps.command import lammps_command

            return lammps_command(values["command"], values[values["command"]], console)
        else:
            return _data(values["command"], values[values["command"]], console)
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt as stop:
        return _complain(str(stop), 130) if str(stop) else 130
    return 0


def _let_waiting_threads_sleep() -> None:
    """Keep threads that wait for each other from spinning long; must precede the import of torch.

    Where other programs use the cores too, a spinning thread holds up the very one that it waits
    for: training on two threads beside two busy processes came to a standstill, 2 steps in 25 s.
    With this many spins (microseconds) it goes at half speed, and on an idle machine at 0.92 of
    the speed of long spins; threads that do not spin at all lose a third there.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


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


def _complain(message: str, status: int = 2) -> int:
    """One sentence on the error stream."""
    sys.stderr.write(f"train-potential: {message}\n")
    return status


def _fit(values: dict[str, Any], console: Console) -> int:
    from tesseral.deploy.process import keep_freed_memory
    from tesseral.training.config import FitConfig
    from tesseral.training.fit import fit
    from tesseral.training.module import DivergenceError
    from tesseral.training.processes import LOST, LostProcessError, own_rank

    config = build(FitConfig, values)
    keep_freed_memory()
    try:
        result = fit(config, console)
        status = 0 if result.signal is None else 128 + result.signal
    except LostProcessError as error:
        return LOST if error.told else _complain(str(error), LOST)
    except (ValueError, OSError) as error:
        return _complain(f"process {own_rank()}: {error}" if own_rank() else str(error))
    except DivergenceError as error:
        status = 1
        if own_rank() == 0:
            _complain(str(error))
    # All processes end this way together. Only the first may end with a status, since it may still
    # be writing, and launchers kill all processes when any ends with one.
    return status if own_rank() == 0 else 0


def _evaluate(values: dict[str, Any], console: Console) -> None:
    from rich.progress import Progress

    from tesseral.deploy.process import keep_freed_memory
    from tesseral.training.display import error_table
    from tesseral.training.evaluate import EvaluateConfig, evaluate

    config = build(EvaluateConfig, values)
    keep_freed_memory()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("structures")
        errors = evaluate(config, lambda done, n: bar.update(task, completed=done, total=n))
    console.print(error_table(errors, f"{config.model} on {config.data}"))
    for name in (config.json, config.plots):
        if name is not None:
            console.print(f"written: {name}", highlight=False, soft_wrap=True)


def _report(values: dict[str, Any], console: Console) -> int:
    from tesseral.deploy.process import keep_freed_memory
    from tesseral.training.report.config import ReportConfig
    from tesseral.training.report.display import show_result
    from tesseral.training.report.run import report

    keep_freed_memory()
    result = report(build(ReportConfig, values), console)
    show_result(result, console)
    return int(result.failed)


def _info(values: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    from tesseral.deploy.modelfile import describe, read_card

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in describe(read_card(values["model"])):
        table.add_row(name, value)
    console.print(table)


def _symmetry(values: dict[str, Any], console: Console) -> None:
    from tesseral.training.symmetry import (
        SymmetryConfig,
        symmetry,
        symmetry_sentence,
        symmetry_table,
    )

    config = build(SymmetryConfig, values)
    result = symmetry(config)
    if result["components"]:
        console.print(symmetry_table(result, f"broken components of {config.model}"))
    console.print(symmetry_sentence(result), highlight=False, soft_wrap=True)
    for name in (config.json, config.plot):
        if name is not None:
            console.print(f"written: {name}", highlight=False, soft_wrap=True)


def _export(values: dict[str, Any], console: Console) -> None:
    from tesseral.deploy.aoti import export_compiled
    from tesseral.deploy.export import export_model

    export = export_compiled if values["format"] == "aoti" else export_model
    export(values["model"], values["output"], dtype=values["dtype"])
    console.print(f"written: {values['output']}", highlight=False, soft_wrap=True)


def _structures(command: str, values: dict[str, Any], console: Console) -> int:
    from tesseral.calculators.simulations.command import md_command, relax_command
    from tesseral.calculators.simulations.dynamics import MdConfig
    from tesseral.calculators.simulations.relaxation import RelaxConfig
    from tesseral.deploy.process import keep_freed_memory

    keep_freed_memory()
    if command == "relax":
        return relax_command(build(RelaxConfig, values), console)
    return md_command(build(MdConfig, values), console)


def _convert(values: dict[str, Any], console: Console) -> None:
    from rich.progress import Progress

    from tesseral.deploy.sevennet.command import convert_command
    from tesseral.deploy.universal import universal_path

    output = Path(values["output"]) if values["output"] else universal_path()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("comparing with the original")
        deviation = convert_command(
            values["source"],
            output,
            intervals=values["intervals"],
            modality=values["modality"],
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"on crystals of all its elements it differs from the original by at most "
        f"{deviation.energy:.3f} meV/atom, {deviation.forces:.2f} meV/Å, {deviation.stress:.4f} GPa"
    )
    console.print(f"written: {output}", highlight=False, soft_wrap=True)


def _data(command: str, values: dict[str, Any], console: Console) -> int:
    if command == "import":
        from tesseral.data.importer import ImportConfig, import_command

        import_command(build(ImportConfig, values))
        return 0
    if command == "check":
        return _check(values, console)
    _join_or_verify(command, values, console)
    return 0


def _check(values: dict[str, Any], console: Console) -> int:
    from tesseral.data.doctor.command import CheckConfig, check_command

    config = build(CheckConfig, values)
    checkups = check_command(config, console)
    if config.json is not None:
        console.print(f"written: {config.json}", highlight=False, soft_wrap=True)
    safe = all(checkup.safe for checkup in checkups)
    console.print("safe to train on" if safe else "not safe to train on: there are errors")
    return int(not safe)


def _join_or_verify(command: str, values: dict[str, Any], console: Console) -> None:
    from rich.progress import Progress

    from tesseral.data.merge import merge_stores
    from tesseral.data.store import open_store
    from tesseral.data.verify import verify_store

    sources = values["sources"]
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("structures")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if command == "verify":
            for source in sources:
                store = open_store(source)
                verify_store(store, show)
                console.print(f"{source}: {len(store)} structures are what was written")
            return
        output, append = values["output"], command == "append"
        files = [output, *sources] if append else sources
        merge_stores(files, output, overwrite=append or values["overwrite"], progress=show)
    store = open_store(output)
    console.print(f"written: {output} ({len(store)} structures, hash {store.content_hash[:16]})")


if __name__ == "__main__":
    sys.exit(main())
