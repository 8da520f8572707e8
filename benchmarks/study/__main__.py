"""Study of the architectures: expressivity, l_max, the same data, broken symmetry, sparsity.

    python -m benchmarks.study [PART …] [--data FOLDER]
        [--output runs/study] [--threads 1] [--parallel 1] [--minutes 5] [--sets Si,AcAc]
        [--systems facet,nequip,…]

See docs/measurements/systems.md. Finished trainings are not repeated; tables and the figure are
written to the output folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.machine import machine
from benchmarks.sheets import Sheet, console, report
from benchmarks.study.degree import degree_sheets
from benchmarks.study.denoising import denoising_sheets
from benchmarks.study.expressivity import expressivity_sheets
from benchmarks.study.field import field_sheets
from benchmarks.study.sparsity import sparsity_sheets
from benchmarks.study.systems import SETS, system_sheets
from tesseral.potentials.architectures.table import ARCHITECTURES

Part = Callable[[argparse.Namespace, Console], list[Sheet]]
PARTS: dict[str, Part] = {
    "expressivity": expressivity_sheets,
    "degree": degree_sheets,
    "systems": system_sheets,
    "field": field_sheets,
    "denoising": denoising_sheets,
    "sparsity": sparsity_sheets,
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, or all")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    parser.add_argument("--output", type=Path, default=Path("runs/study"))
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    parser.add_argument("--parallel", type=int, default=1, help="number of parallel trainings")
    parser.add_argument("--minutes", type=float, default=5.0, help="time of each training")
    parser.add_argument(
        "--sets", type=lambda text: text.split(","), default=list(SETS), help="sets to train on"
    )
    parser.add_argument(
        "--systems",
        type=lambda text: text.split(","),
        default=list(ARCHITECTURES),
        help="architectures to train in systems",
    )
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(PARTS)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}; there are {', '.join(PARTS)}")
    for name in options.sets:
        if name not in SETS:
            parser.error(f"there is no set {name}; there are {', '.join(SETS)}")
    for name in options.systems:
        if name not in ARCHITECTURES:
            parser.error(f"there is no system {name}; there are {', '.join(ARCHITECTURES)}")
    for name in ("threads", "parallel", "minutes"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} is {getattr(options, name)}; it must be positive")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0, or 2 if an option is invalid."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    terminal = console()
    command = ["python", "-m", "benchmarks.study", *arguments]
    try:
        for part in options.parts:
            sheets = PARTS[part](options, terminal)
            report(sheets, machine(), command, terminal, options.output / f"{part}.md")
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"benchmarks.study: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
