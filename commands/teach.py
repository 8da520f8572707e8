"""``train-potential teach``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build, complain, resumable
from tesseral.learning.teach_config import TeachConfig
from tesseral.process import keep_freed_memory
from tesseral.screen import print_table, print_written

if TYPE_CHECKING:
    from tesseral.learning.teach import Taught


def parser() -> Parser:
    """Options of ``teach``."""
    made = Parser(usage="train-potential teach SET.h5 [--teacher MODEL] [--time 1h] [options]")
    add_fields(made, TeachConfig, positional={"train": None}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Train a potential on labels and on a teacher; returns the exit status."""
    from tesseral.commands.runs import ready_on_screen
    from tesseral.learning.teach import teach
    from tesseral.training.module import DivergenceError

    config = build(TeachConfig, values)
    keep_freed_memory()
    ready_on_screen(config.teacher, [], console)
    try:
        with resumable():
            done = teach(config, console)
    except DivergenceError as error:
        return complain(str(error), 1)
    if done.signal is not None:
        console.print("stopped before the end; the same command resumes")
        return 128 + done.signal
    show(done, console)
    return 0


def show(done: Taught, console: Console) -> None:
    """Show the potentials side by side, and what can be done with the last."""
    result = done.result
    assert result is not None
    columns = ("teacher", "first", "model")

    def row(title: str, part: str, error: str, decimals: int) -> tuple[str, ...]:
        found = [result[name]["errors"].get(part, {}).get(error) for name in columns]
        cells = ["–" if value is None else f"{value:.{decimals}f}" for value in found]
        return (title, *cells)

    rows = [
        row("energy MAE, meV/atom", "energy_per_atom", "mae", 2),
        row("forces MAE, meV/Å", "forces", "mae", 1),
        row("forces RMSE, meV/Å", "forces", "rmse", 1),
        row("stress MAE, GPa", "stress", "mae", 3),
        ("µs/atom", *(f"{result[name]['microseconds']:.1f}" for name in columns)),
    ]
    print_table(console, ("validation", "teacher", "labels only", "taught"), rows)
    line = advice(result)
    if line is not None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    print_written(console, done.model, done.export)
    console.print(
        f"learned: {result['structures']} structures of the dataset and {result['labels']} with "
        f"labels of the teachers\nnext: train-potential report {done.model} --data TEST.h5 -o "
        "report",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def advice(result: dict[str, Any]) -> str | None:
    """What to do if the teacher, or learning from it, did not help; None if both did."""
    errors = [result[name]["errors"].get("forces") for name in ("teacher", "first", "model")]
    if None in errors:  # the validation structures have none
        return None
    teacher, first, last = (each["mae"] for each in errors)
    if last >= first:
        return (
            "the labels of the teacher did not make the forces better: first.safetensors is the "
            "better potential; give more --time, or use train-potential fit"
        )
    if teacher >= first:
        return (
            "the teacher errs more than the potential that knows the labels only; with more --time "
            "it learns more"
        )
    return None
