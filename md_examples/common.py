"""What the examples share: arguments, loading, plots, one-sentence errors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from numpy.typing import ArrayLike
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.dynamics import Unstable
from tesseral.data.neighbors import species_index
from tesseral.process import keep_freed_memory

Lines = Mapping[str, ArrayLike]

COLORS = ("#1f6f8b", "#d1603d", "#5b8c5a", "#8a6fb0")


def make_parser(description: str, name: str) -> argparse.ArgumentParser:
    """Arguments that every example has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tesseral.md_examples.{name}",
        description=description,
    )
    add = parser.add_argument
    add("structure", type=Path, help="structure file, anything that ASE reads")
    add("model", type=Path, help="model file, or universal")
    add(
        "-o",
        "--output",
        type=Path,
        help=f"start of the output files; STRUCTURE-{name} if not given",
    )
    add(
        "--repeat",
        type=int,
        nargs=3,
        default=(1, 1, 1),
        metavar=("A", "B", "C"),
        help="supercell of so many cells",
    )
    add_model_options(parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    parser.add_argument("--device", help="cpu, cuda, …; a GPU if there is one when not given")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision; the model's if not given"
    )


def load_atoms(arguments: argparse.Namespace) -> Atoms:
    """The last structure of the file in the arguments, with the model as its calculator.

    Raises:
        FileNotFoundError: no such structure or model file.
        ValueError: a file that cannot be read, or an element that the model does not know.
    """
    path, repeat = arguments.structure, arguments.repeat
    if not path.is_file():
        raise FileNotFoundError(f"there is no structure file {path}")
    if min(repeat) < 1:
        raise ValueError(f"--repeat is {' '.join(map(str, repeat))}; give three numbers from 1 up")
    calculator = TesseralCalculator(arguments.model, device=arguments.device, dtype=arguments.dtype)
    try:
        found = ase.io.read(path, index=-1)
    except Exception as error:  # every format of ASE has its own
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be read as a structure ({reason})") from None
    assert isinstance(found, Atoms)
    species_index(found.numbers, calculator.card.elements)
    atoms: Atoms = found.repeat(tuple(repeat))
    atoms.calc = calculator
    return atoms


def output_prefix(arguments: argparse.Namespace, name: str) -> Path:
    """Where the output files start, with their folder made."""
    prefix: Path = arguments.output or Path(f"{arguments.structure.stem}-{name}")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return prefix


def run_example(run: Callable[[Console], object]) -> int:
    """Run ``run``; an expected error becomes one sentence and an exit status.

    Returns:
        0, 2 where the input was wrong, 1 where the physics failed, 130 after Ctrl-C.
    """
    console = Console()
    keep_freed_memory()
    try:
        run(console)
    except (ValueError, OSError, NotImplementedError) as error:
        return _complain(f"error: {error}", 2)
    except (Unstable, CalculationFailed) as error:
        return _complain(f"stopped: {error}", 1)
    except KeyboardInterrupt:
        return _complain("stopped by Ctrl-C; the files hold everything up to here", 130)
    return 0


def _complain(text: str, status: int) -> int:
    errors = Console(stderr=True)
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return status


def plot_panels(path: Path, x: ArrayLike, xlabel: str, panels: Mapping[str, Lines]) -> None:
    """Curves over a common axis as a PNG, one panel below the other.

    Args:
        path: the PNG.
        x: (T,).
        xlabel: name and unit of ``x``.
        panels: for each panel its y label, and the curves (T,) by name; no legend for one curve.
    """
    figure = make_figure(6.5, 0.6 + 2.0 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (ylabel, lines) in zip(axes, panels.items(), strict=True):
        for color, (name, y) in zip(COLORS, lines.items(), strict=False):
            axis.plot(x, y, color=color, linewidth=1.2, label=name)
        finish_axes(axis, "", ylabel, legend=len(lines) > 1)
    axes[-1].set_xlabel(xlabel)
    save_figure(figure, path)


def make_figure(width: float, height: float) -> Any:
    """An empty figure in inches; matplotlib is imported here, and its global state left alone."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def finish_axes(axis: Any, xlabel: str, ylabel: str, *, legend: bool) -> None:
    """The look of all plots."""
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        axis.legend(frameon=False, fontsize="small", loc="best")


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        figure.savefig(file, format="png", dpi=130)  # by Agg, whatever backend the caller uses
    os.replace(temporary, path)
