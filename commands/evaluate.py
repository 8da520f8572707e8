"""``train-potential evaluate``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.process import keep_freed_memory
from tesseral.screen import print_written, progress_line
from tesseral.training.evaluate_config import EvaluateConfig

LARGE = 50.0  # meV/atom; and
MUCH = 5.0  # times the error with shifted energies: model and data have other zeros of energy


def parser() -> Parser:
    """Options of ``evaluate``."""
    made = Parser(usage="train-potential evaluate MODEL.safetensors SET [options]")
    add_fields(made, EvaluateConfig, positional={"model": None, "data": None})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Compare a model with a dataset; returns 0."""
    from tesseral.training.display import calibration_line, error_table, outside_line
    from tesseral.training.evaluate import evaluate_file

    config = build(EvaluateConfig, values)
    keep_freed_memory()
    with progress_line(console, "structures") as bar:
        errors = evaluate_file(config, bar)
    console.print(error_table(errors, f"{config.model} on {config.data}"))
    known = errors.get("uncertainty", {})
    for name, values in (("force", known), ("energy", known.get("energy", {}))):
        if values.get("coverage") is not None:
            console.print(calibration_line(values, name), highlight=False, soft_wrap=True)
    if known.get("closer"):
        console.print(f"note: {known['closer']}", highlight=False, soft_wrap=True)
    if config.outside is not None:
        line = outside_line(errors["uncertainty"])
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    _print_shifts(console, errors, config.shift_energies)
    print_written(console, config.json, config.plots)
    return 0


def _print_shifts(console: Console, errors: dict[str, Any], applied: bool) -> None:
    """Show the shifts of energies that were applied, or propose them if they explain the errors."""
    if "energy_shifts" not in errors:
        return
    if applied:
        shifts = ", ".join(f"{symbol} {x:+.4f}" for symbol, x in errors["energy_shifts"].items())
        text = f"subtracted from the energies of the model, in eV for each atom: {shifts}"
    else:
        before = errors["energy_per_atom"]["mae"]
        after = errors["shifted_energy_per_atom"]["mae"]
        if before < LARGE or before < MUCH * after:
            return
        text = (
            "the zeros of energy of model and data differ: with one constant per element the "
            f"MAE of energies would be {after:.4g} meV/atom; --shift-energies subtracts them"
        )
    console.print(text, highlight=False, soft_wrap=True, markup=False)
