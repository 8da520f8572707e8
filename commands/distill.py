"""``train-potential distill``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build, complain, resumable
from tesseral.learning.distill_config import DistillConfig
from tesseral.process import keep_freed_memory
from tesseral.screen import print_table, print_written

if TYPE_CHECKING:
    from tesseral.learning.distill import Distilled


def parser() -> Parser:
    """Options of ``distill``."""
    made = Parser(usage="train-potential distill STRUCTURE… [options]")
    add_fields(made, DistillConfig, positional={"structures": "+"}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Distill a potential; returns the exit status."""
    from tesseral.commands.runs import ready_on_screen
    from tesseral.learning.distill import distill
    from tesseral.training.module import DivergenceError

    config = build(DistillConfig, values)
    keep_freed_memory()
    for teacher in config.teachers:
        ready_on_screen(teacher, config.structures, console)
    try:
        with resumable():
            done = distill(config, console)
    except DivergenceError as error:
        return complain(str(error), 1)
    if done.signal is not None:
        console.print("stopped before the end; the same command resumes")
        return 128 + done.signal
    show(done, console)
    return 0


def show(done: Distilled, console: Console) -> None:
    """Show the model beside its teacher, and what can be done with it."""
    result = done.result
    assert result is not None
    errors = result["errors"]
    lines = [
        ("test: energy MAE, meV/atom", "", f"{errors['energy_per_atom']['mae']:.2f}", ""),
        ("test: forces MAE, meV/Å", "", f"{errors['forces']['mae']:.1f}", ""),
    ]
    for row in result["properties"]:
        lines.append(
            (
                f"{row['structure']} {row['quantity']}, {row['unit']}",
                f"{row['teacher']:.4g}",
                "–" if math.isnan(row["model"]) else f"{row['model']:.4g}",
                "not stable" if math.isnan(row["model"]) else f"{row['difference']:+.2f}%",
            )
        )
    times = result["microseconds"]
    faster = f"{times['teacher'] / times['model']:.1f} × faster"
    both = f"{times['teacher']:.0f}", f"{times['model']:.1f}"
    lines.append(("energies and forces, µs/atom", *both, faster))
    print_table(console, ("", "teacher", "model", "difference"), lines)
    print_written(console, done.model, done.export, done.test)
    console.print(
        f"next: train-potential report {done.model} --data {done.test} -o report; the export "
        f"{done.export} is for LAMMPS",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
